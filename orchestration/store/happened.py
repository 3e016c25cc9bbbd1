"""What happened in a flow session, in the order of time: for reports, never for the engine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any, NamedTuple

from orchestration.store.pool import Database, Day
from orchestration.vocabulary import NO_ITEM


class Happening(NamedTuple):
    """A task began or ended; `item` is NO_ITEM for one that is no item."""

    at: datetime
    #: task_started or task_ended.
    kind: str
    action: str
    item: int
    status: str
    attempt: int
    worker: str | None
    #: From its start to its end; None for a start, and for what never ran.
    seconds: float | None
    error: Any


# A start is told by the row as it is now, so its status may be that of the end.
_HAPPENED = """
SELECT at, kind, action, item, status, attempt, worker, seconds, error FROM (
    SELECT started_at AS at, 'task_started' AS kind, action, item, 'running' AS status, attempt, worker,
        NULL::float8 AS seconds, NULL::json AS error
    FROM tasks WHERE session_day = %(day)s AND flow_session_id = %(id)s AND started_at > %(since)s
    UNION ALL
    SELECT finished_at, 'task_ended', action, item, status, attempt, worker,
        extract(epoch FROM finished_at - started_at)::float8, error
    FROM tasks WHERE session_day = %(day)s AND flow_session_id = %(id)s AND finished_at > %(since)s
) AS happened ORDER BY at, kind DESC, action, item
"""


@contextmanager
def happenings(
    database: Database, flow_session_id: str, session_day: Day, since: datetime
) -> Iterator[Iterator[Happening]]:
    """What began and ended after a moment, as a stream: memory does not grow with it."""
    values = {"day": session_day, "id": flow_session_id, "since": since}
    with database.stream(_HAPPENED, values) as rows:
        yield (Happening(*row) for row in rows)


def happening_json(one: Happening) -> dict[str, Any]:
    """The fields that scripts rely on, but for `at`."""
    return {
        "event": one.kind, "action": one.action, "item": None if one.item == NO_ITEM else one.item,
        "status": one.status, "attempt": one.attempt, "worker": one.worker, "seconds": one.seconds, "error": one.error,
    }  # fmt: skip
