"""Rows of status updates, as they travel through the stream; docs/design.md, "Status channel", has the layout.

Times are µs since the epoch by Redis's clock (clock.py): no host's clock reaches PostgreSQL.
"""

from __future__ import annotations

import orjson

from orchestration.vocabulary import NO_ITEM, TaskStatus

#: A later change of a row has a larger sequence; attempts (crashes) weigh most, then retries, then the phase.
_ATTEMPT, _RETRY, _START, _END, _FINISH = 100_000, 10, 1, 5, 10_000


def sequence_of(attempt: int, retry: int) -> int:
    """Sequence of a final status in this attempt and retry of the unit."""
    return attempt * _ATTEMPT + retry * _RETRY + _END


def start_sequence_of(attempt: int, retry: int) -> int:
    """Sequence of the status `running` in this attempt and retry of the unit."""
    return attempt * _ATTEMPT + retry * _RETRY + _START


def end_sequence_of(attempt: int) -> int:
    """Sequence of the end of a `for_each`: behind all of its expansion, however often that was begun."""
    return sequence_of(_FINISH + attempt, 0)


def place_of(sequence: int) -> tuple[int, int]:
    """Attempt and retry of the unit that a sequence stands for."""
    return sequence // _ATTEMPT % _FINISH, sequence % _ATTEMPT // _RETRY


def task_row(  # noqa: PLR0913 - one for each column
    action: str,
    status: TaskStatus,
    attempt: int,
    sequence: int,
    queue: str,
    *,
    item: int = NO_ITEM,
    started_us: int | None = None,
    finished_us: int | None = None,
    result: bytes | None = None,
    error: bytes | None = None,
) -> list[object]:
    """One status of a task; `attempt` is what people see. `result` and `error` are JSON texts, passed on unparsed."""
    return [
        "t", action, item, status.value, attempt, sequence, queue, started_us,
        finished_us, None if result is None else result.decode(), None if error is None else error.decode(),
    ]  # fmt: skip


def branch_row(
    branch: str,
    status: TaskStatus,
    attempt: int,
    sequence: int,
    queue: str,
    *,
    started_us: int | None = None,
    finished_us: int | None = None,
    waited_us: int | None = None,
) -> list[object]:
    """One status of a branch; `waited_us` is the time it was ready and not claimed."""
    return [
        "b", branch, status.value, attempt, sequence, queue, started_us, finished_us,
        waited_us,
    ]  # fmt: skip


def encode_rows(rows: list[list[object]]) -> bytes:
    """The rows as one JSON array, empty bytes for none."""
    return orjson.dumps(rows) if rows else b""
