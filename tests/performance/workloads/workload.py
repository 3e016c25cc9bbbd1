"""What a workload is, and what all of them do: publish, run, time, count.

Every sample checks that the work was done, all of it and once; its counts go into the report.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from celery.exceptions import TimeoutError as NoResult

from orchestration.definition import load_definition
from orchestration.plan import compile_plan
from orchestration.registry import load_actions
from orchestration.store.workflows import register_version
from tasks import run_workflow
from tests.performance.comparison import Comparison, Sample
from tests.performance.counting import WAIT_SECONDS, Counters, WrongCount, expect
from tests.performance.stack import ACTIONS, WorkerKind

NOOP: Final[Mapping[str, Any]] = {"uses": "core.noop"}
#: Runs at once in a warm-up: every process of the worker has then compiled the version and opened its connections.
WARM_RUNS: Final = 8
#: The dispatcher that goals are stated for, and what stands beside most workloads.
COUNTED: Final = "counted"
CHORD: Final = "chord"
PLAIN: Final = "plain Celery"


class Workload(Protocol):
    """One thing to measure."""

    @property
    def name(self) -> str:
        """Short and stable: a key of the JSON report."""

    @property
    def title(self) -> str:
        """What both sides do, with its sizes."""

    @property
    def worker(self) -> WorkerKind:
        """What it runs on."""

    @property
    def repeats(self) -> int:
        """Pairs to measure, unless the command line says otherwise."""

    @property
    def beside(self) -> str:
        """The other side, empty where there is none."""

    @property
    def comparisons(self) -> Sequence[Comparison]: ...

    def warm_up(self, counters: Counters) -> None:
        """Publish what is run, and run a little of both sides."""

    def ours(self, counters: Counters) -> Sample:
        """Do it with the processor.

        Raises: WrongCount: not all of it was done.
        """

    def other(self, counters: Counters) -> Sample | None:
        """Do the same as what stands beside does it, on the same worker.

        Raises: WrongCount: not all of it was done.
        """


@dataclass(frozen=True, slots=True)
class Timed:
    """Runs that have all succeeded, and how long they took from the first call that sent something."""

    results: Sequence[Mapping[str, Any]]
    seconds_to_results: float
    seconds_to_rows: float
    rows: int
    #: Celery messages that the worker took for them, by task.
    messages: Mapping[str, int]

    @property
    def all_messages(self) -> int:
        return sum(self.messages.values())

    def rates(self, count: int) -> dict[str, float]:
        """So many of something for each second, until the results and until all rows are in PostgreSQL."""
        return {"to_results": count / self.seconds_to_results, "to_rows": count / self.seconds_to_rows}


def time_runs(counters: Counters, workflow: str, payload: Mapping[str, Any], runs: int, rows: int) -> Timed:
    """Send so many runs at once and wait for all results and for all rows.

    Args: rows: of succeeded tasks that they have in PostgreSQL afterwards, all together.
    Raises: WrongCount
    """
    before = counters.tasks_run()
    begun_at, begun = time.time(), time.perf_counter()
    results = run_all(workflow, payload, runs)
    to_results = time.perf_counter() - begun
    counters.wait_recorded()
    found = counted_rows(counters, results, rows)
    # by the commits themselves: updates stay in the stream until their spans are sent, and to look for rows takes time
    to_rows = counters.committed_at([str(result["flow_session_id"]) for result in results]) - begun_at
    return Timed(results, to_results, to_rows, found, counters.tasks_since(before))


def publish(counters: Counters, name: str, actions: Mapping[str, Any], **more: Any) -> None:
    """The workflow can be run by name."""
    load_actions((ACTIONS,))
    checked = load_definition({"name": name, "actions": actions, **more})
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


def with_dispatcher(name: str, dispatch: str) -> str:
    """The name of a workload or workflow that uses this dispatcher."""
    return name if dispatch == COUNTED else f"{name}-{dispatch}"
