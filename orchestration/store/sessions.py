"""Flow sessions: accepted once, finished once.

State of a row: a non-final status changes freely (`set_status`, the status channel); `finish_session` is the only way
to a final one, and a final one never changes again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import Any

from orchestration.errors import UnknownRun
from orchestration.store import json_text
from orchestration.store.pool import Database, Day, Row
from orchestration.store.totals import COUNT_FINISHED, OTHER, branches_bucket, names_of
from orchestration.telemetry.probes import probed
from orchestration.vocabulary import FINAL_RUN_STATUSES, RunStatus

#: What lists need of a session; `session_of` takes a row of these.
LIGHT_COLUMNS = (
    "flow_session_id, session_day, workflow, version_id, version, status, priority, created_at, started_at,"
    " finished_at, celery_task_id, counts, retry_of, retried_as"
)
_COLUMNS = f"{LIGHT_COLUMNS}, payload::text, output::text, error::text, traceparent"
_FINAL = tuple(sorted(status.value for status in FINAL_RUN_STATUSES))

#: `session_days` makes the id unique over all days; who comes second inserts nothing, in both tables.
_INSERT = f"""
WITH accepted AS (
    INSERT INTO session_days (flow_session_id, session_day)
    VALUES (%(id)s, (now() AT TIME ZONE 'UTC')::date)
    ON CONFLICT DO NOTHING RETURNING session_day
)
INSERT INTO flow_sessions
    (session_day, flow_session_id, workflow, version_id, version, status, payload, priority, celery_task_id, call,
    traceparent, created_at, started_at)
SELECT session_day, %(id)s, %(workflow)s, %(version_id)s, %(version)s, %(status)s, %(payload)s::json, %(priority)s,
    %(celery_task_id)s, %(call)s::json, %(traceparent)s, now(), CASE WHEN %(status)s = 'running' THEN now() END
FROM accepted RETURNING {_COLUMNS}
"""

#: No end before the start: another server, after a fail-over, may be behind the one that accepted the run.
_FINISHED = """
WITH finished AS (
UPDATE flow_sessions SET status = %(status)s, output = %(output)s::json, error = %(error)s::json,
    counts = %(counts)s::json, started_at = COALESCE(started_at, GREATEST(statement_timestamp(), created_at)),
    finished_at = GREATEST(statement_timestamp(), created_at, started_at)
WHERE session_day = %(day)s AND flow_session_id = %(id)s AND status <> ALL (%(final)s)
RETURNING *
)"""
_FINISH = f"{_FINISHED} SELECT {_COLUMNS} FROM finished"
_FINISH_AND_COUNT = f"{_FINISHED}, {COUNT_FINISHED} SELECT {_COLUMNS} FROM finished"

_SET_STATUS = """
UPDATE flow_sessions SET status = %(to)s,
    started_at = CASE WHEN %(to)s = 'running' THEN COALESCE(started_at, clock_timestamp()) ELSE started_at END
WHERE session_day = %(day)s AND flow_session_id = %(id)s AND status = ANY (%(from)s) RETURNING 1
"""


@dataclass(frozen=True, slots=True)
class SessionRow:
    """A flow session as PostgreSQL knows it; `payload`, `output` and `error` are JSON texts, as they were given."""

    flow_session_id: str
    #: UTC day on which it was accepted; with the id, the key of all its rows.
    session_day: date
    workflow: str
    version_id: str
    version: int
    status: RunStatus
    priority: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    celery_task_id: str | None
    #: Tasks by status; empty until the session is final.
    counts: Mapping[str, int]
    #: The run that this one is a retry of, and its own retry; None: it is none, or has none.
    retry_of: str | None = None
    retried_as: str | None = None
    #: None in lists, which leave out what may be large.
    payload: str | None = None
    output: str | None = None
    error: str | None = None
    #: Where its spans belong (telemetry/tracing.py); None: it is not traced.
    traceparent: str | None = None
    #: False when `insert_session` found it there.
    created: bool = False

    @property
    def created_us(self) -> int:
        """When it was accepted, µs since the epoch."""
        return round(self.created_at.timestamp() * 1e6)

    @property
    def duration_seconds(self) -> float | None:
        """From start to end; None until both are known."""
        if self.started_at is None or self.finished_at is None:
            return None
        return (self.finished_at - self.started_at).total_seconds()


@probed("sql.insert_session")
def insert_session(  # noqa: PLR0913 - keyword only, one for each column
    database: Database,
    flow_session_id: str,
    *,
    workflow: str,
    version_id: str,
    version: int,
    payload: str | bytes | None = None,
    status: RunStatus | str = RunStatus.RUNNING,
    priority: int = 0,
    celery_task_id: str | None = None,
    call: str | None = None,
    traceparent: str | None = None,
) -> SessionRow:
    """The flow session is recorded, once, whoever calls how often and on which day.

    Args: payload: a JSON text. call: another one, of what follows its end (store/recovery.py).
    Returns: the row; with `created=False` the one that was there, whatever was given now.
    Raises: UnknownRun: it was accepted so long ago that retention has dropped it.
    """
    values = {
        "id": flow_session_id, "workflow": workflow, "version_id": version_id, "version": version,
        "status": RunStatus(status).value, "payload": _text(payload), "priority": priority,
        "celery_task_id": celery_task_id, "call": call, "traceparent": traceparent,
    }  # fmt: skip
    rows = database.execute(_INSERT, values)
    if rows:
        return session_of(rows[0], created=True)
    existing = load_session(database, flow_session_id)
    if existing is None:
        raise UnknownRun(f"flow session {flow_session_id} was accepted once and has been dropped since (retention)")
    return existing


def load_session(database: Database, flow_session_id: str) -> SessionRow | None:
    """A flow session by its id alone, None when there is none."""
    # Two look-ups by key; a join would plan the query for every partition (0.75 ms against 0.3 with a month of them).
    days = database.fetch("SELECT session_day FROM session_days WHERE flow_session_id = %s", (flow_session_id,))
    return load_session_of_day(database, flow_session_id, days[0][0]) if days else None


def find_session(database: Database, flow_session_id: str) -> SessionRow | None:
    """Like `load_session`, without payload, output and error: cheap to ask often."""
    days = database.fetch("SELECT session_day FROM session_days WHERE flow_session_id = %s", (flow_session_id,))
    if not days:
        return None
    rows = database.fetch(
        f"SELECT {LIGHT_COLUMNS} FROM flow_sessions WHERE session_day = %s AND flow_session_id = %s",
        (days[0][0], flow_session_id),
    )
    return session_of(rows[0]) if rows else None


def age_seconds(database: Database, flow_session_id: str, session_day: Day) -> float:
    """How long ago a flow session was accepted, by PostgreSQL's clock; 0 when it is not known."""
    rows = database.fetch(
        "SELECT extract(epoch FROM clock_timestamp() - created_at)::float8 FROM flow_sessions"
        " WHERE session_day = %s AND flow_session_id = %s",
        (session_day, flow_session_id),
    )
    return float(rows[0][0]) if rows else 0.0


def cancelled_at(database: Database, flow_session_id: str, session_day: Day) -> datetime | None:
    """When somebody cancelled a flow session; None when nobody did."""
    rows = database.fetch(
        "SELECT cancelled_at FROM flow_sessions WHERE session_day = %s AND flow_session_id = %s",
        (session_day, flow_session_id),
    )
    return rows[0][0] if rows else None


def near_ids(database: Database, flow_session_id: str) -> list[str]:
    """Ids of flow sessions that begin as this one does: its neighbours in order, two look-ups by key."""
    found = []
    for order, than in (("", ">="), ("DESC", "<=")):
        rows = database.fetch(
            f"SELECT flow_session_id FROM session_days WHERE flow_session_id {than} %s"
            f" ORDER BY flow_session_id {order} LIMIT 2",
            (flow_session_id,),
        )
        found += [row[0] for row in rows if row[0][:_NEAR] == flow_session_id[:_NEAR]]
    return found


#: Characters that ids have in common which are near each other.
_NEAR = 6


def load_session_of_day(database: Database, flow_session_id: str, session_day: Day) -> SessionRow | None:
    """A flow session by its whole key, None when there is none."""
    rows = database.fetch(
        f"SELECT {_COLUMNS} FROM flow_sessions WHERE session_day = %s AND flow_session_id = %s",
        (session_day, flow_session_id),
    )
    return session_of(rows[0]) if rows else None


@probed("sql.finish_session")
def finish_session(  # noqa: PLR0913 - what is recorded, and what it is counted under
    database: Database,
    flow_session_id: str,
    session_day: Day,
    status: RunStatus | str,
    output: str | bytes | None = None,
    error: str | bytes | None = None,
    counts: Mapping[str, int] | None = None,
    *,
    workflow: str = OTHER,
    branches: int = 0,
) -> tuple[bool, SessionRow]:
    """The session has a final status: this one, for exactly one caller; and it is counted (totals.py),
    if that is wanted.

    Args: output, error: JSON texts. workflow, branches: its name, and how many it was of: what metrics count it under.
    Returns: whether this caller set it, and the row: what the winner wrote.
    Raises: UnknownRun: there is no such session. ValueError: `status` is not final.
    """
    if not RunStatus(status).is_final:
        raise ValueError(f"{status} is no final status")
    values = {
        "id": flow_session_id, "day": session_day, "status": RunStatus(status).value, "output": _text(output),
        "error": _text(error), "counts": json_text.dump(dict(counts or {})),
        "final": list(_FINAL),
    }  # fmt: skip
    if database.counts:
        name, _ = names_of(database).bounded(database.fetch, "workflow", workflow)
        counted = {"name": name, "branches": branches, "branches_bucket": branches_bucket(branches)}
        rows = database.execute(_FINISH_AND_COUNT, values | counted)
    else:
        rows = database.execute(_FINISH, values)
    if rows:
        return True, session_of(rows[0])
    row = load_session_of_day(database, flow_session_id, session_day)
    if row is None:
        raise UnknownRun(f"no flow session {flow_session_id} of {session_day} is recorded")
    return False, row


@probed("sql.set_status")
def set_status(
    database: Database,
    flow_session_id: str,
    session_day: Day,
    from_statuses: Iterable[RunStatus],
    to_status: RunStatus,
) -> bool:
    """Change one non-final status to another; False when the session has none of `from_statuses`.

    Raises: ValueError: a status is final; see `finish_session`.
    """
    before = [RunStatus(status) for status in from_statuses]
    if to_status.is_final or any(status.is_final for status in before):
        raise ValueError("a final status is set by finish_session, and never left")
    values = {"id": flow_session_id, "day": session_day, "to": to_status.value, "from": [s.value for s in before]}
    return bool(database.execute(_SET_STATUS, values))


def list_sessions(
    database: Database,
    *,
    status: RunStatus | Iterable[RunStatus] | None = None,
    workflow: str | None = None,
    limit: int = 50,
    before: SessionRow | tuple[datetime, str] | None = None,
) -> list[SessionRow]:
    """Flow sessions, the newest first, without payload, output and error.

    Args: before: the last row of the page before (or its `created_at` and id): the next page starts after it.
    """
    conditions, values = ["true"], dict[str, Any](limit=limit)
    if status is not None:
        wanted = [status] if isinstance(status, str) else list(status)
        conditions.append("status = ANY (%(status)s)")
        values["status"] = [RunStatus(one).value for one in wanted]
    if workflow is not None:
        conditions.append("workflow = %(workflow)s")
        values["workflow"] = workflow
    if before is not None:
        at, flow_session_id = (before.created_at, before.flow_session_id) if isinstance(before, SessionRow) else before
        # The day lets PostgreSQL leave out the partitions of later days; one more, as the two clocks are read apart.
        conditions.append("session_day <= (%(at)s AT TIME ZONE 'UTC')::date + 1")
        conditions.append("(created_at, flow_session_id) < (%(at)s, %(id)s)")
        values |= {"at": at, "id": flow_session_id}
    rows = database.fetch(
        f"SELECT {LIGHT_COLUMNS} FROM flow_sessions WHERE {' AND '.join(conditions)}"
        " ORDER BY created_at DESC, flow_session_id DESC LIMIT %(limit)s",
        values,
    )
    return [session_of(row) for row in rows]


def _text(given: str | bytes | None) -> str | None:
    return given.decode() if isinstance(given, bytes) else given


def session_of(row: Row, *, created: bool = False) -> SessionRow:
    """The session of a row of LIGHT_COLUMNS, or of all columns."""
    values = list(row)
    values[5] = RunStatus(values[5])
    values[11] = values[11] or {}
    session = SessionRow(*values)
    return replace(session, created=True) if created else session
