"""What an entry of the status stream says, as rows for the store. Pure; trusts nothing it reads.

An entry has the fields s (flow session), d (its day), t (time in µs by Redis), w (worker) and b (rows, repeated). Times
in rows are µs by Redis too, and none is after `t`. What can't be read becomes a dead letter; the rest of the entry
stays good.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import lru_cache
from typing import Any

import orjson

from orchestration.errors import MessageProcessingError
from orchestration.store.dead_letters import DeadLetter
from orchestration.store.updates import BranchUpdate, SessionUpdate, TaskUpdate
from orchestration.telemetry.tracing import NOTE, TracedRows
from orchestration.vocabulary import FINAL_RUN_STATUSES, NO_ITEM, RunStatus, TaskStatus

Fields = Iterable[tuple[bytes, bytes]]

_TASK_STATUSES = frozenset(status.value for status in TaskStatus)
_OPEN_RUN_STATUSES = frozenset(status.value for status in RunStatus) - {status.value for status in FINAL_RUN_STATUSES}
_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
_LONGEST_NAME = 500
_INT4, _INT8 = 2**31 - 1, 2**63 - 1
#: The year 2255: beyond it, seconds as a double no longer tell microseconds apart.
_LATEST_US = 9 * 10**15


@dataclass(slots=True)
class ParsedEntry:
    """The rows of one entry, and what of it could not be read."""

    tasks: list[TaskUpdate] = field(default_factory=list)
    branches: list[BranchUpdate] = field(default_factory=list)
    sessions: list[SessionUpdate] = field(default_factory=list)
    dead_letters: list[DeadLetter] = field(default_factory=list)
    #: What is to become spans.
    traced: list[TracedRows] = field(default_factory=list)

    @property
    def rows(self) -> int:
        return len(self.tasks) + len(self.branches) + len(self.sessions)

    def add(self, other: ParsedEntry) -> None:
        """All that is in `other` is in this one too."""
        self.tasks += other.tasks
        self.branches += other.branches
        self.sessions += other.sessions
        self.dead_letters += other.dead_letters
        self.traced += other.traced


@dataclass(frozen=True, slots=True)
class _Head:
    """What an entry says once for all its rows."""

    flow_session_id: str
    day: str
    time_us: int
    worker: str | None


def parse_entry(entry_id: str, fields: Fields) -> ParsedEntry:
    """Read one entry; never raises for what is in it."""
    parsed = ParsedEntry()
    known: dict[bytes, bytes] = {}
    blobs: list[bytes] = []
    every = list(fields)
    for name, value in every:
        if name == b"b":
            blobs.append(value)
        else:
            known[name] = value
    try:
        head = _head(known)
    except (MessageProcessingError, ValueError) as error:
        parsed.dead_letters.append(DeadLetter(entry_id, str(error), entry_text(every)))
        return parsed
    for blob in blobs:
        _read_rows(entry_id, head, blob, parsed)
    return parsed


def entry_text(fields: Fields) -> bytes:
    """All of an entry as JSON, byte for byte (what is no UTF-8 as lone surrogates); never empty."""
    pairs = [[name.decode(errors="surrogateescape"), value.decode(errors="surrogateescape")] for name, value in fields]
    return json.dumps(pairs).encode()


def fields_of(text: bytes) -> list[tuple[bytes, bytes]]:
    """The entry of which `entry_text` made the text.

    Raises: ValueError: it is no such text.
    """
    pairs = json.loads(text)
    try:
        return [
            (name.encode(errors="surrogateescape"), value.encode(errors="surrogateescape")) for name, value in pairs
        ]
    except (AttributeError, TypeError) as error:
        raise ValueError(f"no pairs of texts: {error}") from None


def parse_text(entry_id: str, text: bytes) -> ParsedEntry:
    """Like `parse_entry`, of what `entry_text` made."""
    try:
        return parse_entry(entry_id, fields_of(text))
    except ValueError as error:
        return ParsedEntry(dead_letters=[DeadLetter(entry_id, str(error), text)])


def _head(known: dict[bytes, bytes]) -> _Head:
    for name in (b"s", b"d", b"t"):
        if name not in known:
            raise MessageProcessingError(f"the entry has no field {name.decode()}")
    day = known[b"d"].decode()
    if date.fromisoformat(day).isoformat() != day:
        raise MessageProcessingError(f"{day!r} is no day as in 2026-01-31")
    return _Head(
        _name(known[b"s"].decode()),
        day,
        _number(int(known[b"t"]), 0, _LATEST_US),
        _name(known[b"w"].decode()) if known.get(b"w") else None,
    )


def _read_rows(entry_id: str, head: _Head, blob: bytes, parsed: ParsedEntry) -> None:
    try:
        rows = _loads(blob)
    except (MessageProcessingError, ValueError, RecursionError) as error:
        parsed.dead_letters.append(DeadLetter(entry_id, str(error), blob, head.flow_session_id))
        return
    if rows and isinstance(rows[0], list) and rows[0][:1] == [NOTE]:
        parsed.traced.append(TracedRows(head.flow_session_id, head.day, head.time_us, head.worker, rows))
    for row in rows:
        try:
            _read_row(head, row, parsed)
        except (MessageProcessingError, ValueError, TypeError) as error:
            parsed.dead_letters.append(DeadLetter(entry_id, str(error), json.dumps(row).encode(), head.flow_session_id))


def _read_row(head: _Head, row: Any, parsed: ParsedEntry) -> None:
    kind = row[0] if isinstance(row, list) and row else None
    if kind == "t":
        parsed.tasks.append(_task(head, row))
    elif kind == "b":
        parsed.branches.append(_branch(head, row))
    elif kind == "s":
        parsed.sessions.append(_session(head, row))
    elif kind != NOTE:
        raise MessageProcessingError("a row begins with t, b or s; a note of the trace with x")


def _task(head: _Head, row: list[Any]) -> TaskUpdate:
    _, action, item, status, attempt, sequence, queue, started_us, finished_us, result, error = row
    started, finished = _span(head, started_us, finished_us)
    if started is not started_us or finished is not finished_us:
        row[7:9] = started, finished  # its span has the very times that are recorded
    if status not in _TASK_STATUSES:
        raise MessageProcessingError(f"{status!r} is no status of a task")
    return TaskUpdate(
        head.day,
        head.flow_session_id,
        _name(action),
        _number(item, NO_ITEM, _INT4),
        status,
        _number(attempt, 0, _INT4),
        _number(sequence, 0, _INT8),
        _name(queue) if queue else None,
        head.worker,
        started,
        finished,
        _json_text(result),
        _json_text(error),
    )


def _branch(head: _Head, row: list[Any]) -> BranchUpdate:
    _, branch, status, attempt, sequence, queue, started_us, finished_us, waited_us = row
    started, finished = _span(head, started_us, finished_us)
    if started is not started_us or finished is not finished_us:
        row[6:8] = started, finished
    if status not in _TASK_STATUSES:
        raise MessageProcessingError(f"{status!r} is no status of a branch")
    return BranchUpdate(
        head.day,
        head.flow_session_id,
        _name(branch),
        status,
        _number(attempt, 0, _INT4),
        _number(sequence, 0, _INT8),
        _name(queue) if queue else None,
        head.worker,
        started,
        finished,
        None if waited_us is None else max(0, _number(waited_us, -_INT8, _INT8)),
    )


def _session(head: _Head, row: Sequence[Any]) -> SessionUpdate:
    _, status, sequence = row
    if status not in _OPEN_RUN_STATUSES:
        raise MessageProcessingError(f"{status!r} is no status that a flow session gets through the stream")
    return SessionUpdate(head.day, head.flow_session_id, status, _number(sequence, 0, _INT8))


@lru_cache(maxsize=4096)
def _name(value: object) -> str:
    if not isinstance(value, str) or not value or len(value) > _LONGEST_NAME or _CONTROL.search(value):
        raise MessageProcessingError(f"{value!r:.100} is no name")
    return value


def _number(value: object, least: int, most: int) -> int:
    if type(value) is not int or not least <= value <= most:
        raise MessageProcessingError(f"{value!r:.100} is no integer from {least} to {most}")
    return value


def _span(head: _Head, started_us: object, finished_us: object) -> tuple[int | None, int | None]:
    """No end before the start, though Redis's clock may have been set back, or be another server's now."""
    started, finished = _moment(head, started_us), _moment(head, finished_us)
    if started is not None and finished is not None and started > finished:
        started = finished
    return started, finished


def _moment(head: _Head, time_us: object) -> int | None:
    return None if time_us is None else min(_number(time_us, 0, _LATEST_US), head.time_us)


def _json_text(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    raise MessageProcessingError("a result or error is a JSON text in a string, or null")


def _loads(blob: bytes) -> list[Any]:
    try:
        rows = orjson.loads(blob)
    except orjson.JSONDecodeError:
        rows = json.loads(blob.decode())  # lone surrogates and huge numbers: the row is judged, not the whole entry
    if not isinstance(rows, list):
        raise MessageProcessingError("field b is not a JSON array")
    return rows
