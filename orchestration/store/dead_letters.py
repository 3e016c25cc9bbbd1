"""What could not be recorded where it belongs, kept whole with the reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from orchestration.store.pool import Cursor, Database, Row


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
    id: int


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
    return _kept(database.fetch(f"{_SELECT} ORDER BY received_at DESC, id DESC LIMIT %s", (limit,)))


def count_dead_letters(database: Database) -> int:
    """How many there are."""
    return int(database.fetch("SELECT count(*) FROM status_dead_letters")[0][0])


def load_dead_letters(database: Database, ids: Sequence[int]) -> list[KeptDeadLetter]:
    """Those of these ids that there are, the oldest first."""
    return _kept(database.fetch(f"{_SELECT} WHERE id = ANY (%s) ORDER BY id", (list(ids),)))


def dead_letter_ids(database: Database) -> list[int]:
    """The ids of all, the oldest first."""
    return [row[0] for row in database.fetch("SELECT id FROM status_dead_letters ORDER BY id")]


def delete_dead_letter(database: Database, letter_id: int) -> None:
    """The letter is gone: what it says is recorded elsewhere."""
    database.execute("DELETE FROM status_dead_letters WHERE id = %s", (letter_id,))


_SELECT = "SELECT source, reason, content, flow_session_id, received_at, id FROM status_dead_letters"


def _kept(rows: Sequence[Row]) -> list[KeptDeadLetter]:
    return [KeptDeadLetter(DeadLetter(row[0], row[1], bytes(row[2]), row[3]), row[4], row[5]) for row in rows]


def _storable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode().replace("\x00", "\\x00")
