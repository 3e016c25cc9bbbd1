"""What PostgreSQL knows of sessions that have not ended: what they are taken up again by when Redis has lost them.

`engine/rebuild.py` makes live state of the facts; `tasks/rehydration.py` asks which sessions to look at, and in which
epoch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, NamedTuple

from orchestration.store.pool import Database, Day
from orchestration.telemetry.probes import probed
from orchestration.vocabulary import NO_ITEM, RunStatus, TaskStatus


class TaskFact(NamedTuple):
    """What is recorded of one task, or item; `result` and `error` are JSON texts, of an item None."""

    status: TaskStatus
    #: As people see it: crashes and retries together.
    attempt: int
    sequence: int
    result: str | None = None
    error: str | None = None
    #: The result is in `task_results`; `result` is only its mark.
    is_stored: bool = False


@dataclass(frozen=True, slots=True)
class Facts:
    """What is recorded of a session that has not ended."""

    #: Of the last status that was recorded.
    sequence: int
    #: Somebody cancelled it.
    is_cancelled: bool
    #: By action: those that are no items.
    tasks: Mapping[str, TaskFact]
    #: By action and item.
    items: Mapping[str, Mapping[int, TaskFact]]
    #: The largest sequence by branch.
    branches: Mapping[str, int]

    @property
    def is_empty(self) -> bool:
        """Nothing of it had begun, as far as is known."""
        return not (self.tasks or self.items or self.branches)


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A session that has not ended."""

    flow_session_id: str
    session_day: date
    status: RunStatus
    created_at: datetime
    celery_task_id: str
    #: What followed its message, and its namespace (tasks/canvas.py).
    call: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Epoch:
    """A life of live state."""

    number: int
    age_seconds: float


_TASKS = """
SELECT task.action, task.status, task.attempt, task.sequence, task.result::text, task.error::text,
    EXISTS (SELECT 1 FROM task_results AS large WHERE large.session_day = task.session_day
        AND large.flow_session_id = task.flow_session_id AND large.action = task.action AND large.item = task.item)
FROM tasks AS task WHERE task.session_day = %s AND task.flow_session_id = %s AND task.item = -1
"""

_UNFINISHED = """
SELECT flow_session_id, session_day, status, created_at, celery_task_id, call FROM flow_sessions
WHERE status = ANY (%(status)s) AND call->>'namespace' = %(namespace)s
    AND created_at < clock_timestamp() - %(age)s * interval '1 second'
    AND (created_at, flow_session_id) > (%(at)s, %(id)s) AND celery_task_id IS NOT NULL
ORDER BY created_at, flow_session_id LIMIT %(limit)s
"""


def load_facts(database: Database, flow_session_id: str, session_day: Day) -> Facts:
    """All that is recorded of the session; of a `for_each` without the results of its items."""
    key = (session_day, flow_session_id)
    where = "WHERE session_day = %s AND flow_session_id = %s"
    session = database.fetch(f"SELECT sequence, cancelled_at IS NOT NULL FROM flow_sessions {where}", key)
    tasks = {row[0]: TaskFact(TaskStatus(row[1]), *row[2:]) for row in database.fetch(_TASKS, key)}
    branches: dict[str, int] = dict(database.fetch(f"SELECT branch, sequence FROM branches {where}", key))
    items: dict[str, dict[int, TaskFact]] = {}
    rows = database.fetch(
        f"SELECT action, item, status, attempt, sequence FROM tasks {where} AND item > {NO_ITEM} ORDER BY action, item",
        key,
    )
    for action, item, status, attempt, sequence in rows:
        items.setdefault(action, {})[item] = TaskFact(TaskStatus(status), attempt, sequence)
    sequence, is_cancelled = session[0] if session else (0, False)
    return Facts(sequence, is_cancelled, tasks, items, branches)


def unfinished(
    database: Database,
    namespace: str,
    statuses: Sequence[RunStatus],
    older_than_seconds: float,
    after: tuple[datetime, str] | None,
    limit: int,
) -> list[Unfinished]:
    """Sessions of a namespace with one of these statuses that can be taken up, the oldest first.

    Args: older_than_seconds: accepted at least so long ago, by PostgreSQL's clock. after: of the last of the page
        before.
    """
    at, flow_session_id = after or ("-infinity", "")
    rows = database.fetch(
        _UNFINISHED,
        {"status": [status.value for status in statuses], "namespace": namespace, "age": older_than_seconds,
         "at": at, "id": flow_session_id, "limit": limit},
    )  # fmt: skip
    return [Unfinished(row[0], row[1], RunStatus(row[2]), *row[3:]) for row in rows]


@probed("sql.note_cancelled")
def note_cancelled(database: Database, flow_session_id: str, session_day: Day) -> None:
    """That the session was cancelled is known without Redis."""
    database.execute(
        "UPDATE flow_sessions SET cancelled_at = COALESCE(cancelled_at, clock_timestamp())"
        " WHERE session_day = %s AND flow_session_id = %s RETURNING 1",
        (session_day, flow_session_id),
    )


def load_epoch(database: Database, namespace: str) -> Epoch:
    """The epoch that is valid in a namespace, and for how long it has been; 0: none was begun."""
    rows = database.fetch(
        "SELECT epoch, extract(epoch FROM clock_timestamp() - began_at)::float8 FROM live_state_epochs"
        " WHERE namespace = %s",
        (namespace,),
    )
    return Epoch(*rows[0]) if rows else Epoch(0, 0.0)


@probed("sql.begin_epoch")
def begin_epoch(database: Database, namespace: str, before: int, following: int) -> Epoch:
    """`following` is valid, if `before` was; of several callers one begins it. Returns: the epoch that is valid."""
    database.execute(
        "INSERT INTO live_state_epochs AS old (namespace, epoch) VALUES (%(namespace)s, %(following)s)"
        " ON CONFLICT (namespace) DO UPDATE SET epoch = EXCLUDED.epoch, began_at = clock_timestamp()"
        " WHERE old.epoch = %(before)s RETURNING 1",
        {"namespace": namespace, "before": before, "following": following},
    )
    return load_epoch(database, namespace)
