"""Status updates into the tables: many rows in one statement, in any order, any number of times, always the same end.

A row holds what the update with the largest sequence says; `started_at` is the latest start that any of them knew, and
`queue` is taken from whichever had it. `channel` calls this; it never reads the stream.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, NamedTuple, TypeVar

import psycopg2

from orchestration.store import json_text
from orchestration.store.dead_letters import DeadLetter, insert_dead_letters
from orchestration.store.pool import Cursor, Database, Row
from orchestration.store.totals import Changes, count_branches, count_tasks, names_of, sessions_of
from orchestration.telemetry.probes import probed

#: Between values of a column on their way to PostgreSQL, and for NULL. No JSON text and no name holds them raw: JSON
#: forbids control characters, and `channel.parse` refuses names with them. One replacement less per value (measured:
#: 25 % of the Python time) than quoting array literals.
_NEXT, _NULL = "\x1f", "\x1e"

#: Source of the dead letter of a row that PostgreSQL refused.
REFUSED_ROW: Final = "row"


class TaskUpdate(NamedTuple):
    """One status of a task; times in µs since the epoch, `result` and `error` as JSON texts."""

    session_day: str
    flow_session_id: str
    action: str
    item: int
    status: str
    attempt: int
    sequence: int
    queue: str | None
    worker: str | None
    started_us: int | None
    finished_us: int | None
    result: str | None = None
    error: str | None = None


class BranchUpdate(NamedTuple):
    """One status of a branch; `waited_us`: how long it was ready and not claimed."""

    session_day: str
    flow_session_id: str
    branch: str
    status: str
    attempt: int
    sequence: int
    queue: str | None
    worker: str | None
    started_us: int | None
    finished_us: int | None
    waited_us: int | None = None


class SessionUpdate(NamedTuple):
    """A change of a flow session from one status that is not final to another."""

    session_day: str
    flow_session_id: str
    status: str
    sequence: int


R = TypeVar("R", TaskUpdate, BranchUpdate, SessionUpdate)
Timed = TypeVar("Timed", TaskUpdate, BranchUpdate)


@dataclass(frozen=True, slots=True)
class Written:
    """What `write_rows` did: rows sent after coalescing, and what PostgreSQL refused (now in status_dead_letters)."""

    rows: int
    refused: tuple[DeadLetter, ...] = ()


@dataclass(frozen=True, slots=True)
class _Kind(Generic[R]):
    """How one kind of rows is merged and written."""

    statement: str
    #: Fields that make the key, the first ones.
    key_fields: int
    #: One for each field: True when it is text.
    is_text: Sequence[bool]
    merge: Callable[[R, R], R]
    #: What is written in place of a refused row, so that at least its status is known.
    reduced: Callable[[R, str], R | None]
    #: The same statement, which says what has changed, and what takes that; None: it is not counted.
    counted: tuple[str, Callable[[Changes, list[Row]], None]] | None = None


@probed("sql.write_rows")
def write_rows(
    database: Database,
    tasks: Iterable[TaskUpdate] = (),
    branches: Iterable[BranchUpdate] = (),
    sessions: Iterable[SessionUpdate] = (),
    dead_letters: Sequence[DeadLetter] = (),
) -> Written:
    """All rows are in PostgreSQL, in one transaction; a smaller or equal sequence has overwritten nothing.

    What has ended by it is counted in the same transaction (totals.py), if that is wanted.
    A row that PostgreSQL refuses goes to `status_dead_letters` alone, with the reason; of a task, the status is
    written all the same, without result.

    Args: dead_letters: what the caller could not read; kept in the same transaction.
    Raises: ServiceUnreachable: nothing was written (or, rarely, all of it); call again with the same rows.
    """
    every_task, every_branch = _coalesce(_TASKS, tasks), _coalesce(_BRANCHES, branches)
    every_session = _coalesce(_SESSIONS, sessions)
    count = len(every_task) + len(every_branch) + len(every_session)
    try:
        with database.transaction() as cursor:
            changes = Changes(names_of(database), cursor) if database.counts else None
            _write(cursor, _TASKS, every_task, changes)
            _write(cursor, _BRANCHES, every_branch, changes)
            _write(cursor, _SESSIONS, every_session, changes)
            insert_dead_letters(cursor, dead_letters)
            if changes is not None:
                changes.write()
    except Exception as error:
        if not _is_fault_of_a_row(error):
            raise
    else:
        return Written(count)
    with database.transaction() as cursor:
        refused: list[DeadLetter] = []
        changes = Changes(names_of(database), cursor) if database.counts else None
        _write_carefully(cursor, _TASKS, every_task, changes, refused)
        _write_carefully(cursor, _BRANCHES, every_branch, changes, refused)
        _write_carefully(cursor, _SESSIONS, every_session, changes, refused)
        insert_dead_letters(cursor, [*dead_letters, *refused])
        if changes is not None:
            changes.write()
    return Written(count, tuple(refused))


def _coalesce(kind: _Kind[R], rows: Iterable[R]) -> list[R]:
    """One row for each key, as if they had been written one by one."""
    merged: dict[tuple[object, ...], R] = {}
    size, merge = kind.key_fields, kind.merge
    for row in rows:
        key = row[:size]
        known = merged.get(key)
        merged[key] = row if known is None else merge(known, row)
    # In one order, so that two updaters never wait for each other's rows in a circle.
    return sorted(merged.values(), key=lambda row: row[:size])


def _merge_timed(one: Timed, other: Timed) -> Timed:
    """What ran twice under one number ends no sooner than it began last, as `_FINISHED` says it of what is recorded."""
    newer, older = (other, one) if other.sequence > one.sequence else (one, other)
    started_us, finished_us = _latest(newer.started_us, older.started_us), newer.finished_us
    return newer._replace(
        queue=newer.queue if newer.queue is not None else older.queue,
        started_us=started_us,
        finished_us=finished_us if finished_us is None else _latest(finished_us, started_us),
    )


def _merge_sessions(one: SessionUpdate, other: SessionUpdate) -> SessionUpdate:
    return other if other.sequence > one.sequence else one


def _latest(one: int | None, other: int | None) -> int | None:
    if one is None or other is None:
        return other if one is None else one
    return max(one, other)


def _write(cursor: Cursor, kind: _Kind[R], rows: Sequence[R], changes: Changes | None) -> None:
    if not rows:
        return
    columns = zip(*rows, strict=True)
    values: list[object] = [
        _text_column(column) if text else _number_column(column)
        for column, text in zip(columns, kind.is_text, strict=True)
    ]
    if changes is None or kind.counted is None:
        cursor.execute(kind.statement, values)
    else:
        statement, count = kind.counted
        cursor.execute(statement, [*values, *sessions_of(rows)])
        count(changes, cursor.fetchall())


def _text_column(values: tuple[str | None, ...]) -> str:
    text = _NEXT.join([_NULL if value is None else value for value in values])
    if not text or text.count(_NEXT) != len(values) - 1 or text.count(_NULL) != values.count(None):
        raise ValueError("a text is empty, or holds a control character")
    return text


def _number_column(values: tuple[object, ...]) -> str:
    return "{" + ",".join(["NULL" if value is None else str(value) for value in values]) + "}"


def _write_carefully(
    cursor: Cursor, kind: _Kind[R], rows: Sequence[R], changes: Changes | None, refused: list[DeadLetter]
) -> None:
    """Halve the rows until those are alone that PostgreSQL does not take."""
    if not rows:
        return
    error = _try(cursor, kind, rows, changes)
    if error is None:
        return
    if len(rows) > 1:
        half = len(rows) // 2
        _write_carefully(cursor, kind, rows[:half], changes, refused)
        _write_carefully(cursor, kind, rows[half:], changes, refused)
        return
    reason = (str(error).strip().partition("\n")[0] or type(error).__name__).replace("\x00", "\\0")
    refused.append(DeadLetter(REFUSED_ROW, reason, json_text.dump(list(rows[0])).encode(), rows[0].flow_session_id))
    reduced = kind.reduced(rows[0], reason)
    if reduced is not None:
        _try(cursor, kind, [reduced], changes)


def _try(cursor: Cursor, kind: _Kind[R], rows: Sequence[R], changes: Changes | None) -> Exception | None:
    cursor.execute("SAVEPOINT part")
    try:
        _write(cursor, kind, rows, changes)
    except Exception as error:
        if not _is_fault_of_a_row(error):
            raise
        cursor.execute("ROLLBACK TO SAVEPOINT part")
        return error
    cursor.execute("RELEASE SAVEPOINT part")
    return None


def _is_fault_of_a_row(error: Exception) -> bool:
    if isinstance(error, psycopg2.Error):
        # Data, integrity, and a limit such as the depth of nested JSON.
        return (error.pgcode or "")[:2] in ("22", "23", "54")
    return isinstance(error, ValueError)  # NUL or a lone surrogate, refused by the driver


def _reduced_task(row: TaskUpdate, reason: str) -> TaskUpdate | None:
    if row.result is None and row.error is None:
        return None
    note = json_text.dump({"type": "StatusRefused", "message": f"result or error could not be recorded: {reason}"})
    return row._replace(result=None, error=note)


def _nothing(row: R, reason: str) -> R | None:  # noqa: ARG001 - the shape of `_Kind.reduced`
    return None


def _source(arrays: str) -> str:
    """`t` in `arrays` stands for a column of texts, `n` for one of integers."""
    parts = {"t": "string_to_array(%s, chr(31), chr(30))", "n": "%s::bigint[]"}
    return f"unnest({', '.join(parts[letter] for letter in arrays)})"


def _kinds(arrays: str) -> list[bool]:
    return [letter == "t" for letter in arrays]


_TASK_ARRAYS, _BRANCH_ARRAYS, _SESSION_ARRAYS = "tttntnnttnntt", "ttttnnttnnn", "tttn"

#: What ran twice under one number, since nobody could know of the first time, ends when the first did and began last:
#: no row ends before it begins. An update alone never does (`channel.parse`), nor do merged ones (`_merge_timed`).
_FINISHED = """\
finished_at = CASE WHEN EXCLUDED.sequence > old.sequence
        THEN CASE WHEN EXCLUDED.finished_at IS NOT NULL
            THEN GREATEST(EXCLUDED.finished_at, EXCLUDED.started_at, old.started_at) END
        WHEN old.finished_at IS NOT NULL THEN GREATEST(old.finished_at, EXCLUDED.started_at, old.started_at) END"""

_UPSERT_TASKS = f"""
INSERT INTO tasks AS old (session_day, flow_session_id, action, item, status, attempt, sequence, queue, worker,
    started_at, finished_at, result, error)
SELECT day::date, id, action, item, status, attempt, sequence, queue, worker,
    to_timestamp(started / 1e6::double precision), to_timestamp(finished / 1e6::double precision),
    result::json, error::json
FROM {_source(_TASK_ARRAYS)}
    AS new (day, id, action, item, status, attempt, sequence, queue, worker, started, finished, result, error)
ON CONFLICT (session_day, flow_session_id, action, item) DO UPDATE SET
    status = CASE WHEN EXCLUDED.sequence > old.sequence THEN EXCLUDED.status ELSE old.status END,
    attempt = CASE WHEN EXCLUDED.sequence > old.sequence THEN EXCLUDED.attempt ELSE old.attempt END,
    sequence = GREATEST(EXCLUDED.sequence, old.sequence),
    queue = CASE WHEN EXCLUDED.sequence > old.sequence THEN COALESCE(EXCLUDED.queue, old.queue)
        ELSE COALESCE(old.queue, EXCLUDED.queue) END,
    worker = CASE WHEN EXCLUDED.sequence > old.sequence THEN EXCLUDED.worker ELSE old.worker END,
    started_at = GREATEST(EXCLUDED.started_at, old.started_at),
    {_FINISHED},
    result = CASE WHEN EXCLUDED.sequence > old.sequence THEN EXCLUDED.result ELSE old.result END,
    error = CASE WHEN EXCLUDED.sequence > old.sequence THEN EXCLUDED.error ELSE old.error END,
    previous_status = old.status, previous_attempt = old.attempt
WHERE EXCLUDED.sequence > old.sequence OR EXCLUDED.started_at > old.started_at
    OR old.started_at IS NULL AND EXCLUDED.started_at IS NOT NULL
    OR old.queue IS NULL AND EXCLUDED.queue IS NOT NULL
"""

_UPSERT_BRANCHES = f"""
INSERT INTO branches AS old (session_day, flow_session_id, branch, status, attempt, sequence, queue, worker,
    started_at, finished_at, waited_us)
SELECT day::date, id, branch, status, attempt, sequence, queue, worker,
    to_timestamp(started / 1e6::double precision), to_timestamp(finished / 1e6::double precision), waited
FROM {_source(_BRANCH_ARRAYS)}
    AS new (day, id, branch, status, attempt, sequence, queue, worker, started, finished, waited)
ON CONFLICT (session_day, flow_session_id, branch) DO UPDATE SET
    status = CASE WHEN EXCLUDED.sequence > old.sequence THEN EXCLUDED.status ELSE old.status END,
    attempt = CASE WHEN EXCLUDED.sequence > old.sequence THEN EXCLUDED.attempt ELSE old.attempt END,
    sequence = GREATEST(EXCLUDED.sequence, old.sequence),
    queue = CASE WHEN EXCLUDED.sequence > old.sequence THEN COALESCE(EXCLUDED.queue, old.queue)
        ELSE COALESCE(old.queue, EXCLUDED.queue) END,
    worker = CASE WHEN EXCLUDED.sequence > old.sequence THEN EXCLUDED.worker ELSE old.worker END,
    started_at = GREATEST(EXCLUDED.started_at, old.started_at),
    {_FINISHED},
    waited_us = CASE WHEN EXCLUDED.sequence > old.sequence THEN EXCLUDED.waited_us ELSE old.waited_us END,
    previous_status = old.status
WHERE EXCLUDED.sequence > old.sequence OR EXCLUDED.started_at > old.started_at
    OR old.started_at IS NULL AND EXCLUDED.started_at IS NOT NULL
    OR old.queue IS NULL AND EXCLUDED.queue IS NOT NULL
"""

#: A flow session's row is there before anything happens in it; a final status stays.
_UPDATE_SESSIONS = f"""
UPDATE flow_sessions AS old SET status = new.status, sequence = new.sequence,
    started_at = CASE WHEN new.status = 'running' THEN COALESCE(old.started_at, clock_timestamp())
        ELSE old.started_at END
FROM {_source(_SESSION_ARRAYS)} AS new (day, id, status, sequence)
WHERE old.session_day = new.day::date AND old.flow_session_id = new.id AND new.sequence > old.sequence
    AND old.status IN ('queued', 'running', 'suspended', 'paused')
"""

_TASKS: _Kind[TaskUpdate] = _Kind(
    _UPSERT_TASKS,
    4,
    _kinds(_TASK_ARRAYS),
    _merge_timed,
    _reduced_task,
    (count_tasks(_UPSERT_TASKS), Changes.add_tasks),
)
_BRANCHES: _Kind[BranchUpdate] = _Kind(
    _UPSERT_BRANCHES,
    3,
    _kinds(_BRANCH_ARRAYS),
    _merge_timed,
    _nothing,
    (count_branches(_UPSERT_BRANCHES), Changes.add_branches),
)
_SESSIONS: _Kind[SessionUpdate] = _Kind(_UPDATE_SESSIONS, 2, _kinds(_SESSION_ARRAYS), _merge_sessions, _nothing)
