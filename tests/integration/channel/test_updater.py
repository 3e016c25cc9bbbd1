"""The updater: everything in the stream ends in PostgreSQL, whatever dies on the way."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import redis

from orchestration.channel import updater as updater_module
from orchestration.channel.updater import Drained, Updater
from orchestration.errors import ServiceUnreachable
from orchestration.state.stream import StatusStream
from orchestration.store.dead_letters import list_dead_letters
from orchestration.store.pool import Database
from tests.integration.channel.entries import entry
from tests.integration.store.gate import Gate
from tests.integration.store.rows import new_id


def _items(database: Database, flow_session_id: str) -> dict[int, str]:
    rows = database.fetch("SELECT item, status FROM tasks WHERE flow_session_id = %s ORDER BY item", (flow_session_id,))
    return {row[0]: row[1] for row in rows}


@contextmanager
def _running(updater: Updater) -> Iterator[threading.Thread]:
    thread = threading.Thread(target=updater.run)
    thread.start()
    try:
        yield thread
    finally:
        updater.stop()
        thread.join()


def _wait_until_empty(stream: StatusStream, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while stream.length() and time.monotonic() < deadline:
        threading.Event().wait(0.005)
    assert stream.length() == 0


def test_what_is_in_the_stream_is_written_and_the_stream_is_empty(stream: StatusStream, database: Database) -> None:
    run = new_id()
    for start in range(0, 900, 3):
        stream.append(entry(run, start, start + 1, start + 2))
    updater = Updater(stream, database, "me", batch_rows=100)
    assert updater.drain_all() == Drained(entries=300, rows=900)
    assert _items(database, run) == dict.fromkeys(range(900), "succeeded")
    assert (stream.length(), stream.pending()) == (0, 0)


def test_batches_adapt_to_the_size_of_entries(stream: StatusStream, database: Database) -> None:
    run = new_id()
    for start in range(0, 2000, 50):
        stream.append(entry(run, *range(start, start + 50)))
    updater = Updater(stream, database, "me", batch_rows=100)
    updater.drain_once()
    assert updater.drain_once() == Drained()
    for start in range(0, 500, 50):
        stream.append(entry(run, *range(start, start + 50), sequence=200_005))
    assert updater.drain_once() == Drained(entries=2, rows=100)
    updater.drain_all()


def test_an_entry_arrives_within_milliseconds_and_stop_is_heard_at_once(
    stream: StatusStream, database: Database
) -> None:
    run = new_id()
    updater = Updater(stream, database, "me")
    with _running(updater) as thread:
        for item in range(20):
            stream.append(entry(run, item))
            _wait_until_empty(stream)
        began = time.monotonic()
        updater.stop()
        thread.join()
        assert time.monotonic() - began < 0.3
    assert len(_items(database, run)) == 20


def test_what_an_updater_read_before_it_died_is_written_by_its_successor(
    stream: StatusStream, database: Database
) -> None:
    run = new_id()
    for item in range(10):
        stream.append(entry(run, item))
    stream.read_batch("me", 4, 0)  # then it died
    Updater(stream, database, "me").drain_all()
    assert len(_items(database, run)) == 10
    assert stream.length() == 0


def test_what_another_updater_read_before_it_died_is_taken_over(stream: StatusStream, database: Database) -> None:
    run = new_id()
    for item in range(10):
        stream.append(entry(run, item))
    stream.read_batch("dead", 4, 0)
    other = Updater(stream, database, "me", claim_idle_seconds=0)
    with _running(other):
        _wait_until_empty(stream)
    assert len(_items(database, run)) == 10
    assert stream.pending() == 0


def test_entries_that_were_written_but_not_acknowledged_are_written_again_without_harm(
    stream: StatusStream, database: Database
) -> None:
    run = new_id()
    late = entry(run, 1, status="running", sequence=100_001)
    for one in (entry(run, 1), late, entry(run, 1)):
        stream.append(one)
        Updater(stream, database, "me").drain_all()
    assert _items(database, run) == {1: "succeeded"}


def test_several_updaters_share_the_stream(stream: StatusStream, database: Database) -> None:
    run = new_id()
    for item in range(400):
        stream.append(entry(run, item, status="running", sequence=100_001))
        stream.append(entry(run, item))
    updaters = [Updater(stream, database, f"updater {n}", batch_rows=20) for n in range(3)]
    with _running(updaters[0]), _running(updaters[1]), _running(updaters[2]):
        _wait_until_empty(stream)
    assert _items(database, run) == dict.fromkeys(range(400), "succeeded")
    assert stream.pending() == 0


def test_while_postgresql_is_away_nothing_is_lost(
    stream: StatusStream, database: Database, database_url: str, caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(updater_module, "LONGEST_RETRY_SECONDS", 0.1)
    run = new_id()
    failed = threading.Event()
    monkeypatch.setattr(updater_module._log, "warning", lambda *_: failed.set())
    with Gate(database_url) as gate:
        behind = Database(gate.url)
        with _running(Updater(stream, behind, "me")):
            stream.append(entry(run, 1))
            _wait_until_empty(stream)
            gate.close()
            for item in range(2, 50):
                stream.append(entry(run, item))
            assert failed.wait(10)
            assert stream.length() == 48
            gate.open()
            _wait_until_empty(stream)
        behind.close()
    assert len(_items(database, run)) == 49


def test_a_stop_is_heard_while_postgresql_is_away(stream: StatusStream, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = threading.Event()
    monkeypatch.setattr(updater_module._log, "warning", lambda *_: failed.set())
    stream.append(entry(new_id(), 1))
    with _running(Updater(stream, Database("postgresql://nobody@127.0.0.1:9/none"), "me")) as thread:
        assert failed.wait(10)
        assert thread.is_alive()


def test_a_redis_that_comes_back_is_found_again(
    redis_url: str, namespace: str, stream: StatusStream, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(updater_module, "LONGEST_RETRY_SECONDS", 0.1)
    failed = threading.Event()
    monkeypatch.setattr(updater_module._log, "warning", lambda *_: failed.set())
    run = new_id()
    with Gate(redis_url) as gate, _running(Updater(StatusStream(gate.url, namespace), database, "me")):
        gate.close()
        assert failed.wait(10)
        stream.append(entry(run, 1))
        gate.open()
        _wait_until_empty(stream)
    assert _items(database, run) == {1: "succeeded"}


def test_what_can_not_be_read_is_kept_and_told_and_stops_nobody(
    stream: StatusStream, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    run = new_id()
    nonsense = stream.append([(b"\xff", b"\x00")])
    stream.append([*entry(run, 1), (b"b", b"no json")])
    bad_result = entry(run, 2)
    bad_result[-1] = (b"b", b'[["t","work",2,"succeeded",1,100005,"q",1,1,"NaN",null]]')
    stream.append(bad_result)
    with caplog.at_level(logging.ERROR):
        drained = Updater(stream, database, "me").drain_all()
    assert drained == Drained(entries=3, rows=2, dead_letters=3)
    assert _items(database, run) == {1: "succeeded", 2: "succeeded"}
    assert stream.length() == 0
    assert {one.letter.content for one in list_dead_letters(database, 3)} >= {b"no json"}
    assert nonsense in caplog.text


def test_an_entry_that_was_deleted_meanwhile_is_acknowledged(
    stream: StatusStream, database: Database, redis_url: str, namespace: str
) -> None:
    entry_id = stream.append(entry(new_id(), 1))
    stream.read_batch("me", 1, 0)
    with redis.Redis.from_url(redis_url) as client:
        client.xdel(f"pz:{{{namespace}}}:status", entry_id)
    Updater(stream, database, "me").drain_all()
    assert stream.pending() == 0


def test_without_postgresql_a_round_raises_and_the_entries_stay_pending(stream: StatusStream) -> None:
    stream.append(entry(new_id(), 1))
    updater = Updater(stream, Database("postgresql://nobody@127.0.0.1:9/none"), "me")
    with pytest.raises(ServiceUnreachable):
        updater.drain_once()
    assert (stream.length(), stream.pending()) == (1, 1)
