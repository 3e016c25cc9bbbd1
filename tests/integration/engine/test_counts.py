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
from tests.support.stepping import QUEUE, SteppingEngine

Definition = dict[str, Any]
NOOP: Definition = {"uses": "core.noop"}
ONE: Definition = {"name": "one", "actions": {"only": NOOP}}
ITEMS: Definition = {"name": "items", "actions": {"each": {**NOOP, "for_each": {"range": "${{ payload.items }}"}}}}
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


def test_an_item_of_a_for_each_costs_one_script_call(engine: SteppingEngine) -> None:
    run_alone(engine, ITEMS, {"items": 1})  # the scripts are loaded, the version is compiled
    for items in (100, 400):
        before = script_calls(engine)
        assert run_alone(engine, ITEMS, {"items": items}).counts == {"succeeded": items}
        # opened, claimed, expanded, its end settled, closed; each item is settled in the call that claims the next
        assert script_calls(engine) - before <= items + 5


def test_a_linear_run_costs_two_statements(engine: SteppingEngine) -> None:
    run_alone(engine, ONE)
    statements = record_statements(engine.database)
    for _ in range(10):
        run_alone(engine, ONE)
    # accepted and ended; in between its task is on its way through the status channel, many to a statement
    assert statements == ["WITH", "UPDATE"] * 10


def test_the_statements_of_a_thousand_items_are_few(engine: SteppingEngine) -> None:
    run_alone(engine, ITEMS, {"items": 1})
    engine.updater.drain_all()
    statements = record_statements(engine.database)
    result = run_alone(engine, ITEMS, {"items": 1000})
    assert len(statements) <= 4
    assert engine.updater.drain_all().rows >= 1001
    assert len(statements) <= 4 + 20
    rows = engine.database.fetch(
        "SELECT count(*) FROM tasks WHERE flow_session_id = %s AND status = 'succeeded'", (result.flow_session_id,)
    )
    assert rows == [(1001,)]


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
