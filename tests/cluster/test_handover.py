"""A worker is told to stop just when a pool process gets a task: the task runs once, and the worker ends at once."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tests.support.clients import running_client
from tests.support.crashes import pool_processes
from tests.support.fleet import Fleet
from tests.support.journal import read_journal
from tests.support.records import Records
from tests.support.waiting import wait_until
from tests.support.workflows import record


def test_a_task_that_a_process_was_given_before_the_stop_runs_once(fleet: Fleet, journal: Path) -> None:
    (worker,) = fleet.start(1, concurrency=1, ACTION_MODULES="tests.support.journal")
    assert worker.process is not None
    (process,) = pool_processes(worker)
    with running_client(fleet) as client:
        os.kill(process, signal.SIGSTOP)  # it is slow to begin, as on a busy machine
        workflow = {"name": "given", "actions": {"only": record(journal)}}
        session = client.run("result = send(workflow).delay().id", workflow=workflow)
        wait_until(lambda: f"run_workflow[{session}] received" in worker.log.read_text(), "the worker has the message")
        worker.send(signal.SIGTERM)
        wait_until(lambda: "have been given to processes" in worker.log.read_text(), "the worker stops")
        os.kill(process, signal.SIGCONT)
        assert worker.process.wait(20) == 0
        Records(fleet).wait_idle()
        fleet.start(1, concurrency=1, ACTION_MODULES="tests.support.journal")
        result = client.run("result = AsyncResult(session).get(timeout=20)", session=session)
    assert result["status"] == "succeeded"
    assert [kind for kind, *_ in read_journal(journal)] == ["start", "end"]
