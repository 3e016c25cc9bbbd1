"""Events: each state that is recorded is told once, by time, however late it was recorded."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestration.errors import UnknownRun
from orchestration.reports.events import FIELDS, Event, EventsOfRun, EventsOfRuns
from orchestration.store import sessions, updates
from orchestration.store.pool import Database
from orchestration.store.updates import BranchUpdate
from orchestration.vocabulary import RunStatus
from tests.integration.store.rows import DAY, new_session, task

FAILED = '{"type": "ValueError", "message": "no"}'


def told(events: list[Event]) -> list[tuple[str, str | None, str]]:
    return [(event.kind, event.branch or event.action, event.status) for event in events]


def test_a_run_that_has_ended_is_told_from_its_begin_to_its_end(database: Database) -> None:
    run = new_session(database)
    session, began = run.flow_session_id, int(run.created_at.timestamp() * 1e6)
    branch = BranchUpdate(DAY, session, "work", "failed", 1, 9, "branches", "w@h#1", began + 10, began + 90, 3)
    rows = [
        task(session, "work", started_us=began + 20, finished_us=began + 80),
        task(session, "each", 4, started_us=began + 30, finished_us=began + 40, status="failed", error=FAILED),
    ]
    updates.write_rows(database, rows, [branch])
    sessions.finish_session(database, session, run.session_day, RunStatus.FAILED)
    source = EventsOfRun(database, session)
    events = source.next()
    assert told(events) == [
        ("run", None, "running"), ("branch", "work", "running"), ("task", "work", "running"),
        ("task", "each", "running"), ("task", "each", "failed"), ("task", "work", "succeeded"),
        ("branch", "work", "failed"), ("run", None, "failed"),
    ]  # fmt: skip
    assert source.has_ended
    failed: dict[str, Any] = events[4].to_json()
    assert list(failed) == list(FIELDS)
    assert (failed["item"], failed["error"]["message"], failed["attempt"]) == (4, "no", 1)
    assert failed["time"].endswith("Z")
    assert source.next() == []


def test_a_row_that_is_committed_late_is_told_all_the_same(database: Database) -> None:
    session = new_session(database).flow_session_id
    source = EventsOfRun(database, session)
    source.next()
    with database.transaction() as cursor:
        cursor.execute(
            "INSERT INTO tasks (session_day, flow_session_id, action, status, attempt, sequence, finished_at)"
            " VALUES (%s, %s, 'slow', 'succeeded', 1, 5, now())", (DAY, session),
        )  # fmt: skip
        updates.write_rows(database, [task(session, "quick")])
        assert ("task", "quick", "succeeded") in told(source.next())
    assert told(source.next()) == [("task", "slow", "succeeded")]


def test_a_retry_is_told_with_its_attempts(database: Database) -> None:
    session = new_session(database).flow_session_id
    source = EventsOfRun(database, session)
    seen = source.next()[1:]
    for sequence, status, attempt, started in [(1, "running", 1, 10), (2, "pending", 1, 10), (3, "running", 2, 50),
                                               (4, "succeeded", 2, 50)]:  # fmt: skip
        end = 60 if status == "succeeded" else None
        row = task(session, status=status, sequence=sequence, attempt=attempt)
        updates.write_rows(database, [row._replace(started_us=started, finished_us=end)])
        seen += source.next()
    assert [(event.status, event.attempt) for event in seen] == [
        ("running", 1), ("pending", 1), ("running", 2), ("succeeded", 2),
    ]  # fmt: skip


STATES = [("running", 10, None), ("pending", 10, None), ("running", 20, None), ("succeeded", 20, 30)]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3), st.booleans()), max_size=15))
def test_what_is_recorded_in_any_order_and_often_is_told_once(
    database: Database, writes: list[tuple[int, int, bool]]
) -> None:
    """Updates come twice and in any order, as after an outage; whoever looks at some moments sees each end once."""
    session = new_session(database).flow_session_id
    source, seen = EventsOfRun(database, session), []
    for item, state, looks in [*writes, *((item, 3, False) for item in range(3))]:
        status, started_us, finished_us = STATES[state]
        row = task(session, "each", item, status=status, sequence=state)
        updates.write_rows(database, [row._replace(started_us=started_us, finished_us=finished_us)])
        if looks:
            seen += source.next()
    seen += source.next()
    for item in range(3):
        of_item = [event for event in seen if event.item == item]
        assert [event.status for event in of_item].count("succeeded") == 1
        assert len({(event.status, event.time) for event in of_item}) == len(of_item)
        assert [event.status for event in of_item if event.status != "running"][-1] == "succeeded"
    assert source.next() == []


def test_all_runs_are_told_once_when_they_are_accepted_and_when_they_end(database: Database) -> None:
    before = new_session(database)
    source = EventsOfRuns(database, newest=50)
    first = [event for event in source.next() if event.flow_session_id == before.flow_session_id]
    assert [event.status for event in first] == ["running"]
    long, short = new_session(database, "long"), new_session(database, "short")
    sessions.finish_session(database, short.flow_session_id, short.session_day, RunStatus.SUCCEEDED)
    assert [(event.workflow, event.status) for event in source.next()] == [
        ("long", "running"), ("short", "running"), ("short", "succeeded"),
    ]  # fmt: skip
    assert source.next() == []
    for run in (before, long):
        sessions.finish_session(database, run.flow_session_id, run.session_day, RunStatus.CANCELLED)
    ended = source.next()
    assert [(event.flow_session_id, event.status) for event in ended] == [
        (before.flow_session_id, "cancelled"), (long.flow_session_id, "cancelled"),
    ]  # fmt: skip
    assert source.next() == []


def test_a_run_that_nobody_knows_is_an_error(database: Database) -> None:
    with pytest.raises(UnknownRun, match="no run has the id nobody"):
        EventsOfRun(database, "nobody")
