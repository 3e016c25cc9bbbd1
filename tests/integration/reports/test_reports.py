"""Reports: what PostgreSQL knows and what is live, put together."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from orchestration import reports
from orchestration.definition import load_definition
from orchestration.errors import UnknownRun
from orchestration.registry import load_actions
from orchestration.state.records import ItemProgress, LiveClaim, LiveSnapshot
from orchestration.state.situation import Situation
from orchestration.store import sessions, updates
from orchestration.store.pool import Database
from orchestration.store.sessions import SessionRow
from orchestration.store.updates import BranchUpdate
from orchestration.vocabulary import RunStatus, TaskStatus
from tests.integration.store.rows import DAY, NOON_US, new_session, task

NOON = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=NOON_US)
#: first → second → each (for_each) → last; first → beside → last
ACTIONS: dict[str, object] = {
    "first": {"uses": "core.noop"},
    "each": {"uses": "core.noop", "needs": ["second"], "for_each": {"range": 1000}},
    "second": {"uses": "core.noop", "needs": ["first"]},
    "beside": {"uses": "core.noop", "needs": ["first"]},
    "last": {"uses": "core.noop", "needs": ["each", "beside"]},
}


@dataclass(frozen=True)
class Moment:
    """The live state of a run at one moment, or that it has none."""

    value: LiveSnapshot | None = None

    def snapshot(self, flow_session_id: str) -> LiveSnapshot | None:
        assert flow_session_id
        return self.value

    def situation(self, flow_session_id: str, unit: str = "") -> Situation:
        return Situation(NOON_US, None)

    def rate_places(self, flow_session_id: str, tasks: Sequence[tuple[str, int, int]]) -> dict[tuple[str, int], int]:
        return {}


def _moment(*claims: LiveClaim, status: str = "running", items: dict[str, ItemProgress] | None = None) -> Moment:
    return Moment(LiveSnapshot(status, 10, len(claims), claims, 0, 0, 3, {"succeeded": 2}, items or {}))


def _claim(token: str, count: int = 1) -> LiveClaim:
    return LiveClaim(token, "runner", "worker@there", 2, count, NOON_US)


@pytest.fixture
def run(database: Database) -> SessionRow:
    load_actions(["parallelizer.actions.core"])
    definition = load_definition({"name": "shapes", "actions": ACTIONS})
    return new_session(database, "shapes", definition.to_dict()["actions"])


def _settle(database: Database, run: SessionRow, *actions: str) -> None:
    updates.write_rows(database, [task(run.flow_session_id, action, finished_us=NOON_US + 5) for action in actions])


def _statuses(database: Database, run: SessionRow, live: Moment) -> dict[str, TaskStatus]:
    progress = reports.progress(database, live, run.flow_session_id)
    assert progress is not None
    return {action.name: action.status for action in progress.actions}


def test_the_result_of_a_run_has_the_fields_that_scripts_rely_on(database: Database, run: SessionRow) -> None:
    sessions.finish_session(
        database, run.flow_session_id, run.session_day, RunStatus.FAILED, b'{"a": [1]}', None, {"failed": 2}
    )
    report = reports.status(database, Moment(), run.flow_session_id)
    found = report.to_json()
    assert list(found) == [
        "flow_session_id", "workflow", "version", "status", "output", "counts", "duration_seconds", "started_at",
        "finished_at", "waits_for", "retry_of", "retried_as",
    ]  # fmt: skip
    assert (found["status"], found["output"], found["counts"]) == ("failed", {"a": [1]}, {"failed": 2})
    assert found["duration_seconds"] == report.duration_seconds
    assert report.started_at is not None
    assert found["started_at"] == report.started_at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    json.dumps(found)


def test_tasks_are_listed_in_the_order_of_the_definition(database: Database, run: SessionRow) -> None:
    rows = [task(run.flow_session_id, "each", item, status="failed", error='{"message": "no"}') for item in (10, 9)]
    updates.write_rows(database, rows)
    _settle(database, run, "first", "second")
    listed = reports.status(database, _moment(), run.flow_session_id, tasks=True).to_json()["tasks"]
    assert [(one["action"], one["item"], one["status"]) for one in listed] == [
        ("first", None, "succeeded"), ("each", None, "pending"), ("each", 9, "failed"), ("each", 10, "failed"),
        ("second", None, "succeeded"), ("beside", None, "pending"), ("last", None, "pending"),
    ]  # fmt: skip
    assert listed[2] == {
        "action": "each", "item": 9, "status": "failed", "attempt": 1, "queue": "branches", "worker": "worker@here",
        "started_at": "2026-09-21T14:13:20.123457Z", "finished_at": None, "error": {"message": "no"},
    }  # fmt: skip


def test_what_is_claimed_runs(database: Database, run: SessionRow) -> None:
    _settle(database, run, "first", "second")
    updates.write_rows(database, [task(run.flow_session_id, "each", 5, status="pending", sequence=100_007)])
    live = _moment(_claim("c:each:4", count=3), _claim("b:beside"))
    report = reports.status(database, live, run.flow_session_id, tasks=True)
    assert report.counts == {"succeeded": 2}
    assert report.tasks is not None
    running = [(one.action, one.item) for one in report.tasks if one.status is TaskStatus.RUNNING]
    assert running == [("each", None), ("each", 4), ("each", 5), ("each", 6), ("beside", None)]
    (beside,) = [one for one in report.tasks if one.action == "beside"]
    assert (beside.worker, beside.attempt, beside.started_at) == ("worker@there", 2, NOON)


def test_of_a_claimed_branch_the_first_action_that_has_not_ended_runs(database: Database) -> None:
    actions: dict[str, object] = {
        "a": {"uses": "x"},
        "b": {"uses": "x", "needs": ["a"]},
        "c": {"uses": "x", "needs": ["b"]},
    }
    run = new_session(database, "line", actions)
    _settle(database, run, "a")
    expected = {"a": TaskStatus.SUCCEEDED, "b": TaskStatus.RUNNING, "c": TaskStatus.PENDING}
    assert _statuses(database, run, _moment(_claim("b:a"))) == expected
    # A run without live state is one process in its first branch.
    assert _statuses(database, run, Moment()) == expected


def test_the_items_of_a_for_each_are_counted_by_redis_while_it_runs(database: Database, run: SessionRow) -> None:
    _settle(database, run, "first", "second")
    updates.write_rows(
        database, branches=[BranchUpdate(DAY, run.flow_session_id, "each", "running", 1, 1, None, "w", NOON_US, None)]
    )
    counts = {"succeeded": 300, "failed": 2, "timed_out": 1, "skipped": 4}
    items = {"each": ItemProgress(1000, 563, 307, 3, counts)}
    live = _moment(_claim("c:each:307", 256), _claim("c:each:99"), items=items)
    progress = reports.progress(database, live, run.flow_session_id)
    assert progress is not None
    each = progress.actions[1]
    assert each == reports.ActionProgress("each", TaskStatus.RUNNING, 1000, 300, 3, 4, 2, NOON, None)
    assert not progress.recorded


def test_the_items_of_a_for_each_are_counted_by_its_own_row_when_it_has_ended(
    database: Database, run: SessionRow
) -> None:
    counts = {"total": 1000, "succeeded": 990, "failed": 6, "timed_out": 1, "skipped": 3, "cancelled": 0}
    ended = task(
        run.flow_session_id, "each", status="failed", started_us=None, finished_us=NOON_US, result=json.dumps(counts)
    )
    updates.write_rows(database, [ended])
    _settle(database, run, "first", "second", "beside")
    last = task(run.flow_session_id, "last", status="upstream_failed")
    progress = reports.progress(database, _moment(), run.flow_session_id)
    assert progress is not None
    assert progress.actions[1] == reports.ActionProgress("each", TaskStatus.FAILED, 1000, 990, 7, 3, 0, None, NOON)
    sessions.finish_session(database, run.flow_session_id, run.session_day, RunStatus.FAILED)
    before = reports.progress(database, Moment(), run.flow_session_id)
    updates.write_rows(database, [last])
    after = reports.progress(database, Moment(), run.flow_session_id)
    assert before is not None
    assert after is not None
    assert (before.recorded, after.recorded) == (False, True)
    assert after.actions[4].skipped == 1


def test_a_run_that_only_waits_is_suspended(database: Database, run: SessionRow) -> None:
    live = _moment(status="suspended")
    assert reports.status(database, live, run.flow_session_id).status is RunStatus.SUSPENDED
    assert reports.status(database, _moment(), run.flow_session_id).status is RunStatus.RUNNING


def test_before_the_first_fork_the_tasks_are_counted_in_postgresql(database: Database, run: SessionRow) -> None:
    _settle(database, run, "first")
    assert reports.status(database, Moment(), run.flow_session_id).counts == {"succeeded": 1}


def test_the_first_failures_come_by_their_end(database: Database, run: SessionRow) -> None:
    updates.write_rows(
        database,
        [
            task(
                run.flow_session_id,
                "each",
                item,
                status="failed" if item % 2 else "timed_out",
                finished_us=NOON_US + 10 - item,
            )
            for item in range(10)
        ],
    )
    _settle(database, run, "first")
    assert [one.item for one in reports.failures(database, run.flow_session_id, limit=3)] == [9, 8, 7]
    assert reports.failures(database, "nothing") == []


def test_runs_are_listed_in_pages(database: Database, run: SessionRow) -> None:
    new_session(database, "shapes")
    (newest,) = reports.list_runs(database, workflow="shapes", limit=1)
    (next_one, *_) = reports.list_runs(database, workflow="shapes", before=newest)
    assert next_one.flow_session_id == run.flow_session_id
    assert next_one.output is None


def test_a_run_that_is_not_there_is_said_so(database: Database) -> None:
    with pytest.raises(UnknownRun, match="parallelizer list"):
        reports.status(database, Moment(), "nothing")
    assert reports.progress(database, Moment(), "nothing") is None
