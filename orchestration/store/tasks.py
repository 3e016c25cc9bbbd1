"""What became of the tasks and branches of a flow session: for reports, never for the engine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from orchestration.store.pool import Database, Day, Row
from orchestration.vocabulary import TaskStatus

_COLUMNS = "action, item, status, attempt, queue, worker, started_at, finished_at, error"


@dataclass(frozen=True, slots=True)
class TaskRow:
    """A task as PostgreSQL knows it; `item` is NO_ITEM for one that is no item of a `for_each`."""

    action: str
    item: int
    status: TaskStatus
    attempt: int
    queue: str | None
    worker: str | None
    started_at: datetime | None
    finished_at: datetime | None
    #: As the engine recorded it: an object with `type` and `message`, or None.
    error: Any


@dataclass(frozen=True, slots=True)
class BranchRow:
    """A branch as PostgreSQL knows it."""

    branch: str
    status: TaskStatus
    attempt: int
    queue: str | None
    worker: str | None
    started_at: datetime | None
    finished_at: datetime | None
    #: How long it was ready and not claimed.
    waited_us: int | None


class ItemSpan(NamedTuple):
    """When an item ran, µs since the epoch; the same twice for one that never ran."""

    item: int
    worker: str | None
    start_us: int
    end_us: int


@dataclass(frozen=True, slots=True)
class ActionCounts:
    """The tasks of one action by status: one task, or the items of a `for_each`."""

    action: str
    counts: dict[TaskStatus, int]
    started_at: datetime | None
    finished_at: datetime | None


def tasks_of(
    database: Database,
    flow_session_id: str,
    session_day: Day,
    *,
    action: str | None = None,
    statuses: Iterable[TaskStatus] | None = None,
    items: bool = True,
    after: tuple[str, int] | None = None,
    limit: int | None = None,
) -> list[TaskRow]:
    """Tasks of a flow session, by action and item.

    Args: items: False leaves out the items of every `for_each`. after: action and item of the last row of the page
        before. limit: rows of a page; None for all.
    """
    conditions = ["session_day = %(day)s", "flow_session_id = %(id)s"]
    values: dict[str, Any] = {"day": session_day, "id": flow_session_id, "limit": limit}
    if action is not None:
        conditions.append("action = %(action)s")
        values["action"] = action
    if statuses is not None:
        conditions.append("status = ANY (%(statuses)s)")
        values["statuses"] = [status.value for status in statuses]
    if not items:
        conditions.append("item = -1")
    if after is not None:
        conditions.append("(action, item) > (%(after_action)s, %(after_item)s)")
        values |= {"after_action": after[0], "after_item": after[1]}
    rows = database.fetch(
        f"SELECT {_COLUMNS} FROM tasks WHERE {' AND '.join(conditions)} ORDER BY action, item LIMIT %(limit)s", values
    )
    return [_task(row) for row in rows]


def item_spans(
    database: Database, flow_session_id: str, session_day: Day, action: str, limit: int
) -> Iterator[ItemSpan]:
    """The items of a `for_each` that have ended, by item: nothing more of them, since they may be many."""
    with database.stream(
        "SELECT item, worker, (date_part('epoch', COALESCE(started_at, finished_at)) * 1e6)::bigint,"
        " (date_part('epoch', finished_at) * 1e6)::bigint FROM tasks WHERE session_day = %s AND flow_session_id = %s"
        " AND action = %s AND item >= 0 AND finished_at IS NOT NULL ORDER BY item LIMIT %s",
        (session_day, flow_session_id, action, limit),
    ) as rows:
        yield from map(ItemSpan._make, rows)


def failed_tasks(database: Database, flow_session_id: str, session_day: Day, limit: int = 20) -> list[TaskRow]:
    """The first tasks that failed or ran out of time, by their end."""
    rows = database.fetch(
        f"SELECT {_COLUMNS} FROM tasks WHERE session_day = %s AND flow_session_id = %s"
        " AND status IN ('failed', 'timed_out') ORDER BY finished_at NULLS LAST, action, item LIMIT %s",
        (session_day, flow_session_id, limit),
    )
    return [_task(row) for row in rows]


def item_counts_of(
    database: Database, flow_session_id: str, session_day: Day, actions: Iterable[str]
) -> dict[str, dict[str, int]]:
    """What each `for_each` of `actions` that has ended recorded: numbers of items, `total` and by status."""
    rows = database.fetch(
        "SELECT action, result FROM tasks WHERE session_day = %s AND flow_session_id = %s AND item = -1"
        " AND action = ANY (%s) AND result IS NOT NULL",
        (session_day, flow_session_id, list(actions)),
    )
    return {action: result for action, result in rows if isinstance(result, dict) and "total" in result}


def branches_of(database: Database, flow_session_id: str, session_day: Day) -> list[BranchRow]:
    """The branches of a flow session by name; items of a `for_each` are tasks, not rows here."""
    rows = database.fetch(
        "SELECT branch, status, attempt, queue, worker, started_at, finished_at, waited_us FROM branches"
        " WHERE session_day = %s AND flow_session_id = %s ORDER BY branch",
        (session_day, flow_session_id),
    )
    return [BranchRow(row[0], TaskStatus(row[1]), *row[2:]) for row in rows]


def counts_by_action(
    database: Database, flow_session_id: str, session_day: Day, actions: Iterable[str] | None = None, *, items: bool
) -> dict[str, ActionCounts]:
    """Tasks by status for each action that has any.

    Args: actions: only these. items: True counts the items of each `for_each`, False the tasks that are no items.
    """
    chosen = "" if actions is None else " AND action = ANY (%(actions)s)"
    values = {"day": session_day, "id": flow_session_id, "actions": None if actions is None else list(actions)}
    rows = database.fetch(
        "SELECT action, status, count(*), min(started_at), max(finished_at) FROM tasks"
        f" WHERE session_day = %(day)s AND flow_session_id = %(id)s{chosen} AND item {'>=' if items else '<'} 0"
        " GROUP BY action, status ORDER BY action",
        values,
    )
    found: dict[str, ActionCounts] = {}
    for action, status, count, started_at, finished_at in rows:
        known = found.get(action) or ActionCounts(action, {}, None, None)
        starts = [moment for moment in (known.started_at, started_at) if moment is not None]
        ends = [moment for moment in (known.finished_at, finished_at) if moment is not None]
        found[action] = ActionCounts(
            action, known.counts | {TaskStatus(status): count}, min(starts, default=None), max(ends, default=None)
        )
    return found


def _task(row: Row) -> TaskRow:
    return TaskRow(row[0], row[1], TaskStatus(row[2]), *row[3:])
