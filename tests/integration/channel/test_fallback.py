"""A status update finds its way: the stream, or PostgreSQL itself."""

from __future__ import annotations

import threading

import pytest

from orchestration.channel.fallback import SentBy, send_with_fallback
from orchestration.channel.updater import Updater
from orchestration.errors import ServiceUnreachable
from orchestration.state.stream import StatusStream
from orchestration.store.pool import Database
from tests.integration.channel.entries import Entry, entry
from tests.integration.store.gate import Gate
from tests.integration.store.rows import new_id

NOWHERE = "redis://127.0.0.1:9"


def _send(stream: StatusStream, database: Database, update: Entry, *, retries: int = 3, delay_ms: int = 1) -> SentBy:
    return send_with_fallback(stream, database, update, max_send_retries=retries, base_retry_delay_ms=delay_ms)


def _recorded(database: Database, run: str) -> int:
    return len(database.fetch("SELECT 1 FROM tasks WHERE flow_session_id = %s", (run,)))


def test_an_update_goes_through_the_stream(stream: StatusStream, database: Database) -> None:
    run = new_id()
    assert _send(stream, database, entry(run, 1)) is SentBy.STREAM
    assert (stream.length(), _recorded(database, run)) == (1, 0)
    Updater(stream, database, "me").drain_all()
    assert _recorded(database, run) == 1


def test_without_redis_it_is_written_to_postgresql(database: Database) -> None:
    run = new_id()
    assert _send(StatusStream(NOWHERE, "none"), database, entry(run, 1)) is SentBy.DATABASE
    assert _recorded(database, run) == 1


def test_no_retries_means_straight_to_postgresql(stream: StatusStream, database: Database) -> None:
    run = new_id()
    assert _send(stream, database, entry(run, 1), retries=0) is SentBy.DATABASE
    assert (stream.length(), _recorded(database, run)) == (0, 1)


def test_a_redis_that_comes_back_between_attempts_gets_it(
    redis_url: str, namespace: str, stream: StatusStream, database: Database
) -> None:
    with Gate(redis_url) as gate:
        gate.close()
        opened = threading.Timer(0.05, gate.open)
        opened.start()
        behind = StatusStream(gate.url, namespace)
        assert _send(behind, database, entry(new_id(), 1), retries=12, delay_ms=5) is SentBy.STREAM
        opened.join()
        behind.close()
    assert stream.length() == 1


def test_with_neither_the_caller_is_told() -> None:
    with pytest.raises(ServiceUnreachable, match="PostgreSQL"):
        _send(StatusStream(NOWHERE, "none"), Database("postgresql://nobody@127.0.0.1:9/none"), entry(new_id(), 1))
