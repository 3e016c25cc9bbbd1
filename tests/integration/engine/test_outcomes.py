"""What an action can do to its task: fail, hang, return nonsense, be tried again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from orchestration.engine.processor import RunRequest
from orchestration.errors import PayloadError
from tests.support.journal import read_journal
from tests.support.stepping import SteppingEngine


def task_row(engine: SteppingEngine, session: str, action: str, item: int = -1) -> dict[str, Any]:
    names = ("status", "attempt", "result", "error")
    rows = engine.database.fetch(
        "SELECT status, attempt, result::text, error::text FROM tasks"
        " WHERE flow_session_id = %s AND action = %s AND item = %s",
        (session, action, item),
    )
    assert rows, f"no row of {action}"
    row = dict(zip(names, rows[0], strict=True))
    for name in ("result", "error"):
        row[name] = None if row[name] is None else json.loads(row[name])
    return row


def one(uses: str, **inputs: Any) -> dict[str, Any]:
    return {"name": "one", "actions": {"a": {"uses": uses, "with": inputs}}}


def test_what_json_cannot_hold_fails_its_task_only(engine: SteppingEngine) -> None:
    definition = one("test.unserialisable")
    definition["actions"]["b"] = {"uses": "core.noop"}
    result = engine.run(definition)
    assert result.status == "failed"
    assert result.counts == {"failed": 1, "succeeded": 1}
    error = task_row(engine, result.flow_session_id, "a")["error"]
    assert "builtins.object" in error["message"]


@pytest.mark.parametrize("kind", ["SystemExit", "KeyboardInterrupt", "GeneratorExit"])
def test_an_action_that_raises_no_exception_fails_its_task_only(engine: SteppingEngine, kind: str) -> None:
    result = engine.run(one("test.base_exception", kind=kind))
    assert result.status == "failed"
    error = task_row(engine, result.flow_session_id, "a")["error"]
    assert error["type"] == kind
    assert error["message"] == "told to"
    assert "base_exception" in error["traceback"]
    assert "orchestration/engine" not in error["traceback"]


def test_a_large_result_is_kept_in_postgresql_and_read_back(engine: SteppingEngine) -> None:
    size = 10_000_000
    definition = one("test.large", size_bytes=size)
    definition["actions"]["b"] = {"uses": "core.echo", "needs": ["a"], "with": {"value": "${{ tasks.a.status }}"}}
    definition["actions"]["c"] = {"uses": "core.echo", "needs": ["a"], "with": {"value": "${{ tasks.a.result }}"}}
    definition["output"] = {"b": "${{ tasks.b.result }}"}
    result = engine.run(definition, alone=0, check=lambda context: context._views.clear())
    assert result.status == "succeeded"
    assert result.output == {"b": "succeeded"}
    row = task_row(engine, result.flow_session_id, "c")
    assert row["result"] == {"$stored": True, "size_bytes": size + 2}
    assert engine.live.client.hlen(engine.live.space.key("results", result.flow_session_id)) == 0


def test_a_result_above_the_limit_fails_its_task(redis_url: str, database_url: str, namespace: str) -> None:
    engine = SteppingEngine(redis_url, database_url, namespace, max_stored_result_bytes=1024)
    result = engine.run(one("test.large", size_bytes=2000))
    assert result.status == "failed"
    assert "MAX_STORED_RESULT_BYTES=1024" in task_row(engine, result.flow_session_id, "a")["error"]["message"]
    engine.close()


def test_an_expression_that_fails_at_run_time_fails_its_task_and_the_rules_go_on(engine: SteppingEngine) -> None:
    definition = {
        "name": "expression",
        "actions": {
            "a": {"uses": "core.echo", "with": {"value": "${{ payload.missing.field }}"}},
            "b": {"uses": "core.noop", "needs": ["a"], "trigger_rule": "one_failed"},
        },
    }
    result = engine.run(definition, {"present": 1})
    assert result.status == "succeeded"
    assert result.counts == {"failed": 1, "succeeded": 1}
    assert "missing" in task_row(engine, result.flow_session_id, "a")["error"]["message"]


def test_a_timed_out_branch_ends_timed_out_and_the_others_go_on(engine: SteppingEngine) -> None:
    definition = {
        "name": "slow",
        "actions": {
            "slow": {"uses": "core.sleep", "with": {"seconds": 30}, "timeout_seconds": 0.2},
            "quick": {"uses": "core.echo", "with": {"value": 1}},
            "after": {"uses": "core.noop", "needs": ["slow"]},
            "cleanup": {"uses": "core.noop", "needs": ["slow"], "trigger_rule": "all_done"},
        },
    }
    result = engine.run(definition)
    assert result.status == "failed"
    assert result.counts == {"timed_out": 1, "succeeded": 2, "upstream_failed": 1}
    assert result.duration_seconds < 5
    row = task_row(engine, result.flow_session_id, "slow")
    assert row["status"] == "timed_out"
    assert "0.2 s" in row["error"]["message"]


def test_the_branch_timeout_of_the_definition_ends_a_branch(engine: SteppingEngine) -> None:
    definition = {
        "name": "branchtimeout",
        "limits": {"branch_timeout_seconds": 0.3},
        "actions": {
            "a": {"uses": "core.sleep", "with": {"seconds": 0.2}},
            "b": {"uses": "core.sleep", "needs": ["a"], "with": {"seconds": 30}},
        },
    }
    result = engine.run(definition)
    assert result.counts == {"succeeded": 1, "timed_out": 1}
    assert result.duration_seconds < 3


@pytest.mark.parametrize("inline", [True, False])
def test_a_failing_action_is_tried_again_and_holds_no_permit_meanwhile(
    engine: SteppingEngine, tmp_path: Path, inline: bool
) -> None:
    journal = tmp_path / "journal"
    definition = {
        "name": "retry",
        "actions": {
            "before": {"uses": "test.record", "with": {"journal": str(journal)}},
            "a": {
                "uses": "test.fail_first", "needs": ["before"], "with": {"journal": str(journal), "times": 2},
                "retry": {"max_attempts": 3, "delay_seconds": 0.05, "backoff": 2, "jitter": 0},
            },
            "after": {"uses": "core.echo", "needs": ["a"], "with": {"value": "${{ tasks.a.result }}"}},
            "other": {"uses": "core.noop", "needs": ["before"]},
        },
    }  # fmt: skip
    result = engine.run(definition, alone=int(inline))
    assert result.status == "succeeded"
    assert result.output == {"after": 3, "other": None}
    starts = [(task, attempt) for kind, task, attempt, *_ in read_journal(journal) if kind == "start"]
    assert starts == [("before", 1), ("a", 1), ("a", 2), ("a", 3)], "what succeeded before the retry is not run again"
    times = [when for kind, task, _, when, _ in read_journal(journal) if (kind, task) == ("start", "a")]
    assert times[1] - times[0] >= 0.05
    assert times[2] - times[1] >= 0.1
    assert task_row(engine, result.flow_session_id, "a")["attempt"] == 3


def test_an_item_is_tried_again_alone(engine: SteppingEngine, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    definition = {
        "name": "items",
        "actions": {
            "each": {
                "uses": "test.fail_first", "for_each": {"range": 3}, "with": {"journal": str(journal), "times": 1},
                "retry": {"max_attempts": 2, "delay_seconds": 0.02},
            },
        },
    }  # fmt: skip
    result = engine.run(definition)
    assert result.counts == {"succeeded": 3}
    assert len(read_journal(journal)) == 6


def test_errors_that_are_not_named_are_not_tried_again(engine: SteppingEngine, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    definition = one("test.fail_first", journal=str(journal), times=2)
    definition["actions"]["a"]["retry"] = {"max_attempts": 3, "delay_seconds": 0.01, "retry_on": ["ValueError"]}
    assert engine.run(definition).status == "failed"
    assert len(read_journal(journal)) == 1


def test_results_of_items_come_in_order_and_beyond_the_bound_from_postgresql(
    redis_url: str, database_url: str, namespace: str
) -> None:
    engine = SteppingEngine(redis_url, database_url, namespace, max_item_results_bytes=100)
    definition = {
        "name": "spill",
        "actions": {
            "each": {"uses": "core.echo", "for_each": {"range": 40}, "with": {"value": "item ${{ item }}"}},
            "join": {"uses": "core.echo", "needs": ["each"], "with": {"value": "${{ tasks.each.result }}"}},
        },
    }

    def drain(_: object) -> None:
        engine.updater.drain_all()

    result = engine.run(definition, choose=lambda claims: len(claims) - 1, check=drain)
    assert result.output == {"join": [f"item {index}" for index in range(40)]}
    engine.close()


def test_counts_of_a_for_each_and_its_failed_items_are_seen_by_what_follows(engine: SteppingEngine) -> None:
    definition = {
        "name": "counts",
        "actions": {
            "each": {"uses": "core.fail", "for_each": [1, 2, 3], "if": "item != 2"},
            "join": {
                "uses": "core.echo", "needs": ["each"], "trigger_rule": "all_done",
                "with": {"value": "${{ tasks.each.counts }}"},
            },
        },
    }  # fmt: skip
    result = engine.run(definition)
    assert result.status == "succeeded"
    counts = {"total": 3, "succeeded": 0, "failed": 2, "timed_out": 0, "skipped": 1, "cancelled": 0}
    assert result.output == {"join": counts}


def test_an_async_action_gives_its_value(engine: SteppingEngine) -> None:
    assert engine.run(one("test.await", value=[1, {"x": None}])).output == {"a": [1, {"x": None}]}


def test_a_payload_that_does_not_fit_is_refused_and_leaves_nothing(engine: SteppingEngine) -> None:
    definition = one("core.noop")
    definition["payload_schema"] = {
        "type": "object",
        "required": ["order_id"],
        "properties": {"order_id": {"type": "integer"}},
    }
    before = engine.database.fetch("SELECT count(*) FROM flow_sessions")
    with pytest.raises(PayloadError, match="order_id"):
        engine.run(definition, {})
    with pytest.raises(PayloadError, match=r"payload\.order_id"):
        engine.run(definition, {"order_id": "seven"})
    assert engine.database.fetch("SELECT count(*) FROM flow_sessions") == before
    assert [
        key for key in engine.live.client.scan_iter("*session*") if engine.live.space.namespace.encode() in key
    ] == []


def test_an_output_that_cannot_be_evaluated_fails_the_session(engine: SteppingEngine) -> None:
    definition = one("core.noop")
    definition["output"] = {"x": "${{ payload.absent }}"}
    result = engine.run(definition)
    assert result.status == "failed"
    assert result.output is None


def test_a_message_that_comes_again_after_the_end_gives_the_recorded_result(engine: SteppingEngine) -> None:
    request = RunRequest("0b0e7a4c-7d5e-4f57-9a53-6d7d0f1b2c3d", one("core.echo", value=1), {}, "branches")
    first = engine.processor.process_workflow_parallel(request)
    assert engine.processor.process_workflow_parallel(request) == first
