"""A very large `for_each`: what it needs of Redis's memory and of the processes' while it runs, and what stays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from tests.performance.comparison import Comparison, Goal, Sample
from tests.performance.counting import Counters
from tests.performance.memory import MemoryWatch
from tests.performance.stack import PREFORK, WorkerKind
from tests.performance.workloads.fan_out import items_sample, publish_items, time_base, time_items
from tests.performance.workloads.workload import COUNTED


@dataclass(frozen=True, slots=True)
class Million:
    """Beside a hundredth of the items, of which the rate is taken."""

    items: int
    base: int
    name: ClassVar[str] = "million"
    worker: ClassVar[WorkerKind] = PREFORK
    repeats: ClassVar[int] = 1
    comparisons: ClassVar[Sequence[Comparison]] = (
        Comparison("until the result", "items/s", "to_results", "to_results", goal=Goal(0.8)),
        Comparison("until all rows are in PostgreSQL", "items/s", "to_rows", "to_rows", goal=Goal(0.8)),
        Comparison("Redis grows by, at its peak", "MB", "redis_peak", goal=Goal(100.0, is_most=True)),
        Comparison("Redis is larger afterwards by", "MB", "redis_after", goal=Goal(5.0, is_most=True)),
        Comparison("the process that grows most grows by", "MB", "process_peak", goal=Goal(50.0, is_most=True)),
        Comparison("the upkeep process grows by", "MB", "upkeep_peak"),
    )

    @property
    def beside(self) -> str:
        return f"{self.base:,} items"

    @property
    def title(self) -> str:
        return f"for_each of {self.items:,} no-ops / of {self.base:,}"

    def warm_up(self, counters: Counters) -> None:
        publish_items(counters, COUNTED)
        time_items(counters, self.base)

    def ours(self, counters: Counters) -> Sample:
        with MemoryWatch(counters) as watch:
            timed = time_items(counters, self.items)
        sample = items_sample(timed, self.items)
        return Sample({**sample.measures, **watch.measures()}, sample.counts)

    def other(self, counters: Counters) -> Sample:
        return time_base(counters, self.base)
