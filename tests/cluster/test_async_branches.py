"""Async branches wait side by side in few processes: each with its permit, its time limit and its own end."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.clients import Client, running_client
from tests.support.fleet import Fleet
from tests.support.journal import read_journal
from tests.support.records import Records, most_at_once

ACTIONS = "tests.support.journal"
POOLS = [("prefork", 2), ("threads", 2)]


@pytest.fixture(scope="module", params=POOLS, ids=[pool for pool, _ in POOLS])
def workers(module_fleet: Fleet, request: pytest.FixtureRequest) -> Iterator[Fleet]:
    """One worker with two slots."""
    pool, concurrency = request.param
    (worker,) = module_fleet.start(1, concurrency=concurrency, pool=pool, ACTION_MODULES=ACTIONS)
    yield module_fleet
    worker.send(signal.SIGTERM)
    assert worker.process is not None
    worker.process.wait(30)
    module_fleet.workers.remove(worker)


@pytest.fixture(scope="module")
def client(workers: Fleet) -> Iterator[Client]:
    with running_client(workers) as running:
        yield running


def wait(journal: Path, seconds: float = 0.0, **inputs: object) -> dict[str, Any]:
    return {"uses": "test.record_async", "with": {"journal": str(journal), "seconds": seconds, **inputs}}


def run(client: Client, actions: dict[str, Any], **limits: float) -> dict[str, Any]:
    workflow = {"name": "async", "limits": limits, "actions": actions}
    result: dict[str, Any] = client.run("result = send(workflow).delay().get(timeout=40)", workflow=workflow)
    return result


def ran(journal: Path) -> Counter[str]:
    return Counter(task for kind, task, *_ in read_journal(journal) if kind == "start")


def test_many_wait_in_two_processes_under_the_limit(client: Client, workers: Fleet, journal: Path) -> None:
    each = {**wait(journal, 0.1), "for_each": {"range": 60}}
    result = run(client, {"each": each}, max_concurrent_branches=20)
    assert result["counts"] == {"succeeded": 60}
    rows = Records(workers).tasks(result["flow_session_id"], 61)
    assert most_at_once([row for row in rows.values() if row.item >= 0]) == 20
    assert len({pid for *_, pid in read_journal(journal)}) <= 2
    assert set(ran(journal).values()) == {1}


def test_async_and_other_branches_and_branches_of_both_run_together(
    client: Client, workers: Fleet, journal: Path
) -> None:
    other = {"uses": "test.record", "with": {"journal": str(journal), "seconds": 0.01}}
    actions = {
        "waits": {**wait(journal, 0.02), "for_each": {"range": 20}},
        "works": {**other, "for_each": {"range": 20}},
        "both1": other,
        "both2": {**wait(journal, 0.01), "needs": ["both1"]},
        "both3": {**other, "needs": ["both2"]},
        "wait1": wait(journal, 0.01),
        "wait2": {**wait(journal, 0.01), "needs": ["wait1"]},
        "wait3": {**wait(journal, 0.01, outcome="fail"), "needs": ["wait2"]},
        "end": {"uses": "core.noop", "needs": ["waits", "works", "both3", "wait3"], "trigger_rule": "all_done"},
    }
    result = run(client, actions)
    assert (result["status"], result["counts"]) == ("succeeded", {"succeeded": 46, "failed": 1})
    assert set(ran(journal).values()) == {1}
    assert ran(journal).total() == 46
    rows = Records(workers).tasks(result["flow_session_id"], 49)
    for one, other_one in (("both1", "both2"), ("both2", "both3"), ("wait1", "wait2"), ("wait2", "wait3")):
        ended, began = rows[one, -1].finished_at, rows[other_one, -1].started_at
        assert ended is not None
        assert began is not None
        assert ended <= began


def test_one_that_is_over_its_time_is_ended_and_its_neighbours_go_on(
    client: Client, workers: Fleet, journal: Path
) -> None:
    actions = {
        "slow": wait(journal, 30),
        "own": {**wait(journal, 30), "timeout_seconds": 0.2},
        "quick": {**wait(journal, 0.05), "for_each": {"range": 20}},
        "after": {
            "uses": "core.echo", "needs": ["slow", "own", "quick"], "trigger_rule": "all_done",
            "with": {"value": ["${{ tasks.slow.error.message }}", "${{ tasks.own.error.message }}"]},
        },
    }  # fmt: skip
    result = run(client, actions, branch_timeout_seconds=0.6)
    assert result["counts"] == {"succeeded": 21, "timed_out": 2}
    assert result["output"]["after"] == [
        "it ran longer than 0.6 s (the branch timeout)", "it ran longer than 0.2 s (timeout_seconds)",
    ]  # fmt: skip
    assert result["duration_seconds"] < 5


def test_one_that_fails_is_tried_again_and_holds_no_permit_meanwhile(
    client: Client, workers: Fleet, journal: Path
) -> None:
    retry = {"max_attempts": 2, "delay_seconds": 0.2, "jitter": 0}
    actions = {"bad": {**wait(journal, outcome="fail"), "retry": retry, "for_each": {"range": 5}}}
    result = run(client, actions)
    assert result["counts"] == {"failed": 5}
    assert set(ran(journal).values()) == {2}
