"""Partitions: made ahead whatever is in the way, dropped whole when all of their runs are old."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta, tzinfo

import pytest

from orchestration.store import migrate, results, retention, sessions, updates, workflows
from orchestration.store.pool import Database
from orchestration.store.task_logs import write_task_logs
from orchestration.telemetry.task_logs import TaskLogLine
from orchestration.vocabulary import RunStatus
from tests.integration.store.rows import DAY, NOON_US, new_session, task

TODAY = datetime.now(UTC).date()


@pytest.fixture
def fresh(empty_database_url: str) -> Iterator[Database]:
    migrate.upgrade(empty_database_url)
    database = Database(empty_database_url)
    yield database
    database.close()


def _partition_of(database: Database, flow_session_id: str, table: str = "tasks") -> str:
    (row,) = database.fetch(
        f"SELECT tableoid::regclass::text FROM {table} WHERE flow_session_id = %s", (flow_session_id,)
    )
    return str(row[0])


def _age(database: Database, session: sessions.SessionRow, days: int) -> date:
    """Make a session look as if it had been accepted and finished some days ago."""
    day = session.session_day - timedelta(days=days)
    for table in ("session_days", "flow_sessions", "tasks", "branches", "task_results", "task_logs"):
        database.execute(
            f"UPDATE {table} SET session_day = %s WHERE flow_session_id = %s", (day, session.flow_session_id)
        )
    database.execute(
        "UPDATE flow_sessions SET finished_at = finished_at - %s * interval '1 day' WHERE flow_session_id = %s",
        (days, session.flow_session_id),
    )
    return day


def test_the_next_days_have_partitions(fresh: Database) -> None:
    assert retention.ensure_partitions(fresh, 2) == ()
    assert retention.ensure_partitions(fresh, 4) == (TODAY + timedelta(3), TODAY + timedelta(4))
    session = new_session(fresh)
    assert _partition_of(fresh, session.flow_session_id, "flow_sessions") == f"flow_sessions_{TODAY:%Y%m%d}"


def test_rows_in_the_default_partition_move_to_the_new_one(fresh: Database) -> None:
    later = TODAY + timedelta(days=4)
    update = task("early", day=later.isoformat(), result=r'"\u0000"')
    updates.write_rows(fresh, [update])
    assert _partition_of(fresh, "early") == "tasks_default"
    retention.ensure_partitions(fresh, 4)
    assert _partition_of(fresh, "early") == f"tasks_{later:%Y%m%d}"
    updates.write_rows(fresh, [update._replace(sequence=200_005, status="failed")])
    assert fresh.fetch("SELECT status FROM tasks") == [("failed",)]


def test_old_days_are_dropped_with_all_their_rows(fresh: Database) -> None:
    old, young = new_session(fresh), new_session(fresh)
    for session in (old, young):
        sessions.finish_session(fresh, session.flow_session_id, session.session_day, RunStatus.SUCCEEDED)
        updates.write_rows(fresh, [task(session.flow_session_id)])
        results.put_result(fresh, session.flow_session_id, session.session_day, "work", -1, b"1")
        write_task_logs(fresh, [TaskLogLine(DAY, session.flow_session_id, "work", -1, 1, NOON_US, "info", "shop", "x")])
    day = _age(fresh, old, 31)
    assert retention.drop_old_partitions(fresh, 30) == retention.Dropped((day,))
    assert sessions.load_session(fresh, old.flow_session_id) is None
    for table in ("tasks", "task_results", "task_logs", "flow_sessions", "session_days"):
        assert fresh.fetch(f"SELECT flow_session_id FROM {table}") == [(young.flow_session_id,)]


def test_a_dropped_day_takes_its_partitions_with_it(fresh: Database) -> None:
    fresh.execute(
        "CREATE TABLE tasks_20200101 PARTITION OF tasks FOR VALUES FROM ('2020-01-01') TO ('2020-01-02');"
        "CREATE TABLE flow_sessions_20200101 PARTITION OF flow_sessions"
        " FOR VALUES FROM ('2020-01-01') TO ('2020-01-02')"
    )
    assert retention.drop_old_partitions(fresh, 30) == retention.Dropped((date(2020, 1, 1),))
    assert fresh.fetch("SELECT to_regclass('tasks_20200101'), to_regclass('flow_sessions_20200101')") == [(None, None)]


def test_a_day_stays_until_its_last_run_is_old(fresh: Database) -> None:
    running, ended = new_session(fresh), new_session(fresh)
    day = _age(fresh, running, 40)
    assert retention.drop_old_partitions(fresh, 30) == retention.Dropped((), (day,))
    sessions.finish_session(fresh, running.flow_session_id, day, RunStatus.FAILED)
    sessions.finish_session(fresh, ended.flow_session_id, ended.session_day, RunStatus.FAILED)
    assert retention.drop_old_partitions(fresh, 30) == retention.Dropped((), (day,))


def test_versions_that_nothing_needs_any_more_go_too(fresh: Database) -> None:
    for version_id, publish in (("unused", False), ("published", True), ("lately", False)):
        workflows.register_version(fresh, "w", version_id, {"name": "w"}, publish)
    session = new_session(fresh)
    fresh.execute("UPDATE workflow_versions SET published_at = NULL WHERE version_id = %s", (session.version_id,))
    fresh.execute(
        "UPDATE workflow_versions SET last_used_at = last_used_at - interval '31 days' WHERE version_id <> 'lately'"
    )
    retention.drop_old_partitions(fresh, 30)
    assert {row[0] for row in fresh.fetch("SELECT version_id FROM workflow_versions")} == {
        "published", "lately", session.version_id,
    }  # fmt: skip


def test_a_version_that_is_run_again_is_no_longer_old(fresh: Database) -> None:
    workflows.register_version(fresh, "w", "again", {"name": "w"}, publish=False)
    fresh.execute("UPDATE workflow_versions SET last_used_at = last_used_at - interval '31 days'")
    workflows.register_version(fresh, "w", "again", {"name": "w"}, publish=False)
    retention.drop_old_partitions(fresh, 30)
    assert workflows.load_version(fresh, "again").number == 1


class _AheadByYears(datetime):
    """The clock of a host that is wrong."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
        return super().now(tz) + timedelta(days=3650)


def test_a_host_whose_clock_is_ahead_drops_nothing_that_is_new(
    fresh: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = new_session(fresh)
    sessions.finish_session(fresh, session.flow_session_id, session.session_day, RunStatus.SUCCEEDED)
    monkeypatch.setattr(retention, "datetime", _AheadByYears)
    assert retention.ensure_partitions(fresh, 2) == ()
    assert retention.drop_old_partitions(fresh, 30) == retention.Dropped(())
    assert sessions.load_session(fresh, session.flow_session_id) is not None
