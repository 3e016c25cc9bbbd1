"""Which branches and tasks of a flow session have changed since one last looked.

No column says so, and none is needed: PostgreSQL knows which transaction wrote a row (`xmin`). A mark is the oldest
transaction that had not ended when it was taken, so what is read by it misses nothing that was committed late, and may
bring rows a second time; their `sequence` tells. One look reads all rows of the session (0.3 s for a million).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from orchestration.store.pool import Database, Day, Row
from orchestration.vocabulary import TaskStatus

_MARK = "SELECT (pg_snapshot_xmin(pg_current_snapshot())::text::numeric %% 4294967296)::text"
_SINCE = " AND (%(mark)s IS NULL OR age(xmin) <= age(%(mark)s::text::xid))"
_BRANCHES = f"""
SELECT branch, NULL, status, attempt, sequence, queue, worker, started_at, finished_at, NULL FROM branches
WHERE session_day = %(day)s AND flow_session_id = %(id)s{_SINCE}
"""
_TASKS = f"""
SELECT action, item, status, attempt, sequence, queue, worker, started_at, finished_at, error FROM tasks
WHERE session_day = %(day)s AND flow_session_id = %(id)s{_SINCE}
"""


@dataclass(frozen=True, slots=True)
class Change:
    """A branch or task as it is now."""

    #: Of the branch, or of the action.
    name: str
    #: NO_ITEM for a task that is no item; None for a branch.
    item: int | None
    status: TaskStatus
    attempt: int
    sequence: int
    queue: str | None
    worker: str | None
    started_at: datetime | None
    finished_at: datetime | None
    error: Any


def take_mark(database: Database) -> str:
    """A mark for `changes_since`: take it first, then read by the one before."""
    return str(database.fetch(_MARK, {})[0][0])


def changes_since(database: Database, flow_session_id: str, session_day: Day, mark: str | None) -> list[Change]:
    """Branches and tasks of a flow session that were written since a mark was taken; all of them by None."""
    values = {"day": session_day, "id": flow_session_id, "mark": mark}
    return [_change(row) for query in (_BRANCHES, _TASKS) for row in database.fetch(query, values)]


def _change(row: Row) -> Change:
    return Change(row[0], row[1], TaskStatus(row[2]), *row[3:])
