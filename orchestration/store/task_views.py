"""What expressions read of a task that has settled, from the record: for reports, never for the engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from orchestration.store import json_text, results
from orchestration.store.pool import Database, Day
from orchestration.vocabulary import NO_ITEM, TaskStatus

#: Bytes of results that are read of one task, or of all items of one `for_each`.
MOST_BYTES: Final = 4_194_304


class TooLarge(Exception):
    """A result has more than MOST_BYTES."""


@dataclass(frozen=True, slots=True)
class SettledTask:
    """A task that is no item, with its result; of a `for_each` the result is how many items ended how."""

    status: TaskStatus
    error: Any
    result: Any


def settled_task(database: Database, flow_session_id: str, session_day: Day, action: str) -> SettledTask | None:
    """The task, or None when it has not settled as far as is recorded.

    Raises: TooLarge.
    """
    rows = database.fetch(
        "SELECT task.status, task.error, octet_length(task.result::text),"
        " CASE WHEN octet_length(task.result::text) <= %(most)s THEN task.result::text END"
        " FROM tasks AS task WHERE session_day = %(day)s AND flow_session_id = %(id)s AND action = %(action)s"
        " AND item = %(item)s",
        {"day": session_day, "id": flow_session_id, "action": action, "item": NO_ITEM, "most": MOST_BYTES},
    )
    if not rows or not TaskStatus(rows[0][0]).is_final:
        return None
    status, error, size, text = rows[0]
    if size is not None and text is None:
        raise TooLarge(f"the result of {action} has {size:,} bytes")
    if text is not None and results.is_stored_mark(text):
        text = _stored(database, flow_session_id, session_day, action)
    return SettledTask(TaskStatus(status), error, None if text is None else json_text.load(text))


def status_of(database: Database, flow_session_id: str, session_day: Day, action: str) -> TaskStatus | None:
    """The status of a task that is no item, None when nothing is recorded of it."""
    rows = database.fetch(
        "SELECT status FROM tasks WHERE session_day = %s AND flow_session_id = %s AND action = %s AND item = %s",
        (session_day, flow_session_id, action, NO_ITEM),
    )
    return TaskStatus(rows[0][0]) if rows else None


def item_results(database: Database, flow_session_id: str, session_day: Day, action: str, size: int) -> list[object]:
    """Results of the items of a `for_each` that has settled, in order; None where an item did not succeed.

    Raises: TooLarge. WorkflowExecutionError: not all have been recorded.
    """
    whole = database.fetch(
        "SELECT coalesce(sum(octet_length(task.result::text) + coalesce(octet_length(large.content), 0)), 0)"
        " FROM tasks AS task LEFT JOIN task_results AS large ON large.session_day = task.session_day"
        " AND large.flow_session_id = task.flow_session_id AND large.action = task.action AND large.item = task.item"
        " WHERE task.session_day = %s AND task.flow_session_id = %s AND task.action = %s AND task.item >= 0",
        (session_day, flow_session_id, action),
    )[0][0]
    if whole > MOST_BYTES:
        raise TooLarge(f"the results of {action} have {whole:,} bytes")
    return results.item_results(database, flow_session_id, session_day, action, size, wait_seconds=0)


def _stored(database: Database, flow_session_id: str, session_day: Day, action: str) -> bytes | None:
    rows = database.fetch(
        "SELECT octet_length(content), CASE WHEN octet_length(content) <= %s THEN content END FROM task_results"
        " WHERE session_day = %s AND flow_session_id = %s AND action = %s AND item = %s",
        (MOST_BYTES, session_day, flow_session_id, action, NO_ITEM),
    )
    if not rows:
        return None
    if rows[0][1] is None:
        raise TooLarge(f"the result of {action} has {rows[0][0]:,} bytes")
    return bytes(rows[0][1])
