"""What a picture of a flow session is drawn from: its tasks as columns, those that changed, counts over time, pages.

For the pages only, never for the engine. Times are µs from an origin that the caller names. What changed is found by
PostgreSQL's own snapshots: a **mark** is one, as text, and `changed_since` gives exactly the rows that were not visible
in it, however late they were committed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Any, Final, NamedTuple

from orchestration.store.pool import Database, Day
from orchestration.vocabulary import TaskStatus

#: The code of a status is its place here; shared with the page (`static/run_model.js`).
STATUSES: Final = tuple(TaskStatus)
_CODE = f"array_position(ARRAY[{','.join(repr(status.value) for status in STATUSES)}], status) - 1"
_MARK = re.compile(r"(\d{1,18}):(\d{1,18}):((?:\d{1,18}(?:,\d{1,18}){0,9999})?)", re.ASCII)


class TaskColumns(NamedTuple):
    """The tasks of one action, by item; one list for each column."""

    item: list[int]
    #: Places in STATUSES.
    status: list[int]
    attempt: list[int]
    worker: list[str | None]
    start_us: list[int | None]
    end_us: list[int | None]


class ChangedTask(NamedTuple):
    """A task that changed, with the codes and times of `TaskColumns`."""

    action: str
    item: int
    status: int
    attempt: int
    worker: str | None
    start_us: int | None
    end_us: int | None


@dataclass(frozen=True, slots=True)
class Bucket:
    """What began and what ended of one action in one stretch of time."""

    action: str
    #: 0 for what was before the window, then 1 to `bins`, then `bins + 1` for what came later.
    bin: int
    #: None for those that began, else the place of the status in STATUSES of those that ended.
    ended: int | None
    tasks: int
    #: The sum of the moments, µs from the origin.
    sum_us: float


@dataclass(frozen=True, slots=True)
class Choice:
    """Which tasks are wanted, and in which order."""

    #: None: of any status, of any action.
    statuses: tuple[TaskStatus, ...] | None = None
    action: str | None = None
    #: Those that took longest first, else by action and item.
    slowest: bool = False


@dataclass(frozen=True, slots=True)
class StoredTask:
    """A task with all that is recorded of it."""

    action: str
    item: int
    status: TaskStatus
    attempt: int
    queue: str | None
    worker: str | None
    started_at: datetime | None
    finished_at: datetime | None
    error: Any
    #: The beginning of its result as a JSON text, or None; and how long that is in all.
    result: str | None
    result_bytes: int


def is_mark(text: str) -> bool:
    """Whether a text that came from outside is a mark."""
    found = _MARK.fullmatch(text) if len(text) < 200_000 else None
    if found is None:
        return False
    first, last = int(found[1]), int(found[2])
    under_way = [int(number) for number in found[3].split(",")] if found[3] else []
    # as PostgreSQL wants it
    return 0 < first <= last and all(low <= number < last for low, number in pairwise([first, *under_way]))


def mark_now(database: Database) -> str:
    """The mark of this moment; take it before the rows are read."""
    return str(database.fetch("SELECT pg_current_snapshot()::text")[0][0])


def count_tasks(database: Database, flow_session_id: str, session_day: Day, most: int) -> int:
    """How many rows of tasks there are; counts no further than `most`."""
    rows = database.fetch(
        "SELECT count(*) FROM (SELECT 1 FROM tasks WHERE session_day = %s AND flow_session_id = %s LIMIT %s) AS found",
        (session_day, flow_session_id, most),
    )
    return int(rows[0][0])


def columns_of(database: Database, flow_session_id: str, session_day: Day, origin: datetime) -> dict[str, TaskColumns]:
    """All tasks of a flow session, by action; 50,000 take some 0.2 s."""
    rows = database.fetch(
        f"SELECT action, json_agg(item), json_agg({_CODE}), json_agg(attempt), json_agg(worker),"
        f" json_agg({_since('started_at')}), json_agg({_since('finished_at')})"
        " FROM (SELECT * FROM tasks WHERE session_day = %(day)s AND flow_session_id = %(id)s"
        " ORDER BY action, item) AS task GROUP BY action",
        {"day": session_day, "id": flow_session_id, "origin": origin},
    )
    return {row[0]: TaskColumns(*row[1:]) for row in rows}


def changed_since(
    database: Database, flow_session_id: str, session_day: Day, mark: str, origin: datetime, limit: int
) -> list[ChangedTask]:
    """The rows of tasks that were written after the mark was taken, at most `limit`; by their start.

    Raises: ValueError: the text is no mark.
    """
    if not is_mark(mark):
        raise ValueError("no mark; take one from mark_now")
    # `age` leaves out nearly all rows at little cost: those that are older than the oldest transaction that was under
    # way. Of the others it gives the whole number of their transaction, of which a row has 32 bits.
    oldest = int(mark.partition(":")[0])
    rows = database.fetch(
        f"SELECT action, item, {_CODE}, attempt, worker, {_since('started_at')}, {_since('finished_at')}"
        " FROM tasks, (SELECT age(%(oldest)s::text::xid8::xid) AS age) AS oldest"
        " WHERE session_day = %(day)s AND flow_session_id = %(id)s AND age(tasks.xmin) <= oldest.age"
        " AND NOT pg_visible_in_snapshot("
        " (%(oldest)s::bigint + oldest.age - age(tasks.xmin))::text::xid8, %(mark)s::pg_snapshot)"
        " ORDER BY started_at, action, item LIMIT %(limit)s",
        {"day": session_day, "id": flow_session_id, "origin": origin, "mark": mark, "limit": limit, "oldest": oldest},
    )
    return [ChangedTask(*row) for row in rows]


def buckets_of(
    database: Database,
    flow_session_id: str,
    session_day: Day,
    origin: datetime,
    window_us: tuple[int, int],
    bins: int,
    for_each: Sequence[str] = (),
) -> list[Bucket]:
    """How many tasks of each action began and ended in each of `bins` equal parts of a window of time.

    Args: for_each: actions whose own rows are left out, since they last as long as their items.
    """
    values = {
        "day": session_day, "id": flow_session_id, "origin": origin, "bins": bins,
        "from": float(window_us[0]), "to": float(max(window_us[1], window_us[0] + 1)), "each": list(for_each),
    }  # fmt: skip
    whose = (
        "FROM tasks WHERE session_day = %(day)s AND flow_session_id = %(id)s"
        " AND NOT (item = -1 AND action = ANY (%(each)s))"
    )
    rows = database.fetch(
        f"{_bucketed('started_at', 'NULL::int')} {whose} AND started_at IS NOT NULL GROUP BY 1, 2, 3 UNION ALL"
        f" {_bucketed('finished_at', _CODE)} {whose} AND started_at IS NOT NULL AND finished_at IS NOT NULL"
        " GROUP BY 1, 2, 3",
        values,
    )
    return [Bucket(*row) for row in rows]


def page_of(
    database: Database,
    flow_session_id: str,
    session_day: Day,
    origin: datetime,
    choice: Choice,
    after: Sequence[Any] | None = None,
    limit: int = 200,
) -> tuple[list[ChangedTask], list[Any] | None]:
    """A page of tasks.

    Args: after: what the page before gave as its second value.
    Returns: the rows, and where the next page begins; None at the end.
    """
    lasted = f"COALESCE({_since('finished_at')} - {_since('started_at')}, -1)"
    conditions = ["session_day = %(day)s", "flow_session_id = %(id)s"]
    values: dict[str, Any] = {"day": session_day, "id": flow_session_id, "origin": origin, "limit": limit + 1}
    if choice.statuses is not None:
        conditions.append("status = ANY (%(statuses)s)")
        values["statuses"] = [status.value for status in choice.statuses]
    if choice.action is not None:
        conditions.append("action = %(action)s")
        values["action"] = choice.action
    if after is not None:
        values |= {"after_lasted": after[0], "after_action": after[1], "after_item": after[2]}
        conditions.append(
            f"({lasted} < %(after_lasted)s OR {lasted} = %(after_lasted)s"
            " AND (action, item) > (%(after_action)s, %(after_item)s))"
            if choice.slowest
            else "(action, item) > (%(after_action)s, %(after_item)s)"
        )
    order = f"{lasted} DESC, action, item" if choice.slowest else "action, item"
    rows = database.fetch(
        f"SELECT action, item, {_CODE}, attempt, worker, {_since('started_at')}, {_since('finished_at')}, {lasted}"
        f" FROM tasks WHERE {' AND '.join(conditions)} ORDER BY {order} LIMIT %(limit)s",
        values,
    )
    following = None
    if len(rows) > limit:
        rows = rows[:limit]
        last = rows[-1]
        following = [last[7], last[0], last[1]]
    return [ChangedTask(*row[:7]) for row in rows], following


def load_task(
    database: Database, flow_session_id: str, session_day: Day, action: str, item: int, most_characters: int = 65_536
) -> StoredTask | None:
    """One task with the beginning of its result, None when nothing is recorded of it."""
    rows = database.fetch(
        "SELECT task.action, task.item, task.status, task.attempt, task.queue, task.worker, task.started_at,"
        " task.finished_at, task.error, left(task.result::text, %(most)s), octet_length(task.result::text),"
        " CASE WHEN task.result::text LIKE '{\"$stored\"%%' THEN"
        " substring(large.content FROM 1 FOR %(most)s) END, octet_length(large.content)"
        " FROM tasks AS task LEFT JOIN task_results AS large ON large.session_day = task.session_day"
        " AND large.flow_session_id = task.flow_session_id AND large.action = task.action AND large.item = task.item"
        " WHERE task.session_day = %(day)s AND task.flow_session_id = %(id)s AND task.action = %(action)s"
        " AND task.item = %(item)s",
        {"day": session_day, "id": flow_session_id, "action": action, "item": item, "most": most_characters},
    )
    if not rows:
        return None
    *_, error, result, size, large, large_size = rows[0]
    queue, worker, started_at, finished_at = rows[0][4:8]
    if large is not None:
        # cut anywhere: the last character may be half a one
        result, size = bytes(large).decode(errors="ignore"), large_size
    return StoredTask(
        action,
        item,
        TaskStatus(rows[0][2]),
        rows[0][3],
        queue,
        worker,
        started_at,
        finished_at,
        error,
        result,
        size or 0,
    )


def _bucketed(column: str, ended: str) -> str:
    at = f"{_since(column)}::float8"
    return f"SELECT action, width_bucket({at}, %(from)s, %(to)s, %(bins)s), {ended}, count(*), sum({at})"


def _since(column: str) -> str:
    # date_part, unlike extract, does not go through numeric: 5 times as fast.
    return f"(date_part('epoch', {column} - %(origin)s) * 1e6)::bigint"
