"""What waits too long in a queue is ended, and says what it waited for, with real workers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestration.vocabulary import Dispatch
from tests.support.clients import Client, running_client
from tests.support.fleet import Fleet
from tests.support.journal import read_journal
from tests.support.records import Records
from tests.support.waiting import wait_until
from tests.support.workflows import Definition, record

SECONDS = 1.5
NOOP = {"uses": "core.noop"}


@pytest.fixture(scope="module")
def client(module_fleet: Fleet) -> Iterator[Client]:
    module_fleet.start(2, concurrency=2, ACTION_MODULES="tests.support.journal", INLINE_FORK_MS="0")
    with running_client(module_fleet) as running:
        yield running


@pytest.fixture(params=Dispatch, ids=str)
def dispatch(request: pytest.FixtureRequest) -> Dispatch:
    dispatch: Dispatch = request.param
    return dispatch


def hold(journal: Path, **more: Any) -> Definition:
    """An action that is at work until its file is there (`release`)."""
    inputs = {"journal": str(journal), "folder": str(journal.parent), "seconds": 120}
    return {"uses": "test.hold", "with": inputs, **more}


def release(journal: Path, task: str) -> None:
    (journal.parent / f"{task}.1").touch()


def begin(client: Client, name: str, actions: Definition, dispatch: Dispatch, **limits: Any) -> str:
    limits = {"max_wait_seconds": SECONDS, **limits}
    workflow = {"name": name, "dispatch": dispatch, "limits": limits, "actions": actions}
    session: str = client.run("result = send(workflow).delay().id", workflow=workflow)
    return session


def result_of(client: Client, session: str) -> dict[str, Any]:
    result: dict[str, Any] = client.run("result = AsyncResult(session).get(timeout=60)", session=session)
    return result


def started(journal: Path) -> list[str]:
    return [task for kind, task, *_ in read_journal(journal) if kind == "start"]


def error_of(fleet: Fleet, session: str, action: str) -> str:
    """What the record says of a task that has waited too long, as soon as it does."""
    statement = (
        "SELECT error->>'message' FROM tasks WHERE flow_session_id = %s AND action = %s AND item = -1"
        " AND status = 'timed_out'"
    )
    wait_until(lambda: bool(Records(fleet).rows(statement, session, action)), f"{action} has waited too long")
    return str(Records(fleet).rows(statement, session, action)[0][0])


def test_a_run_that_is_queued_too_long_is_timed_out(
    client: Client, module_fleet: Fleet, journal: Path, dispatch: Dispatch
) -> None:
    name = f"queued-{dispatch}"
    first = begin(client, name, {"only": hold(journal)}, dispatch, max_concurrent_sessions=1)
    wait_until(lambda: started(journal) == ["only"], "the first is at work")
    second = begin(client, name, {"only": hold(journal)}, dispatch, max_concurrent_sessions=1)
    result = result_of(client, second)
    assert (result["status"], result["counts"]) == ("timed_out", {"cancelled": 1})
    statement = "SELECT error->>'type', error->>'message' FROM flow_sessions WHERE flow_session_id = %s"
    message = f"it was queued longer than 1.5 s (max_wait_seconds) at the limit sessions:workflow:{name}"
    assert Records(module_fleet).rows(statement, second) == [("WaitedTooLong", message)]
    release(journal, "only")
    assert result_of(client, first)["status"] == "succeeded"
    Records(module_fleet).wait_nothing_live()


def test_a_branch_that_waits_too_long_is_timed_out_and_others_go_on(
    client: Client, module_fleet: Fleet, journal: Path, dispatch: Dispatch
) -> None:
    """Which of the two has the only permit nobody knows; what follows the other one is decided at once."""
    actions: Definition = {}
    for side in ("left", "right"):
        actions[side] = hold(journal)
        actions[f"{side}-next"] = {**record(journal), "needs": [side]}
    actions["join"] = {**record(journal), "needs": ["left-next", "right-next"], "trigger_rule": "all_done"}
    session = begin(client, f"branches-{dispatch}", actions, dispatch, max_concurrent_branches=1)
    wait_until(lambda: bool(started(journal)), "one is at work")
    (runs,) = started(journal)
    waits = {"left": "right", "right": "left"}[runs]
    expected = f"it waited longer than 1.5 s (max_wait_seconds) for the limit session:{session}=1"
    assert error_of(module_fleet, session, waits) == expected
    release(journal, runs)
    result = result_of(client, session)
    assert (result["status"], result["counts"]) == ("succeeded", {"succeeded": 3, "timed_out": 1, "upstream_failed": 1})
    assert started(journal) == [runs, f"{runs}-next", "join"]
    Records(module_fleet).wait_nothing_live()


def test_a_later_step_that_runs_whatever_happened_waits_for_its_own_turn(
    client: Client, module_fleet: Fleet, journal: Path, dispatch: Dispatch
) -> None:
    name = f"steps-{dispatch}"
    one = {"max_concurrent_branches_of_workflow": 1}
    first = begin(client, name, {"only": hold(journal)}, dispatch, **one)
    wait_until(lambda: started(journal) == ["only"], "the first is at work")
    cleanup = {**record(journal), "needs": ["late"], "trigger_rule": "all_done"}
    each = {"uses": "core.echo", "for_each": {"range": 3}, "with": {"value": "${{ item }}"}}
    second = begin(client, name, {"late": record(journal), "cleanup": cleanup, "each": each}, dispatch, **one)
    for action in ("late", "each"):
        assert error_of(module_fleet, second, action).endswith(f"for the limit workflow:{name}=1")
    release(journal, "only")
    assert result_of(client, first)["status"] == "succeeded"
    result = result_of(client, second)
    assert (result["status"], result["counts"]) == ("failed", {"succeeded": 1, "timed_out": 2})
    assert started(journal) == ["only", "cleanup"]
    Records(module_fleet).wait_nothing_live()


def test_a_run_whose_branches_all_wait_for_a_worker_ends(
    client: Client, module_fleet: Fleet, journal: Path, dispatch: Dispatch
) -> None:
    actions = {"gpu": {**record(journal), "queue": "nobody"}, "next": {**record(journal), "needs": ["gpu"]}}
    session = begin(client, f"unserved-{dispatch}", actions, dispatch)
    result = result_of(client, session)
    assert result["status"] == "failed"
    assert error_of(module_fleet, session, "gpu").endswith("for a worker of queue nobody")
    assert started(journal) == []
    Records(module_fleet).wait_nothing_live()
