"""Flow sessions: accepted once, ended once, listed in pages."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from orchestration.errors import UnknownRun
from orchestration.store import sessions
from orchestration.store.pool import Database
from orchestration.vocabulary import RunStatus
from tests.integration.store.rows import new_id, new_session


def test_a_session_is_accepted_once_whoever_asks(database: Database) -> None:
    first = new_session(database)
    again = sessions.insert_session(
        database, first.flow_session_id, workflow="demo", version_id=first.version_id, version=1, payload=b'{"b": 2}'
    )
    assert (first.created, again.created) == (True, False)
    assert again.payload == first.payload == '{"a": 1}'
    assert again.session_day == first.session_day == first.created_at.date()
    assert first.started_at == first.created_at


def test_a_message_that_comes_again_on_another_day_finds_its_session(database: Database) -> None:
    first = new_session(database)
    yesterday = first.session_day - timedelta(days=1)
    for table in ("session_days", "flow_sessions"):
        database.execute(
            f"UPDATE {table} SET session_day = %s WHERE flow_session_id = %s", (yesterday, first.flow_session_id)
        )
    again = sessions.insert_session(
        database, first.flow_session_id, workflow="demo", version_id=first.version_id, version=1
    )
    assert (again.created, again.session_day) == (False, yesterday)
    assert database.fetch(
        "SELECT count(*) FROM flow_sessions WHERE flow_session_id = %s", (first.flow_session_id,)
    ) == [(1,)]


def test_of_many_who_insert_at_once_one_creates(database: Database) -> None:
    version_id, flow_session_id = new_session(database).version_id, new_id()

    def insert(_: int) -> bool:
        return sessions.insert_session(
            database, flow_session_id, workflow="demo", version_id=version_id, version=1
        ).created

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(insert, range(12))) == [False] * 11 + [True]


def test_of_many_who_finish_at_once_one_wins_and_all_read_the_same(database: Database) -> None:
    row = new_session(database)

    def finish(number: int) -> tuple[bool, sessions.SessionRow]:
        return sessions.finish_session(
            database,
            row.flow_session_id,
            row.session_day,
            RunStatus.SUCCEEDED,
            f"{number}",
            None,
            {"succeeded": number},
        )

    with ThreadPoolExecutor(4) as pool:
        ended = list(pool.map(finish, range(12)))
    assert sum(won for won, _ in ended) == 1
    assert len({found.output for _, found in ended}) == 1
    (winner,) = [found for won, found in ended if won]
    assert winner.counts == {"succeeded": int(winner.output or "")}
    assert winner.duration_seconds is not None
    assert winner.duration_seconds > 0


def test_a_final_status_never_changes(database: Database) -> None:
    row = new_session(database)
    key = (row.flow_session_id, row.session_day)
    sessions.finish_session(database, *key, RunStatus.FAILED, error=b'{"message": "no"}')
    assert not sessions.set_status(database, *key, [RunStatus.RUNNING], RunStatus.PAUSED)
    won, found = sessions.finish_session(database, *key, RunStatus.SUCCEEDED)
    assert (won, found.status, found.error) == (False, RunStatus.FAILED, '{"message": "no"}')
    with pytest.raises(ValueError, match="finish_session"):
        sessions.set_status(database, *key, [RunStatus.FAILED], RunStatus.RUNNING)
    with pytest.raises(ValueError, match="no final status"):
        sessions.finish_session(database, *key, RunStatus.PAUSED)


def test_a_status_changes_only_from_the_expected_one(database: Database) -> None:
    row = new_session(database)
    key = (row.flow_session_id, row.session_day)
    assert not sessions.set_status(database, *key, [RunStatus.QUEUED], RunStatus.PAUSED)
    assert sessions.set_status(database, *key, [RunStatus.RUNNING, RunStatus.QUEUED], RunStatus.SUSPENDED)
    found = sessions.load_session(database, row.flow_session_id)
    assert found is not None
    assert found.status is RunStatus.SUSPENDED


def test_a_queued_session_starts_when_it_runs(database: Database) -> None:
    version_id = new_session(database).version_id
    row = sessions.insert_session(
        database, new_id(), workflow="demo", version_id=version_id, version=1, status=RunStatus.QUEUED
    )
    assert row.started_at is None
    sessions.set_status(database, row.flow_session_id, row.session_day, [RunStatus.QUEUED], RunStatus.RUNNING)
    found = sessions.find_session(database, row.flow_session_id)
    assert found is not None
    assert found.started_at is not None


def test_what_is_not_there_is_none(database: Database) -> None:
    assert sessions.load_session(database, "nothing") is None
    assert sessions.find_session(database, "nothing") is None
    with pytest.raises(UnknownRun):
        sessions.finish_session(database, "nothing", "2026-01-01", RunStatus.FAILED)


@pytest.mark.parametrize("text", [r'"\u0000"', r'"\ud800"', "1e999999", "9" * 400, '{"b": 1, "a": [null, "é"]}'])
def test_any_json_comes_back_as_it_was_given(database: Database, text: str) -> None:
    row = new_session(database)
    _, ended = sessions.finish_session(
        database, row.flow_session_id, row.session_day, RunStatus.SUCCEEDED, output=text.encode()
    )
    assert ended.output == text


def test_sessions_are_listed_in_pages_the_newest_first(database: Database) -> None:
    rows = [new_session(database, "paged") for _ in range(7)]
    expected = [row.flow_session_id for row in reversed(rows)]
    found: list[sessions.SessionRow] = []
    while page := sessions.list_sessions(database, workflow="paged", limit=3, before=found[-1] if found else None):
        found += page
    assert [row.flow_session_id for row in found] == expected


def test_sessions_are_listed_by_status(database: Database) -> None:
    rows = [new_session(database, "by-status") for _ in range(3)]
    sessions.finish_session(database, rows[0].flow_session_id, rows[0].session_day, RunStatus.FAILED)
    sessions.finish_session(database, rows[1].flow_session_id, rows[1].session_day, RunStatus.SUCCEEDED)

    def listed(status: RunStatus | list[RunStatus]) -> set[str]:
        return {row.flow_session_id for row in sessions.list_sessions(database, status=status, workflow="by-status")}

    ids = [row.flow_session_id for row in rows]
    assert listed(RunStatus.FAILED) == {ids[0]}
    assert listed([RunStatus.FAILED, RunStatus.RUNNING]) == {ids[0], ids[2]}


@pytest.mark.parametrize("started", ["started_at + interval '1 hour'", "NULL"])
def test_no_session_ends_before_it_began_when_the_server_that_accepted_it_was_ahead(
    database: Database, started: str
) -> None:
    row = new_session(database)
    database.execute(
        f"UPDATE flow_sessions SET created_at = created_at + interval '1 hour', started_at = {started}"
        " WHERE flow_session_id = %s",
        (row.flow_session_id,),
    )
    _, ended = sessions.finish_session(database, row.flow_session_id, row.session_day, RunStatus.SUCCEEDED)
    assert ended.duration_seconds == 0.0
    assert ended.created_at == ended.started_at
