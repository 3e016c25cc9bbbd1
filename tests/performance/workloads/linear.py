"""Linear workflows, each one Celery message: a long chain, and the shortest of all."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import quantiles
from typing import Any, ClassVar

from celery import chain

from tasks import run_workflow
from tests.performance.comparison import Comparison, Goal, Sample
from tests.performance.counting import Counters, expect
from tests.performance.raw_tasks import raw_result
from tests.performance.stack import PREFORK, WorkerKind
from tests.performance.workloads.workload import (
    NOOP,
    PLAIN,
    WARM_RUNS,
    counted_rows,
    publish,
    result_of,
    run_all,
    time_runs,
)


@dataclass(frozen=True, slots=True)
class Chain:
    """Steps that do nothing, one after another, in one Celery message, beside a chain of tasks with results."""

    steps: int
    raw_steps: int
    #: Of the workflow, at once.
    runs: int = 1
    name: ClassVar[str] = "chain"
    worker: ClassVar[WorkerKind] = PREFORK
    repeats: ClassVar[int] = 5
    beside: ClassVar[str] = PLAIN
    comparisons: ClassVar[Sequence[Comparison]] = (
        Comparison("until the result", "steps/s", "to_results", "to_result", goal=Goal(20.0)),
        Comparison("until all rows are in PostgreSQL", "steps/s", "to_rows", "to_result", goal=Goal(20.0)),
    )

    @property
    def title(self) -> str:
        return f"{self.steps:,} no-op actions in a row / chain of {self.raw_steps:,}"

    def warm_up(self, counters: Counters) -> None:
        actions: dict[str, Any] = {"s0": NOOP}
        for number in range(1, self.steps):
            actions[f"s{number}"] = {**NOOP, "needs": [f"s{number - 1}"]}
        publish(counters, "bench-chain", actions)
        run_all("bench-chain", {}, WARM_RUNS)
        self._run_chain(20)
        counters.wait_recorded()

    def ours(self, counters: Counters) -> Sample:
        steps = self.steps * self.runs
        timed = time_runs(counters, "bench-chain", {}, self.runs, steps)
        for result in timed.results:
            expect("steps that succeeded", result["counts"], {"succeeded": self.steps})
        expect("Celery messages", timed.messages, {run_workflow.name: self.runs})
        return Sample(timed.rates(steps), {"steps": steps, "rows": timed.rows, "messages": self.runs})

    def other(self, counters: Counters) -> Sample:
        before = counters.tasks_run()
        seconds = self._run_chain(self.raw_steps)
        expect("tasks run", counters.tasks_since(before), {raw_result.name: self.raw_steps})
        return Sample({"to_result": self.raw_steps / seconds}, {"tasks": self.raw_steps, "messages": self.raw_steps})

    def _run_chain(self, steps: int) -> float:
        begun = time.perf_counter()
        result_of(chain(*(raw_result.s() for _ in range(steps))).apply_async())
        return time.perf_counter() - begun


@dataclass(frozen=True, slots=True)
class OneAction:
    """From `delay()` to the result of `get()`, one call after another: a workflow of one action beside one task."""

    runs: int
    name: ClassVar[str] = "one-action"
    worker: ClassVar[WorkerKind] = PREFORK
    repeats: ClassVar[int] = 3
    beside: ClassVar[str] = PLAIN
    comparisons: ClassVar[Sequence[Comparison]] = (
        Comparison("p50", "ms", "p50", "p50", by="difference", goal=Goal(8.0, is_most=True)),
        Comparison("p99", "ms", "p99", "p99", by="difference"),
    )

    @property
    def title(self) -> str:
        return f"workflow of one action / one task, delay() to get(), {self.runs} times"

    def warm_up(self, counters: Counters) -> None:
        publish(counters, "bench-one", {"only": NOOP})
        run_all("bench-one", {}, WARM_RUNS)
        for _ in range(WARM_RUNS):
            result_of(raw_result.delay())
        counters.wait_recorded()

    def ours(self, counters: Counters) -> Sample:
        before = counters.tasks_run()
        measures, results = self._time_each(lambda: run_workflow.delay("bench-one", {}))
        counters.wait_recorded()
        rows = counted_rows(counters, results, self.runs)
        expect("Celery messages", counters.tasks_since(before), {run_workflow.name: self.runs})
        return Sample(measures, {"runs": self.runs, "rows": rows, "messages": self.runs})

    def other(self, counters: Counters) -> Sample:
        before = counters.tasks_run()
        measures, _ = self._time_each(raw_result.delay)
        expect("tasks run", counters.tasks_since(before), {raw_result.name: self.runs})
        return Sample(measures, {"tasks": self.runs, "messages": self.runs})

    def _time_each(self, send: Callable[[], Any]) -> tuple[dict[str, float], list[Any]]:
        seconds, results = [], []
        for _ in range(self.runs):
            begun = time.perf_counter()
            results.append(result_of(send()))
            seconds.append(time.perf_counter() - begun)
        cuts = quantiles(seconds, n=100, method="inclusive")
        return {"p50": cuts[49] * 1e3, "p99": cuts[98] * 1e3}, results
