"""Retries of runs: another flow session is accepted, with what it takes over of the one that did not succeed.

Rows that are taken over say so by `attempt` 0: none was made in this run. They have no start and no worker, and end
when the retry is accepted. Their `sequence` is that of a first attempt, so whatever runs again after all wins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from orchestration.store.pool import Database
from orchestration.store.sessions import SessionRow
from orchestration.telemetry.probes import probed
from orchestration.vocabulary import FINAL_RUN_STATUSES, RunStatus, TaskStatus

#: How a run has ended that can be retried.
RETRIABLE: Final = FINAL_RUN_STATUSES - {RunStatus.SUCCEEDED}
#: How a task has ended that may be taken over.
TAKEN_STATUSES: Final = frozenset({TaskStatus.SUCCEEDED, TaskStatus.SKIPPED})
#: In place of the number of a task's attempts.
TAKEN_OVER_ATTEMPT: Final = 0


@dataclass(frozen=True, slots=True)
class TakenOver:
    """What of a run is not run again."""

    #: Actions, a `for_each` with all its items.
    actions: Sequence[str] = ()
    #: Each `for_each` of which those items are taken over that have a result, and no others.
    in_part: Sequence[str] = ()
    branches: Sequence[str] = ()


#: One caller of several names its retry in the row of the run.
_NAME = """
UPDATE flow_sessions SET retried_as = %(retry)s WHERE session_day = %(day)s AND flow_session_id = %(id)s
    AND retried_as IS NULL AND status = ANY (%(retriable)s) RETURNING 1
"""

_ACCEPT = """
WITH accepted AS (
    INSERT INTO session_days (flow_session_id, session_day) VALUES (%(retry)s, (now() AT TIME ZONE 'UTC')::date)
    RETURNING session_day
)
INSERT INTO flow_sessions
    (session_day, flow_session_id, workflow, version_id, version, status, payload, priority, celery_task_id, call,
    traceparent, created_at, retry_of)
SELECT accepted.session_day, %(retry)s, workflow, version_id, version, 'queued', payload, priority, %(retry)s,
    %(call)s::json, %(traceparent)s, now(), flow_session_id
FROM flow_sessions AS old CROSS JOIN accepted WHERE old.session_day = %(day)s AND old.flow_session_id = %(id)s
RETURNING session_day
"""

_WHICH = "session_day = %(day)s AND flow_session_id = %(id)s"
_TASKS_TAKEN = f"""
{_WHICH} AND status = ANY (%(taken)s) AND (action = ANY (%(actions)s) OR item >= 0 AND action = ANY (%(in_part)s))
"""

_TAKE_TASKS = f"""
INSERT INTO tasks (session_day, flow_session_id, action, item, status, attempt, sequence, queue, finished_at, result,
    error)
SELECT %(retry_day)s, %(retry)s, action, item, status, {TAKEN_OVER_ATTEMPT}, %(sequence)s, queue, now(), result, error
FROM tasks WHERE {_TASKS_TAKEN}
"""

_TAKE_RESULTS = f"""
INSERT INTO task_results (session_day, flow_session_id, action, item, attempt, content)
SELECT %(retry_day)s, %(retry)s, action, item, {TAKEN_OVER_ATTEMPT}, content FROM task_results
WHERE {_WHICH} AND (action, item) IN (SELECT action, item FROM tasks WHERE {_TASKS_TAKEN})
"""

_TAKE_BRANCHES = f"""
INSERT INTO branches (session_day, flow_session_id, branch, status, attempt, sequence, queue, finished_at)
SELECT %(retry_day)s, %(retry)s, branch, status, {TAKEN_OVER_ATTEMPT}, %(sequence)s, queue, now()
FROM branches WHERE {_WHICH} AND status = ANY (%(taken)s) AND branch = ANY (%(branches)s)
"""


@probed("sql.accept_retry")
def accept_retry(
    database: Database,
    row: SessionRow,
    retry: str,
    taken: TakenOver,
    *,
    sequence: int,
    call: str,
    traceparent: str | None = None,
) -> int | None:
    """A run is retried, once, whoever asks: another flow session is there, with what it takes over; or nothing is.

    Args: retry: id of the new flow session, and of its Celery task. sequence: of the rows that are taken over.
        call: see `insert_session`.
    Returns: how many tasks were taken over, an item being one; None: the run is retried already, or not to be retried.
    """
    values = {
        "id": row.flow_session_id, "day": row.session_day, "retry": retry, "call": call, "traceparent": traceparent,
        "retriable": [status.value for status in RETRIABLE], "taken": [status.value for status in TAKEN_STATUSES],
        "actions": list(taken.actions), "in_part": list(taken.in_part), "branches": list(taken.branches),
        "sequence": sequence,
    }  # fmt: skip
    with database.transaction() as cursor:
        cursor.execute(_NAME, values)
        if cursor.fetchone() is None:
            return None
        cursor.execute(_ACCEPT, values)
        accepted = cursor.fetchone()
        assert accepted is not None
        values["retry_day"] = accepted[0]
        cursor.execute(_TAKE_TASKS, values)
        number = cursor.rowcount
        cursor.execute(_TAKE_RESULTS, values)
        cursor.execute(_TAKE_BRANCHES, values)
    return number


def message_of(database: Database, row: SessionRow) -> tuple[str | None, str | None]:
    """Namespace and queue of the message that started a run; None where they are not recorded."""
    rows = database.fetch(
        "SELECT call->>'namespace', call->>'queue' FROM flow_sessions WHERE session_day = %s AND flow_session_id = %s",
        (row.session_day, row.flow_session_id),
    )
    return rows[0] if rows else (None, None)
