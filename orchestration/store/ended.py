"""How much has ended since the database was made, as metrics count it (store/totals.py): for rates."""

from __future__ import annotations

from dataclasses import dataclass

from orchestration.store.pool import Database

_READ = """
SELECT COALESCE(sum(count) FILTER (WHERE measure IN ('task', 'item')), 0)::bigint,
    COALESCE(sum(count) FILTER (WHERE measure = 'workflow'), 0)::bigint
FROM metric_counts WHERE measure IN ('task', 'item', 'workflow')
"""


@dataclass(frozen=True, slots=True)
class Ended:
    """What has ended, of all time; both only rise."""

    #: Items among them.
    tasks: int
    sessions: int


def read_ended(database: Database) -> Ended:
    """What has ended so far, as far as it is recorded."""
    ((tasks, sessions),) = database.fetch(_READ)
    return Ended(tasks, sessions)
