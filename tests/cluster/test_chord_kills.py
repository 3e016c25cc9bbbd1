"""Processes are killed while runs are Celery chords: all end, one body each; only what was in a crash runs again."""

from __future__ import annotations

import os
import random
import signal
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from parallelizer.services.supervision import LoggedProgram
from tests.support.clients import running_client
from tests.support.fleet import Fleet
from tests.support.journal import read_journal
from tests.support.records import Records
from tests.support.waiting import wait_until
from tests.support.workflows import Definition, record

RUNS, ITEMS, KILLS = 6, 60, 20
#: Of `RUNS × ITEMS`; the kills are over before half of it has begun, and no run has ended.
STARTS_BETWEEN_KILLS = 8


def pool_processes(worker: LoggedProgram) -> list[int]:
    """The processes of a worker that run branches."""
    assert worker.process is not None
    found = []
    for child in psutil.Process(worker.process.pid).children():
        with suppress(psutil.Error):  # it is dead
            if "tasks.upkeep" not in child.cmdline():
                found.append(child.pid)
    return found


def kill_one_of(workers: list[LoggedProgram]) -> None:
    """`kill -9` of a process that runs branches, and return when it runs no more."""
    pid = random.choice([pid for worker in workers for pid in pool_processes(worker)])
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: pid not in [pid for worker in workers for pid in pool_processes(worker)], f"{pid} is dead")


def wide(journal: Path) -> Definition:
    """A fork into many items of 20 ms, a linear branch of some steps beside them, and their join."""
    each = {**record(journal, seconds=0.02), "needs": ["start"], "for_each": {"range": ITEMS}}
    steps: Definition = {f"s{n}": {**record(journal), "needs": [f"s{n - 1}" if n else "start"]} for n in range(5)}
    actions = {
        "start": {"uses": "core.noop"},
        "each": each,
        **steps,
        "join": {**record(journal), "needs": ["each", "s4"]},
    }
    return {"name": "wide", "dispatch": "chord", "queue": "killed", "actions": actions}


def started(journals: list[Path]) -> int:
    return sum(kind == "start" for journal in journals for kind, *_ in read_journal(journal))


@pytest.mark.parametrize("slice_seconds", ["1", "0"])
def test_runs_whose_processes_are_killed_end_with_one_body_each(
    fleet: Fleet, tmp_path: Path, slice_seconds: str
) -> None:
    workers = fleet.start(
        2, concurrency=2, queues=("killed",), ACTION_MODULES="tests.support.journal", MAX_BRANCH_CRASHES="100",
        RUNNER_SLICE_SECONDS=slice_seconds,
    )  # fmt: skip
    journals = [tmp_path / f"journal{number}" for number in range(RUNS)]
    bodies = tmp_path / "bodies"
    callback = {"name": "body", "queue": "killed", "actions": {"body": record(bodies)}}
    with running_client(fleet) as client:
        code = """
            options = {"queue": "killed"}
            runs = [send(wide).apply_async(link=send(callback).set(**options), **options) for wide in workflows]
        """
        client.run(code, workflows=[wide(journal) for journal in journals], callback=callback)
        for number in range(1, KILLS + 1):
            wait_until(lambda: started(journals) >= number * STARTS_BETWEEN_KILLS, "the runs go on")  # noqa: B023
            kill_one_of(workers)
        results: list[dict[str, Any]] = client.run("result = [run.get(timeout=200) for run in runs]")
    records = Records(fleet)
    wait_until(lambda: len(read_journal(bodies)) >= 2 * RUNS, "what is linked to the runs has run")
    again = 0
    for result, journal in zip(results, journals, strict=True):
        assert (result["status"], result["counts"]) == ("succeeded", {"succeeded": ITEMS + 7})
        executions = Counter(task for kind, task, *_ in read_journal(journal) if kind == "start")
        assert set(executions) == {f"each:{n}" for n in range(ITEMS)} | {f"s{n}" for n in range(5)} | {"join"}
        again += sum(executions.values()) - len(executions)
        rows = records.tasks(result["flow_session_id"], ITEMS + 8)
        assert {row.status for row in rows.values()} == {"succeeded"}
    assert again <= KILLS, "an action runs again at most once for each crash it was in"
    records.wait_nothing_live()
    assert Counter(kind for kind, *_ in read_journal(bodies)) == {"start": RUNS, "end": RUNS}
