"""Updates that are to become spans are acknowledged when those are sent, and told again by another if they were not."""

from __future__ import annotations

from collections.abc import Sequence

import orjson
import pytest

from orchestration.channel import updater as updater_module
from orchestration.channel.updater import Updater
from orchestration.state.stream import StatusStream
from orchestration.store.pool import Database
from orchestration.telemetry.tracing import NOTE, TracedRows
from tests.integration.channel.entries import Entry, entry
from tests.integration.store.rows import new_id


class Sender:
    """Says that spans are sent when the test says so."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.sent = 0

    def add(self, updates: Sequence[TracedRows]) -> int:
        self.told += [update.flow_session_id for update in updates]
        return len(self.told)

    def is_sent(self, ticket: int) -> bool:
        return self.sent >= ticket

    def send_now(self) -> None:
        self.sent = len(self.told)


def traced(flow_session_id: str) -> Entry:
    """An entry with a note."""
    *head, (name, rows) = entry(flow_session_id, 1)
    note = [NOTE, f"00-{'1' * 32}-{'2' * 16}-01", 1, {"n": 1, "b": "work"}]
    return [*head, (name, orjson.dumps([note, *orjson.loads(rows)]))]


def test_updates_are_acknowledged_when_their_spans_are_sent(stream: StatusStream, database: Database) -> None:
    sender, first = Sender(), new_id()
    updater = Updater(stream, database, "me", spans=sender)
    stream.append(traced(first))
    assert updater.drain_once().rows == 1
    assert (sender.told, stream.pending()) == ([first], 1)
    stream.append(entry(new_id(), 1))
    updater.drain_once()
    assert stream.pending() == 1, "what has no spans waits for nothing"
    sender.sent = 1
    updater.drain_once()
    assert stream.pending() == 0


def test_spans_that_a_dead_updater_did_not_send_are_told_by_another(stream: StatusStream, database: Database) -> None:
    lost, other, session = Sender(), Sender(), new_id()
    stream.append(traced(session))
    Updater(stream, database, "lost", spans=lost).drain_once()
    updater = Updater(stream, database, "other", claim_idle_seconds=0.0, spans=other)
    assert updater.drain_once().rows == 1
    assert other.told == [session]


def test_a_receiver_that_is_away_keeps_no_update(
    stream: StatusStream, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(updater_module, "HOLD_SECONDS", 0.0)
    updater = Updater(stream, database, "me", spans=Sender())
    stream.append(traced(new_id()))
    updater.drain_once()
    updater.drain_once()
    assert (stream.pending(), stream.length()) == (0, 0)


def test_an_updater_that_goes_on_after_an_error_tells_no_span_twice(stream: StatusStream, database: Database) -> None:
    sender, session = Sender(), new_id()
    updater = Updater(stream, database, "me", spans=sender)
    stream.append(traced(session))
    updater.drain_once()
    assert stream.pending() == 1, "its spans are not sent yet"
    updater.replay_pending()
    assert sender.told == [session]
