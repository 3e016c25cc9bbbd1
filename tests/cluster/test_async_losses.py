"""Async branches in workers of their own: how many one runner takes, and what happens when a process goes."""

from __future__ import annotations

import signal
from collections import Counter
from pathlib import Path

import psutil

from tests.cluster.test_async_branches import ACTIONS, ran, run, wait
from tests.support.clients import running_client
from tests.support.fleet import Fleet
from tests.support.journal import read_journal
from tests.support.records import Records, most_at_once
from tests.support.waiting import wait_until


def test_one_runner_takes_no_more_than_its_setting(fleet: Fleet, journal: Path) -> None:
    fleet.start(1, concurrency=1, ACTION_MODULES=ACTIONS, RUNNER_ASYNC_BRANCHES="7")
    with running_client(fleet) as client:
        result = run(client, {"each": {**wait(journal, 0.05), "for_each": {"range": 30}}}, max_concurrent_branches=100)
    rows = Records(fleet).tasks(result["flow_session_id"], 31)
    assert most_at_once([row for row in rows.values() if row.item >= 0]) == 7


def test_what_ends_beside_a_branch_that_keeps_the_process_busy_is_settled_meanwhile(
    fleet: Fleet, journal: Path, tmp_path: Path
) -> None:
    fleet.start(1, concurrency=1, ACTION_MODULES=ACTIONS)
    go = tmp_path / "go"
    actions = {
        "waits": {**wait(journal, 0.5), "for_each": {"range": 5}},
        "first": wait(journal, 0.1),
        "other": {**wait(journal), "needs": ["first"]},
        "busy": {
            "uses": "test.wait_for_file", "with": {"journal": str(journal), "path": str(go)}, "needs": ["first"],
        },
    }  # fmt: skip
    with running_client(fleet) as client:
        workflow = {"name": "busy", "actions": actions}
        session = client.run("result = send(workflow).delay().id", workflow=workflow)
        records = Records(fleet)
        ended = """
            SELECT count(*) FROM tasks
            WHERE flow_session_id = %s AND status = 'succeeded' AND action = 'waits' AND item >= 0
        """
        wait_until(lambda: records.rows(ended, session)[0][0] == 5, "all that waited has ended and is recorded")
        assert "busy" in ran(journal)
        assert ("end", "busy") not in {(kind, task) for kind, task, *_ in read_journal(journal)}
        go.touch()
        result = client.run("result = AsyncResult(session).get(timeout=20)", session=session)
    assert result["counts"] == {"succeeded": 8}


def test_when_their_process_dies_they_run_again(fleet: Fleet, journal: Path) -> None:
    fleet.start(1, concurrency=2, ACTION_MODULES=ACTIONS)
    with running_client(fleet) as client:
        each = {**wait(journal, 0.5), "for_each": {"range": 40}}
        workflow = {"name": "dies", "limits": {"max_concurrent_branches": 20}, "actions": {"each": each}}
        session = client.run("result = send(workflow).delay().id", workflow=workflow)
        wait_until(lambda: ran(journal).total() >= 10, "branches wait")
        victim = Counter(pid for *_, pid in read_journal(journal)).most_common(1)[0][0]
        psutil.Process(victim).kill()
        result = client.run("result = AsyncResult(session).get(timeout=30)", session=session)
    assert result["counts"] == {"succeeded": 40}
    begun = Counter(task for kind, task, *_, pid in read_journal(journal) if kind == "start")
    lost = {task for kind, task, *_, pid in read_journal(journal) if kind == "start" and pid == victim}
    assert max(begun.values()) == 2
    assert {task for task, times in begun.items() if times == 2} <= lost


def test_a_worker_that_is_asked_to_stop_lets_them_end(fleet: Fleet, journal: Path) -> None:
    first, _second = fleet.start(2, concurrency=1, ACTION_MODULES=ACTIONS)
    with running_client(fleet) as client:
        each = {**wait(journal, 0.3), "for_each": {"range": 60}}
        workflow = {"name": "stops", "limits": {"max_concurrent_branches": 12}, "actions": {"each": each}}
        session = client.run("result = send(workflow).delay().id", workflow=workflow)
        wait_until(lambda: ran(journal).total() >= 12, "branches wait in both workers")
        first.send(signal.SIGTERM)
        result = client.run("result = AsyncResult(session).get(timeout=30)", session=session)
        assert first.process is not None
        assert first.process.wait(30) == 0
    assert result["counts"] == {"succeeded": 60}
    assert set(ran(journal).values()) == {1}
