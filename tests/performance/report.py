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

from tests.performance.comparison import Compared, Pair, Spread
from tests.performance.workloads import Workload


@dataclass(frozen=True, slots=True)
class Measured:
    """A workload and its pairs."""

    workload: Workload
    pairs: Sequence[Pair]

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
            f"{each.workload.name}, {one.comparison.title}: {one.against.median:.2f} × plain Celery; "
            f"the goal is ≥ {one.comparison.at_least:g} ×"
            for each in self.measured
            for one in each.compared
            if one.met is False
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
        table = Table(title="processor / plain Celery, on the same worker", title_justify="left")
        table.add_column("workload", overflow="fold", max_width=34)
        table.add_column("measured", overflow="fold")
        for column in ("processor", "plain Celery", "compared", "goal"):
            table.add_column(column, justify="right")
        for each in self.measured:
            for number, one in enumerate(each.compared):
                table.add_row(each.workload.title if number == 0 else "", *_cells(one, judged=not self.quick))
            table.add_section()
        console.print(table)
        repeats = len(self.measured[0].pairs)
        console.print(f"median (lowest – highest) of {repeats} interleaved pairs, compared pair by pair")
        console.print(", ".join(f"{name.replace('_', ' ')} {value}" for name, value in self.machine.items()))
        if self.quick:
            console.print("quick: these sizes show that the benchmark works, not how fast anything is")


def _cells(one: Compared, *, judged: bool) -> tuple[str, str, str, str, str]:
    comparison, against = one.comparison, one.against
    if comparison.by == "ratio":
        shown = f"{against.median:.2f} × ({against.low:.2f} – {against.high:.2f})"
    else:
        shown = f"{against.median:+.1f} {comparison.unit} ({against.low:+.1f} – {against.high:+.1f})"
    goal = ""
    if comparison.at_least is not None:
        verdict = ("met" if one.met else "missed") if judged else "not judged"
        goal = f"≥ {comparison.at_least:g} ×: {verdict}"
    return f"{comparison.title}, {comparison.unit}", _figures(one.ours), _figures(one.raw), shown, goal


def _figures(spread: Spread) -> str:
    digits = 1 if spread.median < 100 else 0
    return f"{spread.median:,.{digits}f} ({spread.low:,.{digits}f} – {spread.high:,.{digits}f})"


def _workload_json(each: Measured, *, judged: bool) -> dict[str, Any]:
    return {
        "name": each.workload.name,
        "title": each.workload.title,
        "pairs": [{"ours": asdict(pair.ours), "raw": asdict(pair.raw)} for pair in each.pairs],
        "comparisons": [
            {
                "title": one.comparison.title, "unit": one.comparison.unit, "by": one.comparison.by,
                "ours": asdict(one.ours), "raw": asdict(one.raw), "compared": asdict(one.against),
                "goal": one.comparison.at_least, "met": one.met if judged else None,
            }
            for one in each.compared
        ],
    }  # fmt: skip
