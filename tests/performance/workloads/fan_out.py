"""Many items that do nothing, in one `for_each`: beside a plain group, and beside fewer of them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from celery import group

from tests.performance.comparison import Comparison, Goal, Sample
from tests.performance.counting import Counters, expect
from tests.performance.raw_tasks import raw_noop, raw_result
from tests.performance.stack import PREFORK, WorkerKind
from tests.performance.workloads.workload import (
    COUNTED,
    NOOP,
    PLAIN,
    WARM_RUNS,
    Timed,
    publish,
    run_all,
    time_runs,
    with_dispatcher,
)

WORKFLOW = "bench-fan-out"
#: Runs of the smaller size that are taken together: one alone is over in a fifth of a second.
BASE_RUNS = 5


def publish_items(counters: Counters, dispatch: str) -> str:
    """A workflow of `payload.items` items that do nothing, and some runs of it; returns its name."""
    name = with_dispatcher(WORKFLOW, dispatch)
    publish(counters, name, {"each": {**NOOP, "for_each": {"range": "${{ payload.items }}"}}}, dispatch=dispatch)
    run_all(name, {"items": 20}, WARM_RUNS)
    run_all(name, {"items": 1000}, 1)
    return name


def time_items(counters: Counters, items: int, dispatch: str = COUNTED) -> Timed:
    """One run of so many items.

    Raises: WrongCount
    """
    timed = time_runs(counters, with_dispatcher(WORKFLOW, dispatch), {"items": items}, 1, items + 1)
    expect("items that succeeded", timed.results[0]["counts"], {"succeeded": items})
    return timed  # one row more than items is that of the for_each itself


def time_base(counters: Counters, items: int) -> Sample:
    """The rates of several runs of a smaller size, all together.

    Raises: WrongCount
    """
    timed = [time_items(counters, items) for _ in range(BASE_RUNS)]
    done = items * BASE_RUNS
    return Sample(
        {
            "to_results": done / sum(each.seconds_to_results for each in timed),
            "to_rows": done / sum(each.seconds_to_rows for each in timed),
        },
        {"items": done, "rows": sum(each.rows for each in timed)},
    )


def items_sample(timed: Timed, items: int) -> Sample:
    """Rates of one run, and its exact counts."""
    return Sample(timed.rates(items), {"items": items, "rows": timed.rows, "messages": timed.all_messages})


@dataclass(frozen=True, slots=True)
class FanOut:
    """Beside a group of as many tasks whose results are ignored."""

    items: int
    dispatch: str = COUNTED
    worker: ClassVar[WorkerKind] = PREFORK
    repeats: ClassVar[int] = 3
    beside: ClassVar[str] = PLAIN

    @property
    def name(self) -> str:
        return with_dispatcher("fan-out", self.dispatch)

    @property
    def title(self) -> str:
        return f"for_each of {self.items:,} no-ops / group of {self.items:,}"

    @property
    def comparisons(self) -> Sequence[Comparison]:
        goal = Goal(15.0) if self.dispatch == COUNTED else None
        return (
            Comparison("until the result", "items/s", "to_results", "all_run", goal=goal),
            Comparison("until all rows are in PostgreSQL", "items/s", "to_rows", "all_run", goal=goal),
        )

    def warm_up(self, counters: Counters) -> None:
        publish_items(counters, self.dispatch)
        self._run_group(counters, max(20, self.items // 20))

    def ours(self, counters: Counters) -> Sample:
        return items_sample(time_items(counters, self.items, self.dispatch), self.items)

    def other(self, counters: Counters) -> Sample:
        seconds = self._run_group(counters, self.items)
        return Sample({"all_run": self.items / seconds}, {"tasks": self.items, "messages": self.items})

    def _run_group(self, counters: Counters, size: int) -> float:
        before = counters.tasks_run()
        begun = time.perf_counter()
        group(raw_noop.s() for _ in range(size)).apply_async()
        counters.wait_broker_empty()
        seconds = time.perf_counter() - begun
        expect("tasks run", counters.tasks_since(before), {raw_noop.name: size})
        # Celery's client gives up each result of the group, and reads Redis's answers to that before its next result
        raw_result.delay().get(timeout=60)
        return seconds


@dataclass(frozen=True, slots=True)
class Growth:
    """Beside a tenth of the items: what one item costs does not depend on how many there are."""

    items: int
    base: int
    name: ClassVar[str] = "growth"
    worker: ClassVar[WorkerKind] = PREFORK
    repeats: ClassVar[int] = 3
    comparisons: ClassVar[Sequence[Comparison]] = (
        Comparison("until the result", "items/s", "to_results", "to_results", goal=Goal(1.0)),
        Comparison("until all rows are in PostgreSQL", "items/s", "to_rows", "to_rows", goal=Goal(1.0)),
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
        return items_sample(time_items(counters, self.items), self.items)

    def other(self, counters: Counters) -> Sample:
        return time_base(counters, self.base)
