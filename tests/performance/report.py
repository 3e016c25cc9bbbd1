"""The report of a benchmark: a table for people, JSON for comparing runs, a sentence for each missed goal."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.performance.comparison import Compared, Goal, Pair, Spread
from tests.performance.workloads import Workload


@dataclass(frozen=True, slots=True)
class Measured:
    """A workload and its pairs."""

    workload: Workload
    pairs: Sequence[Pair]
    #: Of the machine's processors, used by other programs meanwhile: 0 to 1.
    others_share: float

    @property
    def compared(self) -> list[Compared]:
        return [comparison.of(self.pairs) for comparison in self.workload.comparisons]


@dataclass(frozen=True, slots=True)
class Report:
    """Everything a benchmark found."""

    taken_at: datetime
    duration_seconds: float
    #: Small sizes: nothing is judged.
    quick: bool
    machine: Mapping[str, object]
    measured: Sequence[Measured]

    def missed(self) -> list[str]:
        """A sentence for each goal that was not met."""
        if self.quick:
            return []
        return [
            f"{each.workload.name}, {one.comparison.title}: {figure(one.judged.median)} {one.judged_unit}".rstrip()
            + f"; the goal is {goal_text(goal, one.judged_unit)}"
            for each in self.measured
            for one in each.compared
            if (goal := one.comparison.goal) is not None and not one.met
        ]

    def to_json(self) -> dict[str, Any]:
        """The report as JSON; the names of its fields are an interface."""
        return {
            "taken_at": self.taken_at.isoformat(timespec="seconds"),
            "duration_seconds": round(self.duration_seconds, 1),
            "quick": self.quick,
            "goals_met": None if self.quick else not self.missed(),
            "machine": dict(self.machine),
            "workloads": [_workload_json(each, judged=not self.quick) for each in self.measured],
        }

    def write(self, path: Path) -> None:
        """Put the JSON into a file; its folder is made."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.to_json(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

    def print_table(self, console: Console) -> None:
        """Print medians, with the lowest and highest in brackets."""
        table = Table(title="the processor, and what stands beside it on the same worker", title_justify="left")
        table.add_column("workload", overflow="fold", max_width=34)
        table.add_column("measured", overflow="fold", max_width=32)
        for column in ("processor", "beside it", "compared", "goal"):
            table.add_column(column, justify="right", overflow="fold")
        for each in self.measured:
            for number, one in enumerate(each.compared):
                table.add_row(each.workload.title if number == 0 else "", *_cells(each, one, judged=not self.quick))
            table.add_section()
        console.print(table)
        console.print("median (lowest – highest) of the repeats, pairs interleaved and compared pair by pair")
        console.print(", ".join(f"{name.replace('_', ' ')} {value}" for name, value in self.machine.items()))
        others = [100 * each.others_share for each in self.measured]
        console.print(
            f"other programs used {min(others):.0f} % to {max(others):.0f} % of the processors meanwhile; "
            f"it took {self.duration_seconds:.0f} s"
        )
        if self.quick:
            console.print("quick: these sizes show that the benchmark works, not how fast anything is")


def figure(value: float) -> str:
    """A number as short as it can be told."""
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f}"


def figures(spread: Spread) -> str:
    """Median, and the lowest and highest in brackets where they differ."""
    if spread.low == spread.high:
        return figure(spread.median)
    return f"{figure(spread.median)} ({figure(spread.low)} – {figure(spread.high)})"


def goal_text(goal: Goal, unit: str) -> str:
    """For example `≥ 15 ×`."""
    return f"{'≤' if goal.is_most else '≥'} {goal.bound:g} {unit}".rstrip()


def _cells(each: Measured, one: Compared, *, judged: bool) -> tuple[str, str, str, str, str]:
    comparison = one.comparison
    beside = "" if one.beside is None else f"{figures(one.beside)}\n{each.workload.beside}"
    against = ""
    if one.against is not None:
        sign, unit = (
            ("", "×") if comparison.by == "ratio" else ("+" if one.against.median >= 0 else "", comparison.unit)
        )
        against = f"{sign}{figures(one.against)} {unit}"
    goal = ""
    if comparison.goal is not None:
        verdict = ("met" if one.met else "MISSED") if judged else "not judged"
        goal = f"{goal_text(comparison.goal, one.judged_unit)}: {verdict}"
    title = f"{comparison.title}, {comparison.unit}" if comparison.unit else comparison.title
    return title, figures(one.ours), beside, against, goal


def _workload_json(each: Measured, *, judged: bool) -> dict[str, Any]:
    workload = each.workload
    return {
        "name": workload.name,
        "title": workload.title,
        "worker": workload.worker.title,
        "beside": workload.beside or None,
        "others_share": round(each.others_share, 3),
        "pairs": [asdict(pair) for pair in each.pairs],
        "comparisons": [
            {
                "title": one.comparison.title, "unit": one.comparison.unit, "by": one.comparison.by,
                "ours": asdict(one.ours), "beside": one.beside and asdict(one.beside),
                "compared": one.against and asdict(one.against),
                "goal": one.comparison.goal and asdict(one.comparison.goal), "met": one.met if judged else None,
            }
            for one in each.compared
        ],
    }  # fmt: skip
