"""The deadline of a run: what runs is ended as timed out, what has not begun never begins, wherever the run stands."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestration.state.live import LiveState
from orchestration.vocabulary import Dispatch
from tests.support.clients import Client, running_client
from tests.support.fleet import Fleet
from tests.support.journal import read_journal
from tests.support.records import Records
from tests.support.waiting import wait_until
from tests.support.workflows import Definition, record

SECONDS = 3.0
NOOP = {"uses": "core.noop"}
#: An action would run so long if nothing ended it; longer than any test.
FOREVER = {"seconds": 100.0}


def start_worker(fleet: Fleet, pool: str, slots: int) -> None:
    """A worker with a queue of its own, named after its pool."""
    modules = "tests.support.journal,tests.support.overrunning"
    fleet.start(
        1, concurrency=slots, pool=pool, queues=(pool,), ACTION_MODULES=modules, BRANCH_GRACE_SECONDS="1",
        INLINE_FORK_MS="0",
    )  # fmt: skip


@pytest.fixture(scope="module")
def client(module_fleet: Fleet) -> Iterator[Client]:
    """Two pools, each with a queue of its own name."""
    for pool in ("prefork", "threads"):
        start_worker(module_fleet, pool, 4)
    with running_client(module_fleet) as running:
        yield running


@pytest.fixture(params=["prefork", "threads"])
def pool(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module", params=["solo", "gevent"])
def other(request: pytest.FixtureRequest, module_fleet: Fleet) -> str:
    """A pool that has a worker from now on."""
    start_worker(module_fleet, str(request.param), {"solo": 1, "gevent": 10}[request.param])
    return str(request.param)


@pytest.fixture(params=Dispatch, ids=str)
def dispatch(request: pytest.FixtureRequest) -> Dispatch:
    dispatch: Dispatch = request.param
    return dispatch


def begin(client: Client, queue: str, actions: Definition, *, seconds: float = SECONDS, **more: Any) -> str:
    """Start a run with a deadline; returns its flow session, which is `session` if that is given."""
    task_id = more.pop("session", None)
    limits = {"deadline_seconds": seconds, **more.pop("limits", {})}
    workflow = {"name": more.pop("name", "due"), "queue": queue, "limits": limits, "actions": actions, **more}
    code = "result = send(workflow).apply_async(queue=queue, task_id=task_id).id"
    session: str = client.run(code, workflow=workflow, queue=queue, task_id=task_id)
    return session


def result_of(client: Client, session: str) -> dict[str, Any]:
    result: dict[str, Any] = client.run("result = AsyncResult(session).get(timeout=60)", session=session)
    return result


def assert_timed_out(client: Client, fleet: Fleet, session: str, **counts: int) -> None:
    result = result_of(client, session)
    assert (result["status"], result["output"]) == ("timed_out", None)
    assert result["counts"] == counts
    statement = "SELECT status, error->>'message' FROM flow_sessions WHERE flow_session_id = %s"
    assert Records(fleet).rows(statement, session) == [
        ("timed_out", f"it took longer than {SECONDS:g} s (deadline_seconds)")
    ]


def started(journal: Path) -> list[str]:
    return [task for kind, task, *_ in read_journal(journal) if kind == "start"]


def test_what_runs_is_timed_out_and_what_has_not_begun_never_begins(
    client: Client, module_fleet: Fleet, pool: str, dispatch: Dispatch, journal: Path
) -> None:
    actions = {
        "start": NOOP,
        "quick": {**record(journal), "needs": ["start"]},
        "slow": {
            "uses": "test.sleeping" if pool == "prefork" else "test.computing",
            "with": FOREVER,
            "needs": ["start"],
        },
        "beside": {"uses": "test.awaiting", "with": FOREVER, "needs": ["start"]},
        "stubborn": {"uses": "test.swallowing", "with": FOREVER, "needs": ["start"]},
        "next": {**record(journal), "needs": ["slow"], "trigger_rule": "all_done"},
        "join": {**record(journal), "needs": ["next", "beside", "stubborn"], "trigger_rule": "all_done"},
    }
    session = begin(client, pool, actions, dispatch=dispatch)
    assert_timed_out(client, module_fleet, session, succeeded=2, timed_out=3, cancelled=2)
    rows = Records(module_fleet).tasks(session, len(actions))
    expected = dict.fromkeys(("slow", "beside", "stubborn"), "timed_out") | {"next": "cancelled", "join": "cancelled"}
    assert {name: rows[name, -1].status for name in expected} == expected
    assert "deadline_seconds of the run" in rows["slow", -1].error["message"]
    assert started(journal) == ["quick"]
    Records(module_fleet).wait_nothing_live()


def test_a_run_of_one_branch_ends_at_its_deadline_too(
    client: Client, module_fleet: Fleet, pool: str, dispatch: Dispatch, journal: Path
) -> None:
    call = {"uses": "test.sleeping" if pool == "prefork" else "test.computing", "with": FOREVER}
    actions = {"only": call, "next": {**record(journal), "needs": ["only"], "trigger_rule": "always"}}
    alone = begin(client, pool, {"only": call}, dispatch=dispatch)
    followed = begin(client, pool, actions, dispatch=dispatch)
    assert_timed_out(client, module_fleet, alone, timed_out=1)
    assert_timed_out(client, module_fleet, followed, timed_out=1, cancelled=1)
    assert started(journal) == []
    Records(module_fleet).wait_nothing_live()


def test_other_pools_keep_deadlines_too(client: Client, module_fleet: Fleet, other: str, dispatch: Dispatch) -> None:
    actions = {"only": {"uses": "test.sleeping", "with": FOREVER}, "beside": {"uses": "test.awaiting", "with": FOREVER}}
    session = begin(client, other, actions, dispatch=dispatch)
    result = result_of(client, session)
    assert result["status"] == "timed_out"
    assert set(result["counts"]) <= {"timed_out", "cancelled"}
    assert result["counts"]["timed_out"] >= 1, "on solo the other one may not have begun"
    Records(module_fleet).wait_nothing_live()


def test_a_run_ends_at_its_deadline_whatever_it_waits_for(
    client: Client, module_fleet: Fleet, dispatch: Dispatch, journal: Path
) -> None:
    one: dict[str, Any] = {"name": f"one-{dispatch}", "limits": {"max_concurrent_sessions": 1}, "dispatch": dispatch}
    first = begin(client, "prefork", {"only": {"uses": "test.sleeping", "with": FOREVER}}, seconds=3 * SECONDS, **one)
    live = LiveState(module_fleet.redis_url, module_fleet.namespace)
    wait_until(lambda: live.permits_in_use(first) == 1, "the first is at work")
    queued = begin(client, "prefork", {"only": record(journal)}, **one)
    failing = {"uses": "core.fail", "retry": {"max_attempts": 2, "delay_seconds": 1000}}
    retried = begin(client, "prefork", {"only": failing}, dispatch=dispatch)
    unserved = begin(client, "prefork", {"only": {**record(journal), "queue": "nobody"}}, dispatch=dispatch)
    paused = str(uuid.uuid4())
    assert live.pause_sessions("session", [paused]) == ["unopened"]
    begin(client, "prefork", {"one": record(journal), "two": record(journal)}, dispatch=dispatch, session=paused)
    for session in (queued, retried, unserved):
        assert_timed_out(client, module_fleet, session, cancelled=1)
    assert_timed_out(client, module_fleet, paused, cancelled=2)
    assert result_of(client, first)["counts"] == {"timed_out": 1}
    assert started(journal) == []
    Records(module_fleet).wait_nothing_live()


def test_items_that_have_not_begun_at_the_deadline_are_counted(client: Client, module_fleet: Fleet, pool: str) -> None:
    each = {"uses": "core.sleep", "with": {"seconds": 0.01}, "for_each": {"range": 100_000}}
    session = begin(client, pool, {"each": each})
    result = result_of(client, session)
    assert result["status"] == "timed_out"
    assert sum(result["counts"].values()) == 100_000
    assert result["counts"]["succeeded"] > 0
    assert result["counts"]["cancelled"] > 0
    Records(module_fleet).wait_nothing_live()


def test_a_run_that_ends_before_its_deadline_is_as_any_other(client: Client, module_fleet: Fleet, pool: str) -> None:
    actions = {"start": NOOP, "one": {**NOOP, "needs": ["start"]}, "two": {**NOOP, "needs": ["start"]}}
    result = result_of(client, begin(client, pool, actions, seconds=600))
    assert (result["status"], result["counts"]) == ("succeeded", {"succeeded": 3})
    Records(module_fleet).wait_nothing_live()
