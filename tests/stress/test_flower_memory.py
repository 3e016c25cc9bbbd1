"""Flower stays small while 200,000 branches go by and all of its pages are looked at."""

from __future__ import annotations

import re
import sys
import threading
from contextlib import closing
from functools import partial
from pathlib import Path

import httpx

from orchestration.store.pool import Database
from orchestration.store.sessions import find_session
from orchestration.vocabulary import RunStatus
from tests.support.clients import running_client
from tests.support.fleet import Fleet
from tests.support.flower import RunningFlower, running_flower
from tests.support.waiting import wait_until

RUNS, ITEMS = 4, 50_000
MOST_BYTES = 200_000_000
#: On a busy machine; one run takes some seconds on a quiet one.
RUN_SECONDS = 300.0
WIDE = {"name": "wide", "actions": {"each": {"uses": "core.noop", "for_each": {"range": ITEMS}}}}


def peak_bytes(flower: RunningFlower) -> int:
    """The most memory that Flower's process ever had resident."""
    assert flower.program.process is not None
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{flower.program.process.pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


class Reader(threading.Thread):
    """Reads a stream until it ends, and counts its events."""

    def __init__(self, flower: RunningFlower, path: str) -> None:
        super().__init__(daemon=True)
        self._client, self._path = flower.client(), path
        self.events = 0

    def run(self) -> None:
        try:
            with self._client.stream("GET", self._path) as answer:
                for line in answer.iter_lines():
                    self.events += line.startswith("event: ")
        except httpx.TransportError:  # Flower has been stopped
            pass


def test_flower_stays_below_200_mb_over_200_000_branches(fleet: Fleet) -> None:
    fleet.start(2, concurrency=2)
    with (
        running_flower(fleet, "basic") as flower,
        running_client(fleet) as client,
        closing(Database(fleet.database_url)) as database,
    ):
        browser = flower.client()
        at_first = peak_bytes(flower)
        readers = [
            Reader(flower, path)
            for path in ("/flow/stream/runs", "/flow/stream/limits?open=global", "/flow/stream/throughput")
        ]
        for reader in readers:
            reader.start()
        sessions = []
        for _ in range(RUNS):
            sessions.append(client.run("result = send(workflow).delay().id", workflow=WIDE))
            wait_until(partial(_is_accepted, database, sessions[-1]), "it is accepted", RUN_SECONDS)
            mark = browser.get(f"/flow/api/run/{sessions[-1]}").json()["mark"]
            readers.append(Reader(flower, f"/flow/api/run/{sessions[-1]}/events/{mark}"))
            readers[-1].start()
            wait_until(partial(_has_ended, database, sessions[-1]), "it has ended", RUN_SECONDS)
        for session in sessions:
            for part in (
                "",
                "/tasks?limit=1000",
                "/task?action=each&item=7",
                "/why",
                "/density?from=0&to=1000000&bins=1000",
            ):
                assert browser.get(f"/flow/api/run/{session}{part}").status_code == 200, part
            assert browser.get(f"/flow/api/run/{session}").json()["total"] == ITEMS + 1
        assert all(reader.events for reader in readers)
        peak = peak_bytes(flower)
        sys.stdout.write(f"Flower: {at_first / 1e6:.0f} MB when it began, {peak / 1e6:.0f} MB at most\n")
        assert peak < MOST_BYTES


def _is_accepted(database: Database, session: str) -> bool:
    return find_session(database, session) is not None


def _has_ended(database: Database, session: str) -> bool:
    row = find_session(database, session)
    assert row is not None
    if row.status.is_final:
        assert row.status is RunStatus.SUCCEEDED
    return row.status.is_final
