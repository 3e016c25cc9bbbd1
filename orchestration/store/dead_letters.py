"""What could not be recorded where it belongs, kept whole with the reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from orchestration.store.pool import Cursor, Database


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """What could not be recorded, as bytes."""

    #: Id of a stream entry, or `row` for a row that PostgreSQL refused.
    source: str
    reason: str
    content: bytes
    flow_session_id: str | None = None


@dataclass(frozen=True, slots=True)
class KeptDeadLetter:
    """A dead letter as it was kept."""

    letter: DeadLetter
    received_at: datetime


def insert_dead_letters(cursor: Cursor, letters: Sequence[DeadLetter]) -> None:
    """The letters are in the transaction of `cursor`; characters that PostgreSQL has no place for are escaped."""
    for letter in letters:
        cursor.execute(
            "INSERT INTO status_dead_letters (source, flow_session_id, reason, content) VALUES (%s, %s, %s, %s)",
            (
                _storable(letter.source),
                None if letter.flow_session_id is None else _storable(letter.flow_session_id),
                _storable(letter.reason),
                letter.content,
            ),
        )


def list_dead_letters(database: Database, limit: int = 100) -> list[KeptDeadLetter]:
    """The newest dead letters first."""
    rows = database.fetch(
        "SELECT source, reason, content, flow_session_id, received_at FROM status_dead_letters"
        " ORDER BY received_at DESC, id DESC LIMIT %s",
        (limit,),
    )
    return [KeptDeadLetter(DeadLetter(row[0], row[1], bytes(row[2]), row[3]), row[4]) for row in rows]


def _storable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode().replace("\x00", "\\x00")
