"""Many flow sessions at once: by page, by status, by the beginning of an id, and counted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timedelta

import pytest

from orchestration.store import sessions
from orchestration.store.pool import Database
from orchestration.store.run_lists import RunFilter, count_newer, count_runs, find_runs, runs_of, workflow_names
from orchestration.store.sessions import SessionRow
from orchestration.vocabulary import RunStatus
from tests.integration.store.rows import new_id, new_session

STATUSES = (RunStatus.SUCCEEDED, RunStatus.FAILED, RunStatus.CANCELLED, RunStatus.RUNNING)


@pytest.fixture
def database(database_server: object, migrated_template: str) -> Iterator[Database]:
    """A database of its own: what is counted is what the test has made."""
    name = f"l_{new_id()[:12]}"
    with closing(Database(database_server.create(name, migrated_template))) as database:  # type: ignore[attr-defined]
        yield database
    database_server.drop(name)  # type: ignore[attr-defined]


def runs(database: Database, count: int, workflow: str = "w") -> list[SessionRow]:
    """Runs in all statuses, over some time, the newest first; two of each three at one moment."""
    made = []
    for number in range(count):
        row = new_session(database, workflow)
        status = STATUSES[number % len(STATUSES)]
        if status.is_final:
            sessions.finish_session(database, row.flow_session_id, row.session_day, status, counts={"succeeded": 1})
        database.execute(
            "UPDATE flow_sessions SET created_at = created_at - make_interval(mins => %s) WHERE flow_session_id = %s",
            (number // 3 * 5, row.flow_session_id),
        )
        made.append(row.flow_session_id)
    found = runs_of(database, made)
    assert len(found) == count
    return sorted(found.values(), key=lambda row: (row.created_at, row.flow_session_id), reverse=True)


def ids(rows: list[SessionRow]) -> list[str]:
    return [row.flow_session_id for row in rows]


@pytest.mark.parametrize(
    "statuses", [(), (RunStatus.FAILED,), (RunStatus.RUNNING, RunStatus.CANCELLED), tuple(RunStatus)]
)
def test_pages_together_have_each_run_once_in_order(database: Database, statuses: tuple[RunStatus, ...]) -> None:
    every = runs(database, 25)
    wanted = RunFilter(frozenset(statuses))
    seen: list[SessionRow] = []
    while page := find_runs(database, wanted, 4, (seen[-1].created_at, seen[-1].flow_session_id) if seen else None):
        assert len(page) <= 4
        seen += page
    assert ids(seen) == ids([row for row in every if not statuses or row.status in statuses])


def test_runs_are_found_by_workflow_time_and_the_beginning_of_their_id(database: Database) -> None:
    every = runs(database, 9) + runs(database, 2, "other")
    assert {row.workflow for row in find_runs(database, RunFilter(workflow="other"), 50)} == {"other"}
    assert find_runs(database, RunFilter(workflow="nothing"), 50) == []
    newest = max(row.created_at for row in every)
    within = RunFilter(since=newest - timedelta(minutes=6), until=newest)
    assert set(ids(find_runs(database, within, 50))) == {
        row.flow_session_id for row in every if newest - timedelta(minutes=6) <= row.created_at < newest
    }
    one = every[4].flow_session_id
    assert ids(find_runs(database, RunFilter(id_prefix=one[:9]), 50)) == [one]
    assert ids(find_runs(database, RunFilter(id_prefix="no such", ids=(one,)), 50)) == [one]
    assert find_runs(database, RunFilter(id_prefix="%"), 50) == []
    assert find_runs(database, RunFilter(frozenset({RunStatus.QUEUED}), id_prefix=one), 50) == []


def test_counts_stop_at_a_bound(database: Database) -> None:
    every = runs(database, 20)
    counts = count_runs(database, RunFilter(), 3)
    assert counts[RunStatus.FAILED] == 3
    assert counts[RunStatus.QUEUED] == 0
    assert count_runs(database, RunFilter(), 100)[RunStatus.FAILED] == 5
    assert count_runs(database, RunFilter(workflow="other"), 100)[RunStatus.FAILED] == 0
    seventh = every[7]
    place: tuple[datetime, str] = (seventh.created_at, seventh.flow_session_id)
    assert count_newer(database, RunFilter(), place, 100) == 7
    assert count_newer(database, RunFilter(), place, 5) == 5
    failed = sum(row.status is RunStatus.FAILED for row in every[:7])
    assert count_newer(database, RunFilter(frozenset({RunStatus.FAILED})), place, 100) == failed


def test_names_of_workflows_are_listed(database: Database) -> None:
    runs(database, 1, "b")
    runs(database, 1, "a")
    assert workflow_names(database, 10) == ["a", "b"]
    assert workflow_names(database, 1) == ["a"]


def test_a_page_of_runs_that_did_not_succeed_is_read_from_an_index(database: Database) -> None:
    runs(database, 4)
    with database.transaction() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off")
        cursor.execute(
            "EXPLAIN SELECT 1 FROM flow_sessions WHERE status = 'failed'"
            " ORDER BY created_at DESC, flow_session_id DESC LIMIT 5"
        )
        plan = cursor.fetchall()
    assert any("status_created_at_flow_session_id_idx" in line for (line,) in plan)
