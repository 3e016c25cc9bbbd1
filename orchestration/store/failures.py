"""What failed of a flow session, as rows of the status channel: for its trace, when nothing was told of it before."""

from __future__ import annotations

from typing import Any

from orchestration.store.pool import Database, Day

_MOST = 1000
_US = "(extract(epoch FROM {0}) * 1000000)::bigint"

_TASKS = f"""
SELECT 't', action, item, status, attempt, sequence, queue, {_US.format("started_at")}, {_US.format("finished_at")},
    CASE WHEN item = -1 THEN result::text END, error::text, worker
FROM tasks WHERE session_day = %(day)s AND flow_session_id = %(id)s AND status IN ('failed', 'timed_out')
ORDER BY finished_at LIMIT {_MOST}
"""
_BRANCHES = f"""
SELECT 'b', branch, status, attempt, sequence, queue, {_US.format("started_at")}, {_US.format("finished_at")},
    waited_us, worker
FROM branches WHERE session_day = %(day)s AND flow_session_id = %(id)s AND status IN ('failed', 'timed_out')
ORDER BY finished_at LIMIT {_MOST}
"""


def failed_rows(database: Database, flow_session_id: str, session_day: Day) -> tuple[list[list[Any]], list[list[Any]]]:
    """Tasks and branches that failed or timed out, the first thousand of each: as in state/rows.py, and the worker."""
    values = {"id": flow_session_id, "day": session_day}
    tasks, branches = database.fetch(_TASKS, values), database.fetch(_BRANCHES, values)
    return [list(row) for row in tasks], [list(row) for row in branches]
