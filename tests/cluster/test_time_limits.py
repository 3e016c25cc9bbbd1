"""Actions that do not end by themselves are over when their time is, on every pool, and take nothing else along."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from parallelizer.services.supervision import LoggedProgram
from tests.support.clients import Client, running_client
from tests.support.crashes import pool_processes
from tests.support.fleet import Fleet
from tests.support.records import Records, TaskRow
from tests.support.waiting import wait_until

ACTIONS = "tests.support.overrunning"
#: The queue of a fleet of a single test.
OWN = "own"
#: The branch timeout, and what a branch may take beyond it: the promise that these tests hold the engine to. Seconds.
LIMIT, MARGIN = 1.0, 0.3
#: An action would run so long if nothing ended it; longer than any test.
FOREVER = 100.0
SLOTS = {"prefork": 4, "threads": 4, "solo": 1, "gevent": 10}
KINDS = ("sleeping", "computing", "receiving", "swallowing", "cleaning_up", "stuck_in_c")
ASYNC_KINDS = ("awaiting", "never_cancelled", "awaiting_cleaning_up", "computing_on_loop")
#: Where the only thread is stuck, nothing of the pool can go on.
IMPOSSIBLE = {("solo", "stuck_in_c"), ("gevent", "stuck_in_c")}
CASES = [(pool, kind) for pool in SLOTS for kind in KINDS if (pool, kind) not in IMPOSSIBLE]


@pytest.fixture(scope="module")
def silent_port() -> Iterator[int]:
    """Of a server that accepts and never says anything."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as server:
        yield server.getsockname()[1]


@pytest.fixture(scope="module")
def running(module_fleet: Fleet) -> Iterator[tuple[Client, set[str]]]:
    """A client, and the pools that have a worker by now; the queue of each is named after its pool."""
    with running_client(module_fleet) as client:
        yield client, set()


@pytest.fixture(params=list(SLOTS))
def pool(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def client(module_fleet: Fleet, running: tuple[Client, set[str]], pool: str) -> Client:
    """The module's client; a worker with this pool runs."""
    client, started = running
    if pool not in started:
        start(module_fleet, pool, SLOTS[pool], pool)
        started.add(pool)
    return client


def start(fleet: Fleet, pool: str, slots: int, queue: str) -> LoggedProgram:
    settings = {"ACTION_MODULES": ACTIONS, "BRANCH_GRACE_SECONDS": "1"}
    (worker,) = fleet.start(1, concurrency=slots, pool=pool, queues=(queue,), **settings)
    return worker


def stop(worker: LoggedProgram) -> None:
    """The worker ends in good order, however stuck its actions are."""
    worker.send(signal.SIGTERM)
    assert worker.process is not None
    worker.process.wait(60)
    assert worker.describe_exit() == "ended with exit code 0"


def over(kind: str, silent_port: int) -> dict[str, Any]:
    """An action of this kind."""
    inputs: dict[str, Any] = {"seconds": FOREVER}
    if kind == "receiving":
        inputs = {"port": silent_port}
    if kind.endswith("cleaning_up"):
        inputs["clean_seconds"] = 0.5
    return {"uses": f"test.{kind}", "with": inputs}


def run(
    client: Client, queue: str, actions: dict[str, Any], dispatch: str = "counted", seconds: float = 40
) -> dict[str, Any]:
    workflow = {
        "name": "over",
        "dispatch": dispatch,
        "queue": queue,
        "limits": {"branch_timeout_seconds": LIMIT},
        "actions": actions,
    }
    code = "result = send(workflow).apply_async(queue=queue).get(timeout=seconds)"
    result: dict[str, Any] = client.run(code, workflow=workflow, queue=queue, seconds=seconds)
    return result


def check_timed_out(row: TaskRow, limit: float = LIMIT) -> None:
    assert row.status == "timed_out"
    assert row.started_at is not None
    assert row.finished_at is not None
    taken = (row.finished_at - row.started_at).total_seconds()
    assert limit <= taken + 0.01 and taken <= limit + MARGIN, f"it ended after {taken:.3f} s"  # noqa: PT018
    assert f"{limit:g} s" in row.error["message"]


@pytest.mark.parametrize(("pool", "kind"), CASES, indirect=["pool"])
def test_a_branch_over_its_time_ends_and_all_others_succeed(
    client: Client, module_fleet: Fleet, pool: str, silent_port: int, kind: str
) -> None:
    actions = {
        "start": {"uses": "core.noop"},
        "over": {**over(kind, silent_port), "needs": ["start"]},
        "behind": {"uses": "core.noop", "needs": ["over"]},
        "beside": {"uses": "core.echo", "with": {"value": 1}, "needs": ["start"], "for_each": {"range": 20}},
        "after": {
            "uses": "core.echo", "with": {"value": "${{ tasks.over.status }}"}, "needs": ["over", "beside"],
            "trigger_rule": "all_done",
        },
    }  # fmt: skip
    result = run(client, pool, actions)
    assert result["counts"] == {"succeeded": 22, "timed_out": 1, "upstream_failed": 1}
    assert result["status"] == "failed"  # nothing handles `behind`
    assert result["output"] == {"after": "timed_out"}
    rows = Records(module_fleet).tasks(result["flow_session_id"], 25)
    check_timed_out(rows["over", -1])
    assert rows["over", -1].attempt == 1
    branch = "SELECT status, attempt FROM branches WHERE flow_session_id = %s AND branch = 'over'"
    assert Records(module_fleet).rows(branch, result["flow_session_id"]) == [("timed_out", 1)]


@pytest.mark.parametrize("kind", ASYNC_KINDS)
def test_an_async_branch_over_its_time_ends_and_those_beside_it_succeed(
    client: Client, module_fleet: Fleet, pool: str, kind: str
) -> None:
    beside = {"uses": "test.awaiting", "with": {"seconds": 0.2}, "for_each": {"range": 10}, "max_concurrent": 5}
    actions = {
        "over": over(kind, 0),
        "behind": {"uses": "core.noop", "needs": ["over"], "trigger_rule": "all_done"},
        "beside": beside,
        "after": {**beside, "needs": ["over"], "trigger_rule": "all_done"},
    }
    result = run(client, pool, actions)
    assert (result["status"], result["counts"]) == ("succeeded", {"succeeded": 21, "timed_out": 1})
    rows = Records(module_fleet).tasks(result["flow_session_id"], 24)
    check_timed_out(rows["over", -1])
    assert {row.attempt for row in rows.values()} == {1}


def test_an_async_action_that_blocks_its_loop_ends_and_those_beside_it_run_again(
    client: Client, module_fleet: Fleet, pool: str
) -> None:
    actions = {
        "over": {"uses": "test.sleeping_on_loop", "with": {"seconds": 15}},
        "beside": {"uses": "test.awaiting", "with": {"seconds": 0.7}, "for_each": {"range": 10}},
    }
    result = run(client, pool, actions)
    assert result["counts"] == {"succeeded": 10, "timed_out": 1}
    check_timed_out(Records(module_fleet).tasks(result["flow_session_id"], 12)["over", -1])
    assert result["duration_seconds"] < 12, "the others did not wait for it"


def test_an_item_over_its_time_ends_and_all_others_succeed(client: Client, module_fleet: Fleet, pool: str) -> None:
    """Also those that were claimed with it."""
    items = [FOREVER if number in (3, 50) else 0 for number in range(100)]
    actions = {
        "start": {"uses": "core.noop"},
        "each": {
            "uses": "test.swallowing", "with": {"seconds": "${{ item }}"}, "needs": ["start"], "for_each": items,
        },
    }  # fmt: skip
    result = run(client, pool, actions)
    assert result["counts"] == {"succeeded": 99, "timed_out": 2}
    rows = Records(module_fleet).tasks(result["flow_session_id"], 102)
    for number in (3, 50):
        check_timed_out(rows["each", number])
    assert {row.attempt for row in rows.values()} == {1}


def test_a_first_branch_over_its_time_ends_and_the_session_goes_on(
    client: Client, module_fleet: Fleet, pool: str
) -> None:
    actions = {
        "before": {"uses": "core.echo", "with": {"value": 1}},
        "over": {"uses": "test.swallowing", "with": {"seconds": FOREVER}, "needs": ["before"]},
        "behind": {"uses": "core.echo", "needs": ["over"], "with": {"value": 2}, "trigger_rule": "all_done"},
    }
    result = run(client, pool, actions)
    assert (result["status"], result["counts"]) == ("succeeded", {"succeeded": 2, "timed_out": 1})
    assert result["output"] == {"behind": 2}
    rows = Records(module_fleet).tasks(result["flow_session_id"], 3)
    check_timed_out(rows["over", -1])


def test_an_action_has_a_time_of_its_own_for_each_attempt(client: Client, module_fleet: Fleet, pool: str) -> None:
    retry = {"max_attempts": 2, "delay_seconds": 0.1, "jitter": 0}
    actions = {
        "start": {"uses": "core.noop"},
        "over": {
            "uses": "test.swallowing", "with": {"seconds": FOREVER}, "needs": ["start"], "timeout_seconds": 0.5,
            "retry": retry,
        },
        "beside": {"uses": "core.noop", "needs": ["start"]},
    }  # fmt: skip
    result = run(client, pool, actions)
    assert result["counts"] == {"succeeded": 2, "timed_out": 1}
    row = Records(module_fleet).tasks(result["flow_session_id"], 3)["over", -1]
    check_timed_out(row, 0.5)
    assert row.attempt == 2


@pytest.mark.parametrize("dispatch", ["counted", "chord"])
def test_a_pool_whose_every_thread_is_stuck_goes_on_with_new_ones(
    fleet: Fleet, silent_port: int, dispatch: str
) -> None:
    worker = start(fleet, "threads", 2, OWN)
    stuck = {f"over{number}": over("receiving", silent_port) for number in range(5)}
    with running_client(fleet) as client:
        result = run(client, OWN, stuck, dispatch)
        assert result["counts"] == {"timed_out": 5}
        assert run(client, OWN, {"beside": {"uses": "core.noop"}})["status"] == "succeeded"
    rows = Records(fleet).tasks(result["flow_session_id"], 5)
    for name in stuck:
        check_timed_out(rows[name, -1])
    wait_until(lambda: worker.log.read_text().count("another takes its place") == 5, "all were reported")
    assert "in receiving" in worker.log.read_text(), "with the place in the code"
    wait_until(lambda: not Records(fleet).messages_of(result["flow_session_id"], OWN), "no message of it is left")
    Records(fleet).wait_nothing_live()
    stop(worker)


@pytest.mark.parametrize("dispatch", ["counted", "chord"])
def test_a_process_that_is_stuck_ends_at_the_hard_limit_and_is_replaced(fleet: Fleet, dispatch: str) -> None:
    worker = start(fleet, "prefork", 2, OWN)
    before = set(pool_processes(worker))
    with running_client(fleet) as client:
        stuck = {name: over("stuck_in_c", 0) for name in ("over1", "over2")}
        result = run(client, OWN, stuck, dispatch)
        assert result["counts"] == {"timed_out": 2}
        rows = Records(fleet).tasks(result["flow_session_id"], 2)
        for name in stuck:
            check_timed_out(rows[name, -1])
        wait_until(lambda: not before & set(pool_processes(worker)), "both processes have ended")
        assert run(client, OWN, {"beside": {"uses": "core.noop"}})["status"] == "succeeded"
    assert worker.log.read_text().count("another takes its place") == 2
    wait_until(lambda: not Records(fleet).messages_of(result["flow_session_id"], OWN), "no message of it is left")
    Records(fleet).wait_nothing_live()
    stop(worker)
