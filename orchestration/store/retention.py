"""Daily partitions: made ahead, dropped whole when their runs are old. `upkeep` and `migrate` call this.

A day without a partition is no fault: its rows are in the DEFAULT one, and move when the day gets its own.

Which day it is says PostgreSQL, which also says on which day a run was accepted: a host whose clock is months ahead
would drop what is new.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from orchestration.store.pool import Cursor, Database
from orchestration.telemetry.probes import probed

#: Tables that are partitioned by `session_day`.
PARTITIONED = ("flow_sessions", "branches", "tasks", "task_results", "task_logs")
#: One process at a time works on partitions; any number that nobody else takes in this database.
ADVISORY_LOCK = 0x707A2070617274
#: A partition is attached or dropped only if nobody holds the tables for so long; else the next round does it.
LOCK_TIMEOUT = "5s"

#: Not `to_regclass`: it may answer from a cache that is older than the lock we waited for.
_TABLES = """
SELECT relname::text FROM pg_class WHERE relname = ANY (%s)
    AND relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = 'tasks'::regclass)
"""

_OLD_DAY = """
SELECT NOT EXISTS (SELECT 1 FROM flow_sessions WHERE session_day = %(day)s
    AND (finished_at IS NULL OR finished_at >= %(keep_from)s))
"""

#: Versions of runs that were never published and of which no run is left.
_UNUSED_VERSIONS = """
DELETE FROM workflow_versions AS version WHERE published_at IS NULL AND last_used_at < %s
    AND NOT EXISTS (SELECT 1 FROM flow_sessions WHERE flow_sessions.version_id = version.version_id)
"""


@dataclass(frozen=True, slots=True)
class Dropped:
    """What retention removed."""

    days: tuple[date, ...]
    #: Old days that stay because a run of them has not ended, or ended lately.
    kept_days: tuple[date, ...] = ()


@probed("sql.ensure_partitions")
def ensure_partitions(database: Database, days_ahead: int = 2) -> tuple[date, ...]:
    """Today and the next `days_ahead` days have partitions of their own.

    Returns: the days that got one; rows of these days that were in a DEFAULT partition have moved there.
    Raises: ServiceUnreachable: a lock was not to be had for 5 s; nothing is lost, the next call does it.
    """
    today = _now(database).date()
    wanted = [today + timedelta(days=ahead) for ahead in range(days_ahead + 1)]
    names = [_name(table, day) for table in PARTITIONED for day in wanted]
    there = {row[0] for row in database.fetch(_TABLES, (names,))}
    made = []
    for day in wanted:
        if all(_name(table, day) in there for table in PARTITIONED):
            continue
        # One transaction for each day: the tables are locked as shortly as possible.
        with database.transaction() as cursor:
            _lock(cursor)
            cursor.execute(_TABLES, (names,))
            there = {row[0] for row in cursor.fetchall()}
            missing = [table for table in PARTITIONED if _name(table, day) not in there]
            for table in missing:
                _make_partition(cursor, table, day)
        if missing:
            made.append(day)
    return tuple(made)


@probed("sql.drop_old_partitions")
def drop_old_partitions(database: Database, retention_days: int) -> Dropped:
    """Runs that ended more than `retention_days` days ago are gone, day by day, with all their rows.

    A day stays as long as one of its runs has not ended or ended within the retention. Also gone are versions that
    were never published and have no run left, and old dead letters.
    """
    keep_from = _now(database) - timedelta(days=retention_days)
    rows = database.fetch(
        "SELECT DISTINCT session_day FROM session_days WHERE session_day < %s ORDER BY session_day", (keep_from.date(),)
    )
    days = sorted({row[0] for row in rows} | _partition_days(database, keep_from.date()))
    dropped, kept = [], []
    for day in days:
        with database.transaction() as cursor:
            _lock(cursor)
            cursor.execute(_OLD_DAY, {"day": day, "keep_from": keep_from})
            found = cursor.fetchone()
            if found is None or not found[0]:
                kept.append(day)
                continue
            _drop_day(cursor, day)
        dropped.append(day)
    database.execute(_UNUSED_VERSIONS, (keep_from,))
    database.execute("DELETE FROM status_dead_letters WHERE received_at < %s", (keep_from,))
    return Dropped(tuple(dropped), tuple(kept))


def _now(database: Database) -> datetime:
    moment: datetime = database.fetch("SELECT clock_timestamp()")[0][0]
    return moment.astimezone(UTC)


def _lock(cursor: Cursor) -> None:
    cursor.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
    cursor.execute("SELECT pg_advisory_xact_lock(%s)", (ADVISORY_LOCK,))


def _name(table: str, day: date) -> str:
    return f"{table}_{day:%Y%m%d}"


def _partition_days(database: Database, before: date) -> set[date]:
    rows = database.fetch(
        "SELECT right(child.relname, 8) FROM pg_inherits JOIN pg_class AS child ON child.oid = inhrelid"
        " WHERE inhparent = 'flow_sessions'::regclass AND child.relname ~ '^flow_sessions_[0-9]{8}$'"
    )
    days = {datetime.strptime(row[0], "%Y%m%d").replace(tzinfo=UTC).date() for row in rows}
    return {day for day in days if day < before}


def _make_partition(cursor: Cursor, table: str, day: date) -> None:
    """A table beside the others, filled from the DEFAULT partition, then attached.

    Until the commit nobody reads or writes a DEFAULT partition (milliseconds, unless days went there); the other
    partitions are used as ever: ATTACH, unlike CREATE … PARTITION OF, locks the parent against nothing but changes of
    its shape.
    """
    part, rest, following = _name(table, day), f"{table}_default", day + timedelta(days=1)
    cursor.execute(f"CREATE TABLE {part} (LIKE {table} INCLUDING DEFAULTS INCLUDING CONSTRAINTS)")
    # From here on nobody adds rows of the day to the DEFAULT partition.
    cursor.execute(f"LOCK TABLE {rest} IN ACCESS EXCLUSIVE MODE")
    cursor.execute(
        f"WITH moved AS (DELETE FROM {rest} WHERE session_day >= %s AND session_day < %s RETURNING *)"
        f" INSERT INTO {part} SELECT * FROM moved",
        (day, following),
    )
    cursor.execute(f"ALTER TABLE {table} ATTACH PARTITION {part} FOR VALUES FROM (%s) TO (%s)", (day, following))


def _drop_day(cursor: Cursor, day: date) -> None:
    for table in PARTITIONED:
        cursor.execute(f"DROP TABLE IF EXISTS {_name(table, day)}")
        cursor.execute(f"DELETE FROM {table}_default WHERE session_day = %s", (day,))
    cursor.execute("DELETE FROM session_days WHERE session_day = %s", (day,))
