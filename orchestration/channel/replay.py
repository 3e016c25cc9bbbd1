"""Dead letters are tried again: after the processor, the schema or the server has changed, they may be recorded.

Letters are of three kinds (parse.py, store/updates.py): a whole entry of the stream, of which not even the flow session
could be read; rows of an entry, or one of them; and a row that PostgreSQL refused.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from orchestration.channel.parse import Fields, ParsedEntry, parse_entry, parse_text
from orchestration.store import sessions
from orchestration.store.dead_letters import DeadLetter, KeptDeadLetter, delete_dead_letter
from orchestration.store.pool import Database
from orchestration.store.updates import REFUSED_ROW, BranchUpdate, SessionUpdate, TaskUpdate, write_rows

_STREAM_ID = re.compile(r"(\d{1,15})-\d+")


@dataclass(frozen=True, slots=True)
class Replay:
    """What became of a dead letter that was tried again."""

    id: int
    #: It is recorded, and the letter is gone.
    is_recorded: bool
    #: Why not. A row that PostgreSQL refuses again stands in a new letter.
    reason: str = ""


def replay_dead_letter(database: Database, kept: KeptDeadLetter) -> Replay:
    """Record what a dead letter says, if that is possible now.

    Raises: ServiceUnreachable: nothing has changed, or it is recorded and the letter is there still; try again.
    """
    parsed = _parse(database, kept)
    if parsed.dead_letters:
        return Replay(kept.id, is_recorded=False, reason=parsed.dead_letters[0].reason)
    written = write_rows(database, parsed.tasks, parsed.branches, parsed.sessions)
    delete_dead_letter(database, kept.id)
    if written.refused:
        return Replay(kept.id, is_recorded=False, reason=written.refused[0].reason)
    return Replay(kept.id, is_recorded=True)


def _parse(database: Database, kept: KeptDeadLetter) -> ParsedEntry:
    letter = kept.letter
    if letter.source == REFUSED_ROW:
        return _refused_row(letter)
    if letter.flow_session_id is None:
        return parse_text(letter.source, letter.content)
    session = sessions.find_session(database, letter.flow_session_id)
    if session is None:
        return _unreadable(letter, f"flow session {letter.flow_session_id} is not recorded, or was dropped (retention)")
    found = _STREAM_ID.fullmatch(letter.source)
    # nothing in it happened later: the id of an entry has its time in ms by Redis
    until_us = (int(found[1]) + 1) * 1000 if found else int(kept.received_at.timestamp() * 1e6)
    head: Fields = [
        (b"s", letter.flow_session_id.encode()),
        (b"d", session.session_day.isoformat().encode()),
        (b"t", str(until_us).encode()),
    ]
    return parse_entry(letter.source, [*head, (b"b", _rows(letter.content))])


def _rows(content: bytes) -> bytes:
    """The content as an array of rows, of which it may be one."""
    try:
        value = json.loads(content)
    except ValueError:
        return content
    is_row = isinstance(value, list) and bool(value) and not isinstance(value[0], list)
    return b"[" + content + b"]" if is_row else content


def _refused_row(letter: DeadLetter) -> ParsedEntry:
    values = json.loads(letter.content)
    match len(values):
        case 13:
            return ParsedEntry(tasks=[TaskUpdate(*values)])
        case 12:
            return ParsedEntry(branches=[BranchUpdate(*values)])
        case 4:
            return ParsedEntry(sessions=[SessionUpdate(*values)])
    return _unreadable(letter, f"no row has {len(values)} fields")


def _unreadable(letter: DeadLetter, reason: str) -> ParsedEntry:
    return ParsedEntry(dead_letters=[DeadLetter(letter.source, reason, letter.content, letter.flow_session_id)])
