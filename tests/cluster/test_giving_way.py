"""Runs that give way to newer ones of their workflow where a limit of whole runs is reached, with real workers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestration.vocabulary import Dispatch
from tests.support.clients import Client, running_client
from tests.support.commands import parallelizer
from tests.support.fleet import Fleet
from tests.support.journal import read_journal
from tests.support.records import Records
from tests.support.waiting import wait_until
from tests.support.workflows import Definition


@pytest.fixture(scope="module")
def client(module_fleet: Fleet) -> Iterator[Client]:
    modules = "tests.support.journal,tests.support.cancelled_actions"
    module_fleet.start(2, concurrency=2, ACTION_MODULES=modules)
    with running_client(module_fleet) as running:
        yield running


@pytest.fixture(params=Dispatch, ids=str)
def dispatch(request: pytest.FixtureRequest) -> Dispatch:
    dispatch: Dispatch = request.param
    return dispatch


def one_at_once(name: str, journal: Path, dispatch: Dispatch, **limits: Any) -> Definition:
    """One run at once, of two branches, which are at work until they are cancelled; or nothing with payload.ends."""
    call = {
        "uses": "test.note_cancelled_at_work", "with": {"journal": str(journal)}, "if": "!payload.ends",
    }  # fmt: skip
    limits = {"max_concurrent_sessions": 1, **limits}
    return {"name": name, "dispatch": dispatch, "limits": limits, "actions": {"one": call, "two": call}}


def begin(client: Client, workflow: Definition, **payload: object) -> str:
    session: str = client.run(
        "result = send(workflow, payload).delay().id", workflow=workflow, payload={"ends": False, **payload}
    )
    return session


def result_of(client: Client, session: str) -> dict[str, Any]:
    result: dict[str, Any] = client.run("result = AsyncResult(session).get(timeout=60)", session=session)
    return result


def status_of(fleet: Fleet, session: str) -> str:
    rows = Records(fleet).rows("SELECT status FROM flow_sessions WHERE flow_session_id = %s", session)
    return str(rows[0][0]) if rows else ""


def reason_of(fleet: Fleet, session: str) -> str:
    rows = Records(fleet).rows("SELECT error->>'message' FROM flow_sessions WHERE flow_session_id = %s", session)
    return str(rows[0][0])


def noted(journal: Path, kind: str) -> int:
    return sum(found == kind for found, *_ in read_journal(journal))


def test_a_newer_run_takes_the_place_of_the_one_that_runs(
    client: Client, module_fleet: Fleet, journal: Path, dispatch: Dispatch
) -> None:
    workflow = one_at_once(f"replaced-{dispatch}", journal, dispatch, when_full="cancel_running")
    first = begin(client, workflow)
    wait_until(lambda: noted(journal, "start") == 2, "the first is at work")
    second = begin(client, workflow)
    assert result_of(client, first)["status"] == "cancelled"
    assert f"gave way to the newer run {second}" in reason_of(module_fleet, first)
    assert f"sessions:workflow:replaced-{dispatch}" in reason_of(module_fleet, first)
    wait_until(lambda: noted(journal, "start") == 4, "the second is at work")
    assert noted(journal, "end") == 2, "the first has ended before the second began"
    third = begin(client, workflow, ends=True)
    assert [result_of(client, session)["status"] for session in (second, third)] == ["cancelled", "succeeded"]
    shown = parallelizer("status", first, folder=None, **module_fleet.environment)
    assert "gave way to the newer run" in shown.stdout
    Records(module_fleet).wait_nothing_live()


def test_of_those_that_wait_only_the_newest_does(
    client: Client, module_fleet: Fleet, journal: Path, dispatch: Dispatch
) -> None:
    workflow = one_at_once(f"newest-{dispatch}", journal, dispatch, when_full="keep_newest")
    first = begin(client, workflow)
    wait_until(lambda: noted(journal, "start") == 2, "the first is at work")
    second = begin(client, workflow)
    wait_until(lambda: status_of(module_fleet, second) == "queued", "the second waits")
    shown = json.loads(parallelizer("status", second, "--json", folder=None, **module_fleet.environment).stdout)
    (queued,) = shown["waits_for"]
    assert (
        f"at the limit sessions:workflow:newest-{dispatch}=1, at position 1 of 1: 1 of 1 runs are under way" in queued
    )
    third = begin(client, workflow, ends=True)
    result = result_of(client, second)
    assert (result["status"], result["counts"]) == ("cancelled", {"cancelled": 2})
    assert f"the newer run {third} is queued in its place" in reason_of(module_fleet, second)
    assert status_of(module_fleet, first) == "running"
    client.run("from tasks import cancel_session; cancel_session(session); result = None", session=first)
    assert [result_of(client, session)["status"] for session in (first, third)] == ["cancelled", "succeeded"]
    assert noted(journal, "start") == 2, "the second never ran"
    Records(module_fleet).wait_nothing_live()


def test_runs_of_other_workflows_with_the_key_do_not_give_way(
    client: Client, module_fleet: Fleet, journal: Path, dispatch: Dispatch
) -> None:
    by_key: dict[str, Any] = {"concurrency_key": f"shared-{dispatch}", "max_concurrent_sessions_per_key": 1}
    other = one_at_once(f"other-{dispatch}", journal, dispatch, **by_key)
    workflow = one_at_once(f"own-{dispatch}", journal, dispatch, when_full="cancel_running", **by_key)
    first = begin(client, other)
    wait_until(lambda: noted(journal, "start") == 2, "the other is at work")
    second = begin(client, workflow)
    wait_until(lambda: status_of(module_fleet, second) == "queued", "it waits for the other")
    third = begin(client, workflow, ends=True)
    assert result_of(client, second)["status"] == "cancelled", "the place that it waited for is the newer one's"
    assert status_of(module_fleet, first) == "running"
    client.run("from tasks import cancel_session; cancel_session(session); result = None", session=first)
    assert [result_of(client, session)["status"] for session in (first, third)] == ["cancelled", "succeeded"]
    Records(module_fleet).wait_nothing_live()
