"""Many small workflows at once, one action, then three, then one, beside as many chords of three and one."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from celery import chord, uuid

from tests.performance.comparison import Comparison, Goal, Sample
from tests.performance.counting import Counters, expect
from tests.performance.raw_tasks import app, raw_noop, raw_result
from tests.performance.stack import FORKING, PREFORK, WorkerKind
from tests.performance.workloads.workload import (
    COUNTED,
    NOOP,
    PLAIN,
    WARM_RUNS,
    publish,
    result_of,
    run_all,
    time_runs,
    with_dispatcher,
)

#: Bursts of a warm-up: what a fork costs is known to a process when it has run each of its actions.
WARM_BURSTS = 4
#: Runs a second.
INLINED, FORKED = 100.0, 60.0


@dataclass(frozen=True, slots=True)
class SmallRuns:
    """On a worker that runs short forks in one process, or on one that shares every fork."""

    runs: int
    worker: WorkerKind = PREFORK
    dispatch: str = COUNTED
    repeats: ClassVar[int] = 3
    beside: ClassVar[str] = PLAIN

    @property
    def name(self) -> str:
        return with_dispatcher("small-runs-forked" if self.worker == FORKING else "small-runs", self.dispatch)

    @property
    def title(self) -> str:
        how = "each fork shared" if self.worker == FORKING else "short forks in one process"
        return f"{self.runs} workflows of 1 → 3 → 1 at once, {how} / {self.runs} chords of 3 → 1"

    @property
    def comparisons(self) -> Sequence[Comparison]:
        bound = FORKED if self.worker == FORKING else INLINED
        goal = Goal(bound, of="ours") if self.dispatch == COUNTED else None
        return (
            Comparison("until all results", "runs/s", "to_results", "to_results", goal=goal),
            Comparison("until all rows are in PostgreSQL", "runs/s", "to_rows", "to_results", goal=goal),
        )

    @property
    def _workflow(self) -> str:
        return with_dispatcher("bench-small", self.dispatch)

    def warm_up(self, counters: Counters) -> None:
        actions: dict[str, Any] = {"first": NOOP}
        actions |= {name: {**NOOP, "needs": ["first"]} for name in ("left", "middle", "right")}
        actions["last"] = {**NOOP, "needs": ["left", "middle", "right"]}
        publish(counters, self._workflow, actions, dispatch=self.dispatch)
        for _ in range(WARM_BURSTS):
            run_all(self._workflow, {}, WARM_RUNS)
        self._run_chords(WARM_RUNS)
        counters.wait_recorded()

    def ours(self, counters: Counters) -> Sample:
        timed = time_runs(counters, self._workflow, {}, self.runs, 5 * self.runs)
        return Sample(timed.rates(self.runs), {"runs": self.runs, "rows": timed.rows, "messages": timed.all_messages})

    def other(self, counters: Counters) -> Sample:
        before = counters.tasks_run()
        seconds = self._run_chords(self.runs)
        wanted = {raw_noop.name: 3 * self.runs, raw_result.name: self.runs}
        expect("tasks run", counters.tasks_since(before), wanted)
        return Sample({"to_results": self.runs / seconds}, {"chords": self.runs, "messages": 4 * self.runs})

    def _run_chords(self, count: int) -> float:
        begun = time.perf_counter()
        sent = [_send_chord() for _ in range(count)]
        for each in sent:
            result_of(each)
        return time.perf_counter() - begun


def _send_chord() -> Any:
    """A chord on its way, whose result will be heard of.

    Celery 5.7 subscribes to the result of a chord's body in `get()` only, and asks for it on another connection. When
    Redis meets the question first, the result second and the subscription last, `get()` waits for ever (seen once in
    some thousand chords on a busy machine). What this process itself publishes is subscribed to before; so is this.
    """
    body = raw_result.s().set(task_id=uuid())
    app.backend.on_task_call(None, body.options["task_id"])
    return chord([raw_noop.s() for _ in range(3)], body).apply_async()
