"""What is measured: each workload does the same work twice, with the processor and with plain Celery.

A new workload is a class with the members of `Workload` and a line in `full_size` and `quick_size`. Every sample checks
that the work was done, all of it and once; its counts go into the report.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import quantiles
from typing import Any, ClassVar, Protocol

from celery import chain, chord, group
from celery.exceptions import TimeoutError as NoResult

from orchestration.definition import load_definition
from orchestration.plan import compile_plan
from orchestration.registry import load_actions
from orchestration.store.workflows import register_version
from tasks import run_workflow
from tests.performance.comparison import Comparison, Sample
from tests.performance.counting import WAIT_SECONDS, Counters, WrongCount, expect
from tests.performance.raw_tasks import raw_noop, raw_result

NOOP: Mapping[str, Any] = {"uses": "core.noop"}
#: Runs at once in a warm-up: every process of the worker has then compiled the version and opened its connections.
WARM_RUNS = 8


class Workload(Protocol):
    """One thing to measure."""

    #: Short and stable: a key of the JSON report.
    name: ClassVar[str]
    comparisons: ClassVar[Sequence[Comparison]]

    @property
    def title(self) -> str:
        """What both sides do, with its sizes."""

    def warm_up(self, counters: Counters) -> None:
        """Publish what is run, and run a little of both sides."""

    def ours(self, counters: Counters) -> Sample:
        """Do it with the processor.

        Raises: WrongCount: not all of it was done.
        """

    def raw(self, counters: Counters) -> Sample:
        """Do the same with plain Celery tasks on the same worker.

        Raises: WrongCount: not all of it was done.
        """


@dataclass(frozen=True, slots=True)
class FanOut:
    """Many items that do nothing, in one `for_each`, beside a group of as many tasks whose results are ignored."""

    items: int
    name: ClassVar[str] = "fan-out"
    comparisons: ClassVar[Sequence[Comparison]] = (
        Comparison("until the result", "items/s", "to_result", "all_run"),
        Comparison("until all rows are in PostgreSQL", "items/s", "to_rows", "all_run", at_least=4.0),
    )

    @property
    def title(self) -> str:
        return f"for_each of {self.items:,} no-ops / group of {self.items:,}"

    def warm_up(self, counters: Counters) -> None:
        each = {**NOOP, "for_each": {"range": "${{ payload.items }}"}}
        publish(counters, {"name": "bench-fan-out", "actions": {"each": each}})
        run_all("bench-fan-out", {"items": 20}, WARM_RUNS)
        self._run_group(counters, max(20, self.items // 20))

    def ours(self, counters: Counters) -> Sample:
        before = counters.tasks_run()
        begun = time.perf_counter()
        results = run_all("bench-fan-out", {"items": self.items}, 1)
        to_result = time.perf_counter() - begun
        counters.wait_recorded()
        to_rows = time.perf_counter() - begun
        expect("items that succeeded", results[0]["counts"], {"succeeded": self.items})
        rows = counted_rows(counters, results, self.items + 1)  # and that of the for_each itself
        return Sample(
            {"to_result": self.items / to_result, "to_rows": self.items / to_rows},
            {"items": self.items, "rows": rows, "messages": sum(counters.tasks_since(before).values())},
        )

    def raw(self, counters: Counters) -> Sample:
        seconds = self._run_group(counters, self.items)
        return Sample({"all_run": self.items / seconds}, {"tasks": self.items, "messages": self.items})

    def _run_group(self, counters: Counters, size: int) -> float:
        before = counters.tasks_run()
        begun = time.perf_counter()
        group(raw_noop.s() for _ in range(size)).apply_async()
        counters.wait_broker_empty()
        seconds = time.perf_counter() - begun
        expect("tasks run", counters.tasks_since(before), {raw_noop.name: size})
        return seconds


@dataclass(frozen=True, slots=True)
class Chain:
    """Steps that do nothing, one after another, in one Celery message, beside a chain of tasks with results."""

    steps: int
    raw_steps: int
    name: ClassVar[str] = "chain"
    comparisons: ClassVar[Sequence[Comparison]] = (
        Comparison("until the result", "steps/s", "to_result", "to_result"),
        Comparison("until all rows are in PostgreSQL", "steps/s", "to_rows", "to_result", at_least=10.0),
    )

    @property
    def title(self) -> str:
        return f"{self.steps:,} no-op actions in a row / chain of {self.raw_steps:,}"

    def warm_up(self, counters: Counters) -> None:
        actions: dict[str, Any] = {"s0": NOOP}
        for number in range(1, self.steps):
            actions[f"s{number}"] = {**NOOP, "needs": [f"s{number - 1}"]}
        publish(counters, {"name": "bench-chain", "actions": actions})
        run_all("bench-chain", {}, WARM_RUNS)
        self._run_chain(20)
        counters.wait_recorded()

    def ours(self, counters: Counters) -> Sample:
        before = counters.tasks_run()
        begun = time.perf_counter()
        results = run_all("bench-chain", {}, 1)
        to_result = time.perf_counter() - begun
        counters.wait_recorded()
        to_rows = time.perf_counter() - begun
        expect("steps that succeeded", results[0]["counts"], {"succeeded": self.steps})
        rows = counted_rows(counters, results, self.steps)
        expect("Celery messages", counters.tasks_since(before), {run_workflow.name: 1})
        return Sample(
            {"to_result": self.steps / to_result, "to_rows": self.steps / to_rows},
            {"steps": self.steps, "rows": rows, "messages": 1},
        )

    def raw(self, counters: Counters) -> Sample:
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
    comparisons: ClassVar[Sequence[Comparison]] = (
        Comparison("p50", "ms", "p50", "p50", by="difference"),
        Comparison("p99", "ms", "p99", "p99", by="difference"),
    )

    @property
    def title(self) -> str:
        return f"workflow of one action / one task, delay() to get(), {self.runs} times"

    def warm_up(self, counters: Counters) -> None:
        publish(counters, {"name": "bench-one", "actions": {"only": NOOP}})
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

    def raw(self, counters: Counters) -> Sample:
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


@dataclass(frozen=True, slots=True)
class SmallRuns:
    """Many small workflows at once, one action, then three, then one, beside as many chords of three and one."""

    runs: int
    name: ClassVar[str] = "small-runs"
    comparisons: ClassVar[Sequence[Comparison]] = (
        Comparison("until all results", "runs/s", "to_results", "to_results"),
        Comparison("until all rows are in PostgreSQL", "runs/s", "to_rows", "to_results"),
    )

    @property
    def title(self) -> str:
        return f"{self.runs} workflows of 1 → 3 → 1 at once / {self.runs} chords of 3 → 1"

    def warm_up(self, counters: Counters) -> None:
        actions: dict[str, Any] = {"first": NOOP}
        actions |= {name: {**NOOP, "needs": ["first"]} for name in ("left", "middle", "right")}
        actions["last"] = {**NOOP, "needs": ["left", "middle", "right"]}
        publish(counters, {"name": "bench-small", "actions": actions})
        run_all("bench-small", {}, WARM_RUNS)
        self._run_chords(WARM_RUNS)
        counters.wait_recorded()

    def ours(self, counters: Counters) -> Sample:
        before = counters.tasks_run()
        begun = time.perf_counter()
        results = run_all("bench-small", {}, self.runs)
        to_results = time.perf_counter() - begun
        counters.wait_recorded()
        to_rows = time.perf_counter() - begun
        rows = counted_rows(counters, results, 5 * self.runs)
        return Sample(
            {"to_results": self.runs / to_results, "to_rows": self.runs / to_rows},
            {"runs": self.runs, "rows": rows, "messages": sum(counters.tasks_since(before).values())},
        )

    def raw(self, counters: Counters) -> Sample:
        before = counters.tasks_run()
        seconds = self._run_chords(self.runs)
        wanted = {raw_noop.name: 3 * self.runs, raw_result.name: self.runs}
        expect("tasks run", counters.tasks_since(before), wanted)
        return Sample({"to_results": self.runs / seconds}, {"chords": self.runs, "messages": 4 * self.runs})

    def _run_chords(self, count: int) -> float:
        begun = time.perf_counter()
        sent = [chord([raw_noop.s() for _ in range(3)], raw_result.s()).apply_async() for _ in range(count)]
        for each in sent:
            result_of(each)
        return time.perf_counter() - begun


def full_size() -> list[Workload]:
    """What `make bench` measures and the goals are stated for."""
    return [FanOut(10_000), Chain(1000, 200), OneAction(200), SmallRuns(200)]


def quick_size() -> list[Workload]:
    """The same, small: to see that the benchmark works."""
    return [FanOut(200), Chain(50, 20), OneAction(10), SmallRuns(8)]


def publish(counters: Counters, definition: Mapping[str, Any]) -> None:
    """The workflow can be run by name."""
    load_actions(())
    checked = load_definition(dict(definition))
    version_id = compile_plan(checked).version_id
    register_version(counters.database, checked.name, version_id, checked.to_dict(), publish=True)


def run_all(workflow: str, payload: Mapping[str, Any], count: int) -> list[dict[str, Any]]:
    """Start so many runs at once and return their results; all have succeeded."""
    sent = [run_workflow.delay(workflow, payload) for _ in range(count)]
    results = [result_of(each) for each in sent]
    expect("runs that succeeded", sum(result["status"] == "succeeded" for result in results), count)
    return results


def counted_rows(counters: Counters, results: Sequence[Mapping[str, Any]], wanted: int) -> int:
    """The rows of succeeded tasks that these runs have in PostgreSQL: as many as wanted."""
    rows = counters.rows([str(result["flow_session_id"]) for result in results])
    expect("rows in PostgreSQL", rows, wanted)
    return rows


def result_of(sent: Any) -> Any:
    """The result of a task that was sent.

    Raises: WrongCount: it does not come.
    """
    try:
        return sent.get(timeout=WAIT_SECONDS)
    except NoResult as error:
        raise WrongCount(f"no result after {WAIT_SECONDS:g} s: {error}") from error
