"""Bad input through Celery: the caller gets our message, also with Celery alone; the worker lives; nothing is left."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from kombu.connection import Connection

from tests.support.clients import Client, RaisedInClient, running_client
from tests.support.fleet import Fleet
from tests.support.records import Records
from tests.support.waiting import wait_until
from tests.support.workflows import Definition, publish

QUEUE = "branches"
FINE: Definition = {"name": "fine", "actions": {"a": {"uses": "core.echo", "with": {"value": "${{ payload }}"}}}}
STRICT: Definition = {
    **FINE,
    "name": "strict",
    "payload_schema": {"type": "object", "required": ["order_id"], "properties": {"order_id": {"type": "integer"}}},
}
CYCLE = {"a": ["b"], "b": ["c"], "c": ["a"]}


def one(**action: object) -> Definition:
    return {"name": "bad", "actions": {"a": {"uses": "core.noop", **action}}}


@dataclass(frozen=True)
class Case:
    """What is sent, and parts of what the caller must read."""

    workflow: object
    payload: object
    error: str
    says: tuple[str, ...]


CASES = {
    "unknown action": Case(one(uses="core.nop"), None, "DefinitionError", ("actions.a.uses", "core.nop", "core.noop")),
    "cycle": Case(
        {"name": "bad", "actions": {name: {"uses": "core.noop", "needs": needs} for name, needs in CYCLE.items()}},
        None, "DefinitionError", ("a cycle", "a → c → b → a"),
    ),
    "several mistakes at once": Case(
        one(needs=["x"], trigger_rule="sometimes"), None, "DefinitionError", ("needs", "trigger_rule"),
    ),
    "bad expression": Case(one(**{"if": "payload."}), None, "DefinitionError", ("actions.a.if",)),
    "unknown name": Case("fien", None, "UnknownWorkflow", ("fien", "fine")),
    "unknown version": Case("fine@99", None, "UnknownWorkflow", ("fine", "99")),
    "no name at all": Case("what is this?", None, "UnknownWorkflow", ("what is this?", "name@version")),
    "endless name": Case("x" * 100_000, None, "UnknownWorkflow", ("xxx",)),
    "list": Case([FINE], None, "DefinitionError", ("list",)),
    "number": Case(7, None, "DefinitionError", ("int",)),
    "null": Case(None, None, "DefinitionError", ("NoneType",)),
    "empty": Case({}, None, "DefinitionError", ("actions is missing",)),
    "huge integer in a definition": Case(
        one(uses="core.echo", **{"with": {"value": 2**70}}), None, "DefinitionError", ("64 bits",)
    ),
    "payload that does not fit": Case(STRICT, {"order_id": "seven"}, "PayloadError", ("payload.order_id", "integer")),
    "payload that lacks a field": Case(STRICT, None, "PayloadError", ("order_id", "required")),
    "large payload": Case(FINE, "x" * 2_000_000, "PayloadError", ("2000002", "MAX_PAYLOAD_BYTES=1048576")),
    "huge integer in the payload": Case(FINE, {"n": 2**70}, "PayloadError", ("not JSON", "64-bit")),
    "NaN in the payload": Case(FINE, {"n": float("nan")}, "PayloadError", ("not JSON", "NaN")),
}  # fmt: skip


@pytest.fixture(scope="module")
def records(module_fleet: Fleet) -> Records:
    """One worker of two processes."""
    publish(module_fleet, FINE)
    module_fleet.start(1, concurrency=2)
    return Records(module_fleet)


@pytest.fixture(scope="module", params=["ours", "bare"])
def client(request: pytest.FixtureRequest, module_fleet: Fleet, records: Records) -> Iterator[Client]:
    with running_client(module_fleet, bare=request.param == "bare") as running:
        running.run("send(fine, 1).delay().get(timeout=20)", fine=FINE)
        yield running


def main_processes(fleet: Fleet) -> list[int]:
    return [worker.process.pid for worker in fleet.workers if worker.process is not None and worker.is_running()]


@pytest.mark.parametrize("name", CASES)
def test_the_caller_is_told_and_nothing_is_left(
    client: Client, module_fleet: Fleet, records: Records, name: str
) -> None:
    case = CASES[name]
    sessions, workers = records.sessions(), main_processes(module_fleet)
    with pytest.raises(RaisedInClient) as raised:
        client.run("send(workflow, payload).delay().get(timeout=20)", workflow=case.workflow, payload=case.payload)
    assert raised.value.kind == case.error
    assert all(part in raised.value.message for part in case.says), raised.value.message
    assert len(raised.value.message) < 2000
    assert records.sessions() == sessions
    assert records.live_keys() == []
    records.wait_idle()
    assert main_processes(module_fleet) == workers
    assert client.run("result = send(fine, 2).delay().get(timeout=20)['output']") == {"a": 2}


class Trap:
    """Unpickled, it makes a file."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[type[Path], tuple[str]]:
        return open, (self.path, "w")  # type: ignore[return-value]


def test_a_pickle_in_the_queue_is_refused_and_the_worker_lives(
    client: Client, module_fleet: Fleet, records: Records, tmp_path: Path
) -> None:
    trap = tmp_path / "unpickled"
    body = pickle.dumps(([FINE, Trap(str(trap))], {}, {"callbacks": None, "errbacks": None, "chain": None}))
    headers = {"lang": "py", "task": "tasks.run_workflow", "id": "pickled", "root_id": "pickled", "retries": 0}
    with Connection(module_fleet.broker_url or module_fleet.redis_url) as connection:
        connection.Producer().publish(
            body, routing_key=QUEUE, headers=headers, content_type="application/x-python-serialize",
            content_encoding="binary", correlation_id="pickled",
        )  # fmt: skip
    (worker,) = module_fleet.workers
    wait_until(lambda: "Refusing to deserialize" in worker.log.read_text(), "the refusal in the worker's log")
    records.wait_idle()
    assert not trap.exists()
    assert client.run("result = send(fine, 3).delay().get(timeout=20)['output']", fine=FINE) == {"a": 3}


def test_messages_that_are_none_are_dropped_and_the_worker_lives(
    client: Client, module_fleet: Fleet, records: Records
) -> None:
    """For a task that does not exist, or with arguments that no task takes."""
    client.run("app.send_task('tasks.run_workflow', (), {'nonsense': 1}); app.send_task('tasks.nothing', (1,))")
    client.run("app.send_task('tasks.run_branches', ('no-such-session', 'branches'))")
    client.run("app.send_task('tasks.run_branches', ({'not': 'text'}, [1]))")
    client.run("app.send_task('tasks.complete_workflow', ('no-such-session',))")
    records.wait_idle()
    assert records.live_keys() == []
    assert client.run("result = send(fine, 4).delay().get(timeout=20)['output']", fine=FINE) == {"a": 4}


def test_a_missing_action_module_is_named_to_the_caller(fleet: Fleet) -> None:
    fleet.start(1, concurrency=1, queues=("lame",), ACTION_MODULES="core_of_nowhere")
    with running_client(fleet, bare=True) as client:
        for _ in range(2):
            with pytest.raises(RaisedInClient, match="core_of_nowhere") as raised:
                client.run("send(fine).apply_async(queue='lame').get(timeout=20)", fine=FINE)
            assert "ACTION_MODULES" in raised.value.message
    records = Records(fleet)
    assert records.live_keys() == []
