"""What a run costs in calls, statements and bytes.

These counts are behind the figures of `make bench`, and no busy machine changes them.
"""

from __future__ import annotations

import uuid
from typing import Any

import psycopg2.extensions
import pytest

from orchestration.engine.finish import RunResult
from orchestration.engine.processor import Fork, RunRequest
from orchestration.store.pool import Database
from orchestration.vocabulary import Verdict
from tests.support.stepping import QUEUE, RecordingLinks, SteppingEngine

Definition = dict[str, Any]
NOOP: Definition = {"uses": "core.noop"}
ONE: Definition = {"name": "one", "actions": {"only": NOOP}}
ITEMS: Definition = {"name": "items", "actions": {"each": {**NOOP, "for_each": {"range": "${{ payload.items }}"}}}}
ARMS = [f"arm{number}" for number in range(998)]
WIDE: Definition = {
    "name": "wide",
    "actions": {
        "first": NOOP, **{arm: {**NOOP, "needs": ["first"]} for arm in ARMS}, "last": {**NOOP, "needs": ARMS},
    },
}  # fmt: skip
#: A chunk is to take 20 ms: on a machine so slow that a no-op takes 2 ms, ten items.
LEAST_ITEMS_PER_CALL = 10
#: Of live state, for each item: one bit, and a few keys for all of them.
LIVE_BYTES_PER_ITEM = 1
#: Of a row in the status channel (measured: 97).
STREAM_BYTES_PER_ITEM = 200
#: What stays for a time, in case a message or a call of the run comes a second time: seconds, and bytes in all.
TRACE_SECONDS, TRACE_BYTES = 86_400, 1000


def run_alone(engine: SteppingEngine, workflow: Definition, payload: object = None) -> RunResult:
    """One runner runs it all, as `run_workflow` does in a fleet with one slot; nothing is drained."""
    started = engine.processor.process_workflow_parallel(RunRequest(str(uuid.uuid4()), workflow, payload, QUEUE))
    if isinstance(started, Fork):
        assert engine.processor.open_fork(started, "{}") is Verdict.GO
        assert engine.processor.run_fork(started) is Verdict.ENDED
        started = engine.processor.complete_workflow(started.row.flow_session_id)
    assert engine.links.published == []
    return started


def script_calls(engine: SteppingEngine) -> int:
    """Calls of scripts that the server has had."""
    commands = engine.live.client.info("commandstats")
    return sum(int(commands.get(f"cmdstat_{name}", {"calls": 0})["calls"]) for name in ("eval", "evalsha"))


def keys_of(engine: SteppingEngine) -> set[str]:
    """What the namespace has in Redis."""
    prefix = engine.live.space.prefix
    return {key.decode().removeprefix(prefix) for key in engine.live.client.scan_iter(f"{prefix}*")}


def record_statements(database: Database) -> list[str]:
    """A list that gets every statement sent to PostgreSQL from now on."""
    statements: list[str] = []

    class RecordingCursor(psycopg2.extensions.cursor):
        def execute(self, query: Any, vars: Any = None) -> None:  # noqa: A002 - the driver's name
            statements.append(str(query).split(maxsplit=1)[0].upper())
            super().execute(query, vars)

    connect = database._connect

    def connect_recording() -> Any:
        connection = connect()
        connection.cursor_factory = RecordingCursor
        return connection

    database.close()
    database._connect = connect_recording  # type: ignore[method-assign]
    return statements


class WatchingLinks(RecordingLinks):
    """Looks, every 50 ms while a runner is at work, how large the namespace is without the status channel."""

    def __init__(self, engine: SteppingEngine) -> None:
        super().__init__()
        self._engine = engine
        self.looks = self.most_bytes = 0

    def crowded(self, queue: str) -> bool:
        client = self._engine.live.client
        keys = [self._engine.live.space.prefix + key for key in keys_of(self._engine) - {"status"}]
        self.most_bytes = max(self.most_bytes, sum(client.memory_usage(key) or 0 for key in keys))
        self.looks += 1
        return False


def test_a_script_call_is_for_many_items(engine: SteppingEngine) -> None:
    run_alone(engine, ITEMS, {"items": 1})  # the scripts are loaded, the version is compiled
    before = script_calls(engine)
    assert run_alone(engine, ITEMS, {"items": 10_000}).counts == {"succeeded": 10_000}
    assert script_calls(engine) - before <= 10_000 / LEAST_ITEMS_PER_CALL


def test_a_branch_costs_one_script_call(engine: SteppingEngine) -> None:
    run_alone(engine, WIDE)
    before = script_calls(engine)
    assert run_alone(engine, WIDE).counts == {"succeeded": len(ARMS) + 2}
    # each is settled in the call that claims the next; opened, claimed, closed
    assert script_calls(engine) - before <= len(ARMS) + 2 + 3


def test_items_take_few_bytes_of_redis(engine: SteppingEngine) -> None:
    items, client, channel = 100_000, engine.live.client, engine.live.space.key("status")
    engine.processor.links = links = WatchingLinks(engine)
    run_alone(engine, ITEMS, {"items": items})
    assert links.looks > 1
    assert links.most_bytes <= LIVE_BYTES_PER_ITEM * items
    # nothing has drained it, so all rows are there at once
    assert client.memory_usage(channel, samples=0) <= STREAM_BYTES_PER_ITEM * items
    client.unlink(channel)


def test_a_linear_run_costs_two_statements(engine: SteppingEngine) -> None:
    run_alone(engine, ONE)
    statements = record_statements(engine.database)
    for _ in range(10):
        run_alone(engine, ONE)
    # accepted and ended; in between its task is on its way through the status channel, many to a statement
    assert statements == ["WITH", "WITH"] * 10


@pytest.mark.parametrize(("workflow", "tasks"), [(ITEMS, 1001), (WIDE, 1000)], ids=["items", "branches"])
def test_the_statements_of_a_thousand_branches_are_few(
    engine: SteppingEngine, workflow: Definition, tasks: int
) -> None:
    run_alone(engine, workflow, {"items": 1})
    engine.updater.drain_all()
    statements = record_statements(engine.database)
    result = run_alone(engine, workflow, {"items": 1000})
    assert len(statements) <= 4
    assert engine.updater.drain_all().rows >= tasks
    assert len(statements) <= 4 + 20
    rows = engine.database.fetch(
        "SELECT count(*) FROM tasks WHERE flow_session_id = %s AND status = 'succeeded'", (result.flow_session_id,)
    )
    assert rows == [(tasks,)]


@pytest.mark.parametrize("workflow", [ONE, ITEMS], ids=["linear", "forked"])
def test_an_ended_run_leaves_only_small_traces_that_expire(engine: SteppingEngine, workflow: Definition) -> None:
    run_alone(engine, workflow, {"items": 50})
    engine.updater.drain_all()
    before = keys_of(engine)
    session = run_alone(engine, workflow, {"items": 50}).flow_session_id
    engine.updater.drain_all()
    traces = [engine.live.space.prefix + key for key in keys_of(engine) - before]
    client = engine.live.client
    assert all(session in key for key in traces)
    assert [key for key in traces if not 0 < client.ttl(key) <= TRACE_SECONDS] == []
    assert sum(client.memory_usage(key) for key in traces) < TRACE_BYTES
    assert client.xlen(engine.live.space.key("status")) == 0
