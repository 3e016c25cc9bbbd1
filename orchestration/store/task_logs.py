"""What tasks logged: written in batches by the processes that run them (telemetry/task_logs.py), read page by page.

Writers take turns (an advisory lock), so ids rise in the order in which lines are committed: who has read up to an id
has missed none before it. A batch whose commit was not answered is written again, and its lines may be there twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from orchestration.store.pool import Database, Day, Row
from orchestration.telemetry.probes import probed
from orchestration.telemetry.task_logs import TaskLogLine

#: One writer at a time; any number that nobody else takes in this database.
ADVISORY_LOCK: Final = 0x707A206C6F6773
#: From the least to the worst.
LEVELS: Final = ("debug", "info", "warning", "error", "critical")

_INSERT = """
INSERT INTO task_logs (session_day, flow_session_id, action, item, attempt, logged_at, level, logger, message, fields)
SELECT day::date, session, action, item, attempt, to_timestamp(us / 1e6::double precision), level, logger, message,
    fields::json
FROM unnest(%s::text[], %s::text[], %s::text[], %s::int[], %s::int[], %s::bigint[], %s::text[], %s::text[], %s::text[],
    %s::text[]) AS new (day, session, action, item, attempt, us, level, logger, message, fields)
"""
_COLUMNS = "id, action, item, attempt, logged_at, level, logger, message, fields"


@dataclass(frozen=True, slots=True)
class LoggedLine:
    """A line as it was kept; `item` is NO_ITEM for a task that is no item of a `for_each`."""

    #: Rises in the order in which lines were recorded.
    id: int
    action: str
    item: int
    attempt: int
    #: By Redis's clock.
    logged_at: datetime
    level: str
    logger: str
    message: str
    #: What the call brought along as `extra`: an object, or None.
    fields: Any

    @property
    def place(self) -> tuple[datetime, int]:
        """Where it stands in the order of `lines_by_time`."""
        return self.logged_at, self.id


@probed("sql.write_task_logs")
def write_task_logs(database: Database, lines: Sequence[TaskLogLine]) -> None:
    """The lines are committed.

    Raises: ServiceUnreachable: they are not, or, rarely, they are; call again with the same lines.
    """
    columns = [list(column) for column in zip(*lines, strict=True)]
    with database.transaction() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", (ADVISORY_LOCK,))
        cursor.execute(_INSERT, columns)


def lines_by_time(
    database: Database,
    flow_session_id: str,
    session_day: Day,
    *,
    action: str | None = None,
    item: int | None = None,
    level: str = LEVELS[0],
    after: tuple[datetime, int] | None = None,
    limit: int = 500,
) -> list[LoggedLine]:
    """A page of what a flow session logged, by time.

    Args: action, item: of this task only. level: this and worse. after: `place` of the last line of the page before.
    """
    conditions, values = _narrowed(flow_session_id, session_day, action, item, level)
    if after is not None:
        conditions.append("(logged_at, id) > (%(after_at)s, %(after_id)s)")
        values |= {"after_at": after[0], "after_id": after[1]}
    return _fetch(database, conditions, values, "logged_at, id", limit)


def lines_since(
    database: Database,
    flow_session_id: str,
    session_day: Day,
    *,
    action: str | None = None,
    item: int | None = None,
    level: str = LEVELS[0],
    after_id: int = 0,
    limit: int = 500,
) -> list[LoggedLine]:
    """A page of what was recorded since, in the order of recording: for those who follow a run.

    Args: after_id: `id` of the last line that is known; the rest as for `lines_by_time`.
    """
    conditions, values = _narrowed(flow_session_id, session_day, action, item, level)
    conditions.append("id > %(after_id)s")
    return _fetch(database, conditions, values | {"after_id": after_id}, "id", limit)


def newest_line(database: Database, flow_session_id: str, session_day: Day) -> int:
    """Id of the line of a flow session that was recorded last; 0: there is none."""
    rows = database.fetch(
        "SELECT coalesce(max(id), 0) FROM task_logs WHERE session_day = %s AND flow_session_id = %s",
        (session_day, flow_session_id),
    )
    return int(rows[0][0])


def _narrowed(
    flow_session_id: str, session_day: Day, action: str | None, item: int | None, level: str
) -> tuple[list[str], dict[str, Any]]:
    conditions = ["session_day = %(day)s", "flow_session_id = %(id)s"]
    values: dict[str, Any] = {"day": session_day, "id": flow_session_id}
    if action is not None:
        conditions.append("action = %(action)s")
        values["action"] = action
    if item is not None:
        conditions.append("item = %(item)s")
        values["item"] = item
    if level != LEVELS[0]:
        conditions.append("level = ANY (%(levels)s)")
        values["levels"] = list(LEVELS[LEVELS.index(level) :])
    return conditions, values


def _fetch(
    database: Database, conditions: Sequence[str], values: dict[str, Any], order: str, limit: int
) -> list[LoggedLine]:
    query = f"SELECT {_COLUMNS} FROM task_logs WHERE {' AND '.join(conditions)} ORDER BY {order} LIMIT %(limit)s"
    return [_line(row) for row in database.fetch(query, {**values, "limit": limit})]


def _line(row: Row) -> LoggedLine:
    return LoggedLine(*row)
