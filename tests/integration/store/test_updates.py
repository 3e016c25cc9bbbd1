"""Status updates: guarded by their sequence, whole, and never lost because of a neighbour."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestration.errors import ServiceUnreachable
from orchestration.store import sessions, updates
from orchestration.store.dead_letters import DeadLetter, list_dead_letters
from orchestration.store.pool import Database, Row
from orchestration.store.updates import BranchUpdate, SessionUpdate, TaskUpdate
from orchestration.vocabulary import RunStatus
from tests.integration.store.gate import Gate
from tests.integration.store.rows import DAY, NOON_US, new_id, new_session, task
from tests.support.waiting import wait_until

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: Columns of a task that updates say: not what it was before.
_SAID = "action, item, status, attempt, sequence, queue, worker, started_at, finished_at, result::text, error::text"


def _row(database: Database, flow_session_id: str, columns: str, item: int = -1) -> Row:
    (row,) = database.fetch(
        f"SELECT {columns} FROM tasks WHERE session_day = %s AND flow_session_id = %s AND item = %s",
        (DAY, flow_session_id, item),
    )
    return row


def test_a_row_is_written_with_all_it_says(database: Database) -> None:
    flow_session_id = new_id()
    update = task(flow_session_id, finished_us=NOON_US + 1, result='{"a": [1, "é\\"\\\\"]}', error='{"message": "x"}')
    assert updates.write_rows(database, [update]).rows == 1
    found = _row(
        database, flow_session_id,
        "action, status, attempt, sequence, queue, worker, started_at, finished_at, result, error",
    )  # fmt: skip
    started_at = _EPOCH + timedelta(microseconds=NOON_US)
    assert found == (
        "work", "succeeded", 1, 100_005, "branches", "worker@here", started_at,
        started_at + timedelta(microseconds=1), {"a": [1, 'é"\\']}, {"message": "x"},
    )  # fmt: skip


def test_a_late_update_overwrites_nothing(database: Database) -> None:
    flow_session_id = new_id()
    updates.write_rows(database, [task(flow_session_id, sequence=100_005, result="1")])
    updates.write_rows(database, [task(flow_session_id, sequence=100_001, status="running", started_us=None)])
    updates.write_rows(database, [task(flow_session_id, sequence=100_005, result="2")])
    assert _row(database, flow_session_id, "status, result") == ("succeeded", 1)


def test_a_later_attempt_overwrites_the_result_and_error_of_the_former(database: Database) -> None:
    flow_session_id = new_id()
    failed = task(flow_session_id, status="pending", error='"first"', finished_us=NOON_US)
    again = task(flow_session_id, status="running", sequence=100_011, attempt=2, started_us=NOON_US + 5)
    updates.write_rows(database, [failed])
    updates.write_rows(database, [again])
    assert _row(database, flow_session_id, "status, attempt, error, finished_at") == ("running", 2, None, None)


@pytest.mark.parametrize("apart", [True, False])
def test_the_start_and_queue_known_to_one_update_only_are_kept(database: Database, apart: bool) -> None:
    flow_session_id = new_id()
    rows = [
        task(flow_session_id, status="running", sequence=100_001, queue=None),
        task(flow_session_id, sequence=100_005, started_us=None),
    ]
    for batch in [[row] for row in reversed(rows)] if apart else [rows]:
        updates.write_rows(database, batch)
    assert _row(database, flow_session_id, "status, started_at, queue") == (
        "succeeded", _EPOCH + timedelta(microseconds=NOON_US), "branches",
    )  # fmt: skip


@pytest.mark.parametrize("order", [1, -1, 0])
def test_no_row_ends_before_it_begins(database: Database, order: int) -> None:
    """It ran again under the same number, since Redis could not be told of the first time."""
    flow_session_id, second_us = new_id(), NOON_US + 9
    rows = [
        task(flow_session_id, sequence=100_005, started_us=NOON_US, finished_us=NOON_US + 1),
        task(flow_session_id, status="running", sequence=100_001, started_us=second_us),
    ]
    for batch in [[row] for row in rows[::order]] if order else [rows]:
        updates.write_rows(database, batch)
    began = _EPOCH + timedelta(microseconds=second_us)
    assert _row(database, flow_session_id, "status, started_at, finished_at") == ("succeeded", began, began)


@pytest.mark.parametrize("apart", [True, False])
def test_no_branch_ends_before_it_begins(database: Database, apart: bool) -> None:
    flow_session_id = new_id()
    rows = [
        BranchUpdate(DAY, flow_session_id, "b", "succeeded", 1, 100_005, None, "w", NOON_US, NOON_US + 1, 77),
        BranchUpdate(DAY, flow_session_id, "b", "running", 1, 100_001, None, "w", NOON_US + 9, None),
    ]
    for batch in [[row] for row in rows] if apart else [rows]:
        updates.write_rows(database, branches=batch)
    found = database.fetch(
        "SELECT status, finished_at - started_at FROM branches WHERE flow_session_id = %s", (flow_session_id,)
    )
    assert found == [("succeeded", timedelta())]


def test_branches_are_written_like_tasks(database: Database) -> None:
    flow_session_id = new_id()
    running = BranchUpdate(DAY, flow_session_id, "b", "running", 1, 100_001, None, "w", NOON_US, None)
    ended = BranchUpdate(DAY, flow_session_id, "b", "succeeded", 1, 100_005, "gpu", "w", None, NOON_US + 9, 77)
    for batch in ([ended], [running], [ended, running]):
        updates.write_rows(database, branches=batch)
    rows = database.fetch(
        "SELECT status, queue, worker, waited_us, finished_at - started_at FROM branches WHERE flow_session_id = %s",
        (flow_session_id,),
    )
    assert rows == [("succeeded", "gpu", "w", 77, timedelta(microseconds=9))]


def test_sessions_change_between_statuses_that_are_not_final(database: Database) -> None:
    row = new_session(database)
    key = (DAY, row.flow_session_id)
    updates.write_rows(database, sessions=[SessionUpdate(*key, "suspended", 5), SessionUpdate(*key, "running", 4)])
    assert _status(database, row.flow_session_id) is RunStatus.SUSPENDED
    sessions.finish_session(database, row.flow_session_id, row.session_day, RunStatus.SUCCEEDED)
    updates.write_rows(database, sessions=[SessionUpdate(*key, "running", 6)])
    assert _status(database, row.flow_session_id) is RunStatus.SUCCEEDED
    assert updates.write_rows(database, sessions=[SessionUpdate(DAY, "nobody's", "running", 6)]).refused == ()


def test_a_row_of_a_day_without_partition_is_kept_all_the_same(database: Database) -> None:
    flow_session_id = new_id()
    updates.write_rows(database, [task(flow_session_id, day="2031-01-31")])
    assert database.fetch("SELECT session_day::text FROM tasks WHERE flow_session_id = %s", (flow_session_id,)) == [
        ("2031-01-31",)
    ]


@pytest.mark.parametrize(
    "text", [r'{"a": "\u0000"}', r'"\ud800"', "1e999999", "9" * 5000, '"' + "x" * 1_000_000 + '"', '["{,}\\"", null]']
)
def test_any_json_text_is_kept_as_it_is(database: Database, text: str) -> None:
    flow_session_id = new_id()
    assert updates.write_rows(database, [task(flow_session_id, result=text)]).refused == ()
    assert _row(database, flow_session_id, "result::text") == (text,)


@pytest.mark.parametrize(
    "text",
    ["NaN", "", "{", '"\x00"', '"\ud800"', "1\x1f2", "\x1f" * 3, "[" * 100_000 + "]" * 100_000],
    ids=["NaN", "empty", "cut off", "NUL", "lone surrogate", "separator", "separators", "too deep"],
)
def test_a_result_that_postgresql_refuses_harms_no_other_row(database: Database, text: str) -> None:
    flow_session_id = new_id()
    rows = [task(flow_session_id, item=item, result=text if item == 33 else f"{item}") for item in range(100)]
    letter = DeadLetter("1-0", "unreadable", b"\xff\x00")
    written = updates.write_rows(database, rows, dead_letters=[letter])
    (refused,) = written.refused
    assert refused.flow_session_id == flow_session_id
    assert json.loads(refused.content)[11] == text
    assert refused.reason
    found = database.fetch(
        "SELECT item, status, result, error ->> 'type' FROM tasks WHERE flow_session_id = %s ORDER BY item",
        (flow_session_id,),
    )
    assert found == [
        (item, "succeeded", None if item == 33 else item, "StatusRefused" if item == 33 else None)
        for item in range(100)
    ]
    kept = [one.letter for one in list_dead_letters(database, 2)]
    assert {one.source for one in kept} == {"1-0", "row"}
    assert letter in kept


def test_a_row_that_can_not_be_written_at_all_is_a_dead_letter(database: Database) -> None:
    flow_session_id = new_id()
    rows = [task(flow_session_id, item=2**40), task(flow_session_id, item=1)]
    (refused,) = updates.write_rows(database, rows).refused
    assert "integer out of range" in refused.reason
    assert _row(database, flow_session_id, "status", item=1) == ("succeeded",)


def test_nothing_to_write_is_nothing_written(database: Database) -> None:
    assert updates.write_rows(database) == updates.Written(0)


@st.composite
def _histories(draw: st.DrawFn) -> list[TaskUpdate]:
    """Updates of a few tasks; like real ones, none ends before it begins, and the same sequence says the same."""
    keys = st.lists(st.tuples(st.sampled_from("ab"), st.integers(-1, 1)), min_size=1, max_size=4, unique=True)
    sequences = st.lists(st.integers(1, 12), min_size=1, max_size=5, unique=True)
    moments = st.none() | st.integers(NOON_US, NOON_US + 9)

    def drawn(action: str, item: int, sequence: int) -> TaskUpdate:
        started_us, finished_us = draw(moments), draw(moments)
        if started_us is not None and finished_us is not None:
            started_us = min(started_us, finished_us)
        return task(
            "drawn", action, item,
            status=draw(st.sampled_from(["pending", "running", "succeeded", "failed"])),
            sequence=sequence, attempt=draw(st.integers(1, 3)),
            queue=draw(st.sampled_from([None, f"queue of {action}"])), started_us=started_us, finished_us=finished_us,
            result=draw(st.none() | st.just('{"a": 1}')), error=draw(st.none() | st.just('"é"')),
        )  # fmt: skip

    return [drawn(action, item, sequence) for action, item in draw(keys) for sequence in draw(sequences)]


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), history=_histories())
def test_rows_in_any_order_repeated_in_any_batches_end_the_same(
    database: Database, data: st.DataObject, history: list[TaskUpdate]
) -> None:
    in_order = _after(database, [[row] for row in sorted(history, key=lambda row: row.sequence)])
    repeated = history + data.draw(st.lists(st.sampled_from(history), max_size=6))
    shuffled = data.draw(st.permutations(repeated))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(shuffled)), max_size=4)))
    batches = [shuffled[start:end] for start, end in zip([0, *cuts], [*cuts, len(shuffled)], strict=True)]
    assert _after(database, batches) == in_order


def _after(database: Database, batches: Sequence[Sequence[TaskUpdate]]) -> list[Row]:
    database.execute("DELETE FROM tasks WHERE flow_session_id = 'drawn'")
    for batch in batches:
        updates.write_rows(database, batch)
    return database.fetch(f"SELECT {_SAID} FROM tasks WHERE flow_session_id = 'drawn' ORDER BY action, item")


def _status(database: Database, flow_session_id: str) -> RunStatus:
    found = sessions.find_session(database, flow_session_id)
    assert found is not None
    return found.status


def test_rows_whose_commit_was_not_answered_are_written_again_without_harm(
    database: Database, database_url: str
) -> None:
    run = new_id()
    with Gate(database_url) as gate:
        behind = Database(gate.url)
        rows = [task(run, item=item, started_us=NOON_US + item) for item in range(50)]
        gate.cut_behind = b"COMMIT"
        with pytest.raises(ServiceUnreachable):
            updates.write_rows(behind, rows)
        count = "SELECT count(*), count(DISTINCT item) FROM tasks WHERE flow_session_id = %s"
        wait_until(lambda: database.fetch(count, (run,)) == [(50, 50)], "PostgreSQL has committed them all the same")
        before = database.fetch("SELECT * FROM tasks WHERE flow_session_id = %s ORDER BY item", (run,))
        updates.write_rows(behind, rows)
        assert database.fetch("SELECT * FROM tasks WHERE flow_session_id = %s ORDER BY item", (run,)) == before
        behind.close()


def test_an_end_whose_commit_was_not_answered_is_found_when_it_is_set_again(
    database: Database, database_url: str
) -> None:
    session = new_session(database)
    with Gate(database_url) as gate:
        behind = Database(gate.url)
        gate.cut_behind = b"UPDATE flow_sessions"
        key = (session.flow_session_id, session.session_day)
        with pytest.raises(ServiceUnreachable):
            sessions.finish_session(behind, *key, RunStatus.SUCCEEDED, b"1")
        status = "SELECT status FROM flow_sessions WHERE flow_session_id = %s"
        wait_until(lambda: database.fetch(status, key[:1]) == [("succeeded",)], "it was committed all the same")
        won, row = sessions.finish_session(behind, *key, RunStatus.FAILED, b"2")
        assert (won, row.status, row.output) == (False, RunStatus.SUCCEEDED, "1")
        behind.close()
