"""A typical branching workflow, beside itself with one branch at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from tests.performance.comparison import Comparison, Goal, Sample
from tests.performance.counting import Counters
from tests.performance.stack import THREADS, WorkerKind
from tests.performance.workloads.workload import NOOP, WARM_RUNS, publish, run_all, time_runs

#: Branches between the fork and the join, and the steps of each.
BRANCHES, STEPS = 5, 3
TASKS = BRANCHES * STEPS + 2
#: Time of one run; three quarters less than one branch at a time.
GOAL = 0.25


@dataclass(frozen=True, slots=True)
class Branching:
    """One action, a fork into branches of some steps, a join; one run after another."""

    seconds: float
    runs: int
    name: ClassVar[str] = "branching"
    worker: ClassVar[WorkerKind] = THREADS
    repeats: ClassVar[int] = 3
    beside: ClassVar[str] = "one branch at a time"
    comparisons: ClassVar[Sequence[Comparison]] = (
        Comparison("one run", "s", "one", "one", goal=Goal(GOAL, is_most=True)),
    )

    @property
    def title(self) -> str:
        return f"1 → {BRANCHES} branches of {STEPS} × {self.seconds:g} s → join, limit 10 / limit 1"

    def warm_up(self, counters: Counters) -> None:
        for limit in (10, 1):
            actions: dict[str, Any] = {"first": NOOP}
            for branch in range(BRANCHES):
                before = "first"
                for step in range(STEPS):
                    name = f"b{branch}s{step}"
                    actions[name] = {"uses": "bench.sleep", "with": {"seconds": self.seconds}, "needs": [before]}
                    before = name
            actions["join"] = {**NOOP, "needs": [f"b{branch}s{STEPS - 1}" for branch in range(BRANCHES)]}
            publish(counters, _workflow(limit), actions, limits={"max_concurrent_branches": limit})
        run_all(_workflow(10), {}, WARM_RUNS)
        counters.wait_recorded()

    def ours(self, counters: Counters) -> Sample:
        return self._time(counters, 10)

    def other(self, counters: Counters) -> Sample:
        return self._time(counters, 1)

    def _time(self, counters: Counters, limit: int) -> Sample:
        timed = [time_runs(counters, _workflow(limit), {}, 1, TASKS) for _ in range(self.runs)]
        seconds = sum(each.seconds_to_results for each in timed) / self.runs
        return Sample({"one": seconds}, {"runs": self.runs, "rows": sum(each.rows for each in timed)})


def _workflow(limit: int) -> str:
    return f"bench-branching-{limit}"
