"""The inputs of tasks, computed anew from what is recorded: as the engine rendered them, masked, and bounded."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest

from config.masking import Masker
from orchestration.errors import UnknownRun, UnknownTask
from orchestration.reports import inputs
from orchestration.store import sessions, task_views, updates, workflows
from orchestration.store.pool import Database
from orchestration.store.results import put_result, stored_mark
from orchestration.store.sessions import SessionRow
from tests.integration.store.rows import new_id, task

ACTIONS: dict[str, Any] = {
    "fetch": {"uses": "core.echo", "with": {"order": "${{ payload.order }}", "api_key": "${{ payload.key }}"}},
    "each": {"uses": "core.echo", "needs": ["fetch"], "for_each": "${{ tasks.fetch.result.items }}",
             "with": {"sku": "${{ item.sku }}", "at": "${{ item_index }}", "run": "${{ session.id }}"}},
    "sum": {"uses": "core.echo", "needs": ["each"],
            "with": {"all": "${{ tasks.each.result }}", "how": "${{ tasks.each.counts }}"}},
    "mend": {"uses": "core.echo", "needs": ["fetch"], "trigger_rule": "all_done",
             "with": {"why": "${{ tasks.fetch.error }}"}},
    "plain": {"uses": "core.noop"},
    "fixed": {"uses": "core.echo", "with": {"url": "https://ann:hunter22@shop.example/", "literal": "$${{ x }}"}},
    "deep": {"uses": "core.echo", "needs": ["fetch"], "with": {"n": "${{ size(tasks.fetch.result.items) + 1 }}"}},
}  # fmt: skip


@pytest.fixture
def run(database: Database) -> SessionRow:
    version_id = f"priced-{uuid.uuid4().hex}"
    version = workflows.register_version(
        database, "priced", version_id, {"name": "priced", "actions": ACTIONS}, publish=True
    )
    return sessions.insert_session(
        database, new_id(), workflow="priced", version_id=version_id, version=version.number,
        payload='{"order": {"id": 7}, "key": "opensesame"}',
    )  # fmt: skip


def write(database: Database, run: SessionRow, action: str, item: int = -1, **columns: Any) -> None:
    updates.write_rows(
        database,
        [
            task(
                run.flow_session_id,
                action,
                item,
                day=str(run.session_day),
                finished_us=1_790_000_000_200_000,
                **columns,
            )
        ],
    )


def asked(database: Database, run: SessionRow, action: str, item: int = -1) -> dict[str, Any]:
    return inputs.inputs_of(database, run.flow_session_id, action, item, Masker(["never-to-be-seen"]))


def known(database: Database, run: SessionRow, action: str, item: int = -1) -> Any:
    found = asked(database, run, action, item)
    assert found["why"] == "", found
    assert found["bytes"] == len(found["text"].encode())
    return json.loads(found["text"])


def test_they_come_of_the_payload_and_what_looks_like_a_secret_is_masked(database: Database, run: SessionRow) -> None:
    assert known(database, run, "fetch") == {"order": {"id": 7}, "api_key": "***"}
    assert known(database, run, "fixed") == {"url": "https://ann:***@shop.example/", "literal": "${{ x }}"}
    assert asked(database, run, "plain") == {"text": None, "bytes": 0, "why": ""}


def test_an_item_has_its_own_and_what_follows_all_results(database: Database, run: SessionRow) -> None:
    assert asked(database, run, "each", 0)["why"] == "fetch has not ended"
    write(database, run, "fetch", result='{"items": [{"sku": "a"}, {"sku": "never-to-be-seen"}]}')
    session = run.flow_session_id
    assert known(database, run, "each", 0) == {"sku": "a", "at": 0, "run": session}
    assert known(database, run, "each", 1) == {"sku": "***", "at": 1, "run": session}
    assert asked(database, run, "each", 2)["why"] == "there are 2 items, and none has the number 2"
    assert asked(database, run, "each")["why"] == "each item has its own"
    assert known(database, run, "deep") == {"n": 3}
    assert asked(database, run, "sum")["why"] == "each has not ended"
    counts = {"total": 2, "succeeded": 1, "failed": 1, "timed_out": 0, "skipped": 0, "cancelled": 0}
    write(database, run, "each", result=json.dumps(counts), status="failed")
    assert "only 0 of 2 items" in asked(database, run, "sum")["why"]
    write(database, run, "each", 0, result="[1]")
    write(database, run, "each", 1, status="failed", error='{"type": "E", "message": "m"}')
    assert known(database, run, "sum") == {"all": [[1], None], "how": counts}


def test_an_error_is_an_input_too_and_what_was_skipped_had_none(database: Database, run: SessionRow) -> None:
    write(database, run, "fetch", status="failed", error='{"type": "E", "message": "gone"}')
    assert known(database, run, "mend") == {"why": {"type": "E", "message": "gone"}}
    assert "tasks.fetch.result is null" in asked(database, run, "each", 0)["why"]
    write(database, run, "deep", status="upstream_failed")
    assert asked(database, run, "deep")["why"] == "it was not called"


def test_large_results_are_read_up_to_a_bound_and_shown_up_to_another(
    database: Database, run: SessionRow, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = json.dumps({"items": [{"sku": "x" * 50_000}]}).encode()
    put_result(database, run.flow_session_id, run.session_day, "fetch", -1, content)
    write(database, run, "fetch", result=stored_mark(len(content)))
    found = asked(database, run, "each", 0)
    assert len(found["text"]) == inputs.MOST_TEXT
    assert found["bytes"] > 50_000
    monkeypatch.setattr(task_views, "MOST_BYTES", 40_000)
    assert asked(database, run, "each", 0)["why"] == f"the result of fetch has {len(content):,} bytes"
    counts = {"total": 1, "succeeded": 1, "failed": 0, "timed_out": 0, "skipped": 0, "cancelled": 0}
    write(database, run, "each", 0, result=f'"{"y" * 50_000}"')
    write(database, run, "each", result=json.dumps(counts))
    assert asked(database, run, "sum")["why"] == "the results of each have 50,002 bytes"
    monkeypatch.setattr(task_views, "MOST_BYTES", 10)
    assert "the payload has" in asked(database, run, "fetch")["why"]


def test_a_run_or_an_action_that_is_not_there_is_named(database: Database, run: SessionRow) -> None:
    with pytest.raises(UnknownRun, match="nobody"):
        inputs.inputs_of(database, "nobody", "fetch", -1, Masker())
    with pytest.raises(UnknownTask, match="no action 'other'"):
        asked(database, run, "other")
