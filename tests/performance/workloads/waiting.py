"""Branches that only wait, at a limit: how near the whole comes to the shortest time possible."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from tests.performance.comparison import Comparison, Goal, Sample
from tests.performance.counting import Counters, expect
from tests.performance.stack import THREADS, WorkerKind
from tests.performance.workloads.workload import COUNTED, publish, run_all, time_runs, with_dispatcher

#: Rounds of a warm-up, each of as many branches as the limit lets run at once.
WARM_ROUNDS = 2


@dataclass(frozen=True, slots=True)
class Waiting:
    """On threads, each branch keeps one; else the branches are async, and wait beside others in a process."""

    items: int
    seconds: float
    limit: int
    worker: WorkerKind
    share: float
    dispatch: str = COUNTED
    beside: ClassVar[str] = ""

    @property
    def name(self) -> str:
        return with_dispatcher(f"wait-{self.items}-{self._kind}", self.dispatch)

    @property
    def title(self) -> str:
        how = "each in a thread" if self._kind == "threads" else "async"
        return f"{self.items:,} branches of {self.seconds:g} s at limit {self.limit}, {how}"

    @property
    def repeats(self) -> int:
        return 5 if self._ideal_seconds < 1 else 3

    @property
    def comparisons(self) -> Sequence[Comparison]:
        goal = Goal(self.share) if self.dispatch == COUNTED else None
        return (Comparison("share of the ideal", "", "share", goal=goal),)

    @property
    def _ideal_seconds(self) -> float:
        return self.seconds * self.items / self.limit

    @property
    def _kind(self) -> str:
        return "threads" if self.worker == THREADS else "async"

    @property
    def _workflow(self) -> str:
        return with_dispatcher(f"bench-wait-{self._kind}-{self.limit}", self.dispatch)

    def warm_up(self, counters: Counters) -> None:
        uses = "bench.sleep" if self._kind == "threads" else "core.sleep"
        actions = {
            "each": {
                "uses": uses,
                "with": {"seconds": "${{ payload.seconds }}"},
                "for_each": {"range": "${{ payload.items }}"},
            }
        }
        limits = {"max_concurrent_branches": self.limit}
        publish(counters, self._workflow, actions, limits=limits, dispatch=self.dispatch)
        for _ in range(WARM_ROUNDS):
            run_all(self._workflow, {"items": self.limit, "seconds": self.seconds}, 1)
        counters.wait_recorded()

    def ours(self, counters: Counters) -> Sample:
        payload = {"items": self.items, "seconds": self.seconds}
        timed = time_runs(counters, self._workflow, payload, 1, self.items + 1)
        expect("items that succeeded", timed.results[0]["counts"], {"succeeded": self.items})
        return Sample(
            {"share": self._ideal_seconds / timed.seconds_to_results},
            {"items": self.items, "rows": timed.rows, "messages": timed.all_messages},
        )

    def other(self, counters: Counters) -> None:
        """Nothing: the ideal is known."""
