"""How much was recorded, as PostgreSQL counts by itself: for rates, without a look into any row."""

from __future__ import annotations

from dataclasses import dataclass

from orchestration.store.pool import Database


@dataclass(frozen=True, slots=True)
class Written:
    """Rows that were ever inserted: tasks (each once, whatever becomes of it) and flow sessions. Some seconds late."""

    tasks: int
    sessions: int


def written(database: Database) -> Written:
    """What PostgreSQL has counted; falls when the partitions of an old day are dropped."""
    rows = database.fetch(
        "SELECT (relname LIKE 'tasks%'), sum(n_tup_ins)::bigint FROM pg_stat_user_tables"
        " WHERE relname LIKE 'tasks%' OR relname LIKE 'flow_sessions%' GROUP BY 1"
    )
    found = {bool(is_tasks): int(number) for is_tasks, number in rows}
    return Written(found.get(True, 0), found.get(False, 0))
