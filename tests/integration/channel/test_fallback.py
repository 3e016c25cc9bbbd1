"""What Redis does not take is in PostgreSQL, or on disk until PostgreSQL takes it."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from orchestration.channel.fallback import Fallback
from orchestration.channel.spool import Spool
from orchestration.errors import ServiceUnreachable
from orchestration.store.dead_letters import list_dead_letters
from orchestration.store.pool import Database
from tests.integration.channel.entries import entry
from tests.integration.store.gate import Gate
from tests.integration.store.rows import new_id

ROOM = 1 << 30
NOWHERE = "postgresql://nobody@127.0.0.1:9/none"


def _recorded(database: Database, run: str) -> dict[int, str]:
    rows = database.fetch("SELECT item, status FROM tasks WHERE flow_session_id = %s", (run,))
    return {row[0]: row[1] for row in rows}


def test_an_update_goes_straight_to_postgresql(database: Database, tmp_path: Path) -> None:
    run = new_id()
    Fallback(database, Spool(tmp_path, ROOM)).keep(entry(run, 1, 2))
    assert _recorded(database, run) == {1: "succeeded", 2: "succeeded"}
    assert list(tmp_path.iterdir()) == []


def test_without_postgresql_it_waits_on_disk_and_is_replayed_once_it_is_back(
    database: Database, database_url: str, tmp_path: Path
) -> None:
    run = new_id()
    with Gate(database_url) as gate:
        behind = Fallback(Database(gate.url), Spool(tmp_path, ROOM), batch_rows=3)
        gate.close()
        for item in range(10):
            behind.keep(entry(run, item))
        with pytest.raises(ServiceUnreachable):
            behind.replay_spool()
        assert len(list(tmp_path.iterdir())) == 1
        gate.open()
        assert behind.replay_spool().records == 10
    assert _recorded(database, run) == dict.fromkeys(range(10), "succeeded")
    assert list(tmp_path.iterdir()) == []


def test_what_comes_twice_and_late_changes_nothing(database: Database, tmp_path: Path) -> None:
    run = new_id()
    away, here = Fallback(Database(NOWHERE), Spool(tmp_path, ROOM)), Fallback(database, Spool(tmp_path, ROOM))
    for update in (entry(run, 1, status="running", sequence=100_001), entry(run, 1), entry(run, 1)):
        away.keep(update)
    here.keep(entry(run, 1, status="failed", sequence=200_005))
    here.replay_spool()
    assert _recorded(database, run) == {1: "failed"}


def test_a_full_spool_is_told_and_stops_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Fallback(Database(NOWHERE), Spool(tmp_path, most_bytes=10)).keep(entry(new_id(), 1))
    assert "in memory only" in caplog.text
    assert "SPOOL_MAX_BYTES" in caplog.text


def test_a_folder_that_can_not_be_made_is_told_and_stops_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    Fallback(Database(NOWHERE), Spool(tmp_path / "file" / "spool", ROOM)).keep(entry(new_id(), 1))
    assert "in memory only" in caplog.text


def test_what_can_not_be_read_in_the_spool_is_a_dead_letter(
    database: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = new_id()
    spool = Spool(tmp_path, ROOM)
    spool.append(b"no entry at all")
    Fallback(Database(NOWHERE), spool).keep(entry(run, 1))
    with caplog.at_level(logging.ERROR):
        Fallback(database, spool).replay_spool()
    assert _recorded(database, run) == {1: "succeeded"}
    assert list_dead_letters(database, 1)[0].letter.content == b"no entry at all"
