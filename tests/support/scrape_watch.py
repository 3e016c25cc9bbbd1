"""What must be true of metrics at every moment, whoever is killed: of each answer alone, and of one after another.

Pure: it is told what was scraped and when, and says what can't be. A counter may begin anew, as Prometheus allows, only
where its numbers live in memory: of a worker with the worker, of Redis when that has lost data.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from orchestration.telemetry.metrics import METRICS, Metric, Source, Type
from tests.support.scrapes import Scrape, Series

#: A sample's name → its metric, of all that only rise.
RISING: Final[dict[str, Metric]] = {
    name: metric for metric in METRICS.values() if metric.type is not Type.GAUGE for name in metric.series
}
#: Sums are shown as floating-point numbers.
_ROUNDING: Final = 1e-9
_ALL_RUNS: Final = ("workflow", "status")


@dataclass(frozen=True, slots=True)
class Fall:
    """A counter that was lower than it had been before; times in seconds since 1970."""

    text: str
    source: Source
    since: float
    until: float


@dataclass(slots=True)
class _Seen:
    when: float
    values: dict[Series, float] = field(default_factory=dict)


class ScrapeWatch:
    """Answers of all workers of a fleet, as they come."""

    def __init__(self) -> None:
        self.answers: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.falls: list[Fall] = []
        #: What was last seen at a place in the fleet (of the fleet), or of a worker (its own).
        self._seen: dict[tuple[Source, str], _Seen] = {}

    def look(self, place: str, worker: str, when: float, told: Scrape) -> None:
        """One answer.

        Args: place: of the worker in the fleet; another worker takes it when this one is gone.
        """
        self.answers[worker] += 1
        self.wrong += [f"{worker}: {text}" for text in disagreements(told)]
        for source in Source:
            values = {
                series: value
                for series, value in told.values.items()
                if (of := RISING.get(series[0])) and of.source is source
            }
            if values:
                key = (source, worker if source is Source.WORKER else place)
                seen = self._seen.get(key)
                if seen is not None:
                    self.falls += _falls(worker, source, seen, when, values)
                self._seen[key] = _Seen(when, values)

    def compare_runs(
        self, worker: str, told: Scrape, before: Counter[tuple[str, ...]], after: Counter[tuple[str, ...]]
    ) -> None:
        """Runs that ended, by workflow and status: at least what was recorded before, at most what was after."""
        if not is_of_record(told):
            return
        runs = told.by("workflows_total", _ALL_RUNS)
        for labels in sorted(runs.keys() | before.keys()):
            if not before[labels] <= runs[labels] <= after[labels]:
                self.wrong.append(
                    f"{worker}: {runs[labels]} runs of {', '.join(labels)}; recorded were {before[labels]} before, "
                    f"{after[labels]} after"
                )


def is_of_record(told: Scrape) -> bool:
    """Whether PostgreSQL answered this scrape."""
    return told.get("dead_letters") is not None


def disagreements(told: Scrape) -> Iterator[str]:
    """Where an answer contradicts itself: all that PostgreSQL counts is of one moment."""
    ended = {kind: told.by(f"{kind}_total", labels) for kind, labels in _LABELS.items()}
    for kind in ("branches", "tasks", "items"):
        undone = told.by(f"{kind}_undone_total", _LABELS[kind])
        yield from (
            f"{undone[each]} {kind} of {', '.join(each)} were taken back, of {ended[kind][each]}"
            for each in undone if undone[each] > ended[kind][each]
        )  # fmt: skip
    actions = _without_status(ended["tasks"]) + _without_status(ended["items"])
    for measure, labels, most in (
        ("workflow_duration_seconds", ("workflow",), _without_status(ended["workflows"])),
        ("branch_duration_seconds", ("workflow",), _without_status(ended["branches"])),
        ("branch_wait_seconds", ("workflow",), _without_status(ended["branches"])),
        ("task_duration_seconds", ("workflow", "action"), actions),
    ):
        counts = told.by(f"{measure}_count", labels)
        yield from (
            f"{counts[each]} in {measure} of {', '.join(each)}, of which {most[each]} ended"
            for each in counts if counts[each] > most[each]
        )  # fmt: skip
    branches = told.by("workflow_branches_count", ("workflow",))
    if branches != (runs := _without_status(ended["workflows"])):
        yield f"workflow_branches has {dict(branches)} runs, and {dict(runs)} ended"
    failures = told.by("failures_total", []).total()
    failed = sum(ended[kind][each] for kind in ("tasks", "items") for each in ended[kind] if each[-1] == "failed")
    if failures != failed:
        yield f"failures_total has {failures}, and {failed} tasks and items failed"


_LABELS: Final[dict[str, Sequence[str]]] = {
    "workflows": _ALL_RUNS, "branches": _ALL_RUNS,
    "tasks": ("workflow", "action", "status"), "items": ("workflow", "action", "status"),
}  # fmt: skip


def _without_status(ended: Counter[tuple[str, ...]]) -> Counter[tuple[str, ...]]:
    found: Counter[tuple[str, ...]] = Counter()
    for labels, count in ended.items():
        found[labels[:-1]] += count
    return found


def _falls(worker: str, source: Source, seen: _Seen, when: float, values: dict[Series, float]) -> Iterator[Fall]:
    for series, last in seen.values.items():
        now = values.get(series, 0.0)
        if now < last - _ROUNDING * max(1.0, last):
            labels = ", ".join(f"{name}={value}" for name, value in sorted(series[1]))
            yield Fall(f"{worker}: {series[0]} of {labels} went from {last:g} to {now:g}", source, seen.when, when)
