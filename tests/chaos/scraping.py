"""The metrics of a campaign as Prometheus has them: every worker is scraped all the time, and compared at the end.

What must be true meanwhile is in tests/support/scrape_watch.py. At the end, when nothing runs any more, each worker
must tell exactly what PostgreSQL says.
"""

from __future__ import annotations

import re
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from typing import Any, Final

import psycopg2

from orchestration.telemetry.metrics import Source
from parallelizer.services.supervision import LoggedProgram
from tests.chaos.faults import Injected
from tests.chaos.stack import ChaosStack
from tests.support.scrape_watch import ScrapeWatch
from tests.support.scrapes import ENDPOINT, Scrape, counted, differences, recorded, scrape

SCRAPE_SECONDS: Final = 1.0
#: What a worker tells was read at most so long ago: it is fresh for a second, and a read may take five.
LAG_SECONDS: Final = 7.0
#: Until each worker tells what is recorded, when nothing runs any more; one that has just begun is waited for.
LAST_SECONDS: Final = 30.0
_ENDED: Final = """
SELECT workflow, status, count(*) FROM flow_sessions
WHERE status NOT IN ('queued', 'running', 'suspended', 'paused') GROUP BY 1, 2
"""
_AWAY: Final = (OSError, psycopg2.Error)


class Scraper:
    """Scrapes the workers of a stack that are on this host, from a thread of its own."""

    def __init__(self, stack: ChaosStack) -> None:
        self.watch = ScrapeWatch()
        self._stack = stack
        #: When runs that had ended were counted, and how many.
        self._ended: deque[tuple[float, Counter[tuple[str, ...]]]] = deque()
        #: Answers that PostgreSQL could not be compared with so far.
        self._open: list[tuple[str, Scrape, Counter[tuple[str, ...]]]] = []
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="scraper", daemon=True)

    def start(self) -> None:
        """Scrape from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Scrape no more."""
        self._stopping.set()
        self._thread.join()

    def findings(self, faults: Sequence[Injected], last_seconds: float = LAST_SECONDS) -> list[str]:
        """What can't be of all that was scraped, and where workers tell other than PostgreSQL; nothing runs any more.

        Args: last_seconds: for the latter; what they tell may have been read a moment ago.
        """
        falls = [fall.text for fall in self.watch.falls if not _is_allowed(fall.source, fall.since, fall.until, faults)]
        return [*self.watch.wrong, *falls, *self._last(last_seconds)]

    def _run(self) -> None:
        while not self._stopping.wait(SCRAPE_SECONDS):
            for place, worker in self._workers():
                if worker.name in self._stack.frozen:
                    continue
                asked = time.time()
                with suppress(*_AWAY):
                    told = scrape(self._url(worker))
                    self.watch.look(str(place), worker.name, time.time(), told)
                    self._open.append((worker.name, told, self._ended_before(asked - LAG_SECONDS)))
            with suppress(*_AWAY):
                self._ended.append((time.time(), Counter({row[:2]: row[2] for row in self._rows(_ENDED)})))
                for worker_name, told, before in self._open:
                    self.watch.compare_runs(worker_name, told, before, self._ended[-1][1])
                self._open.clear()

    def _last(self, seconds: float) -> list[str]:
        """Of each worker, how it differs from PostgreSQL in the end."""
        differ, deadline, pause = ["nothing was scraped"], time.monotonic() + seconds, threading.Event()
        while differ and time.monotonic() < deadline:
            pause.wait(SCRAPE_SECONDS)
            said, differ = recorded(self._rows), []
            for _, worker in self._workers():
                try:
                    told = scrape(self._url(worker))
                except OSError as error:
                    differ.append(f"{worker.name} tells no metrics: {error}")
                else:
                    differ += [f"{worker.name}: {text}" for text in differences(counted(told), said)]
        return differ

    def _workers(self) -> list[tuple[int, LoggedProgram]]:
        return [each for each in enumerate([*self._stack.workers]) if each[0] not in self._stack.hosts]

    def _url(self, worker: LoggedProgram) -> str:
        """Where it says that its metrics are; its upkeep process may have been replaced.

        Raises: OSError: it has not said so yet.
        """
        found = re.findall(ENDPOINT, worker.log.read_text(errors="replace"))
        if not found:
            raise ConnectionError("it has not logged where they are")
        return str(found[-1])

    def _ended_before(self, moment: float) -> Counter[tuple[str, ...]]:
        while len(self._ended) > 1 and self._ended[1][0] <= moment:
            self._ended.popleft()
        return self._ended[0][1] if self._ended and self._ended[0][0] <= moment else Counter()

    def _rows(self, statement: str) -> list[tuple[Any, ...]]:
        with (
            closing(psycopg2.connect(self._stack.database_url, connect_timeout=2)) as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute(statement)
            return cursor.fetchall()


@contextmanager
def scraping(stack: ChaosStack) -> Iterator[Scraper]:
    """Scrape in the block."""
    scraper = Scraper(stack)
    scraper.start()
    try:
        yield scraper
    finally:
        scraper.stop()


def _is_allowed(source: Source, since: float, until: float, faults: Sequence[Injected]) -> bool:
    """Whether a counter may have begun anew: what Redis counts, when Redis has lost data."""
    return source is Source.LIVE and any(
        fault.lost_since and fault.lost_since <= until and since <= fault.over + LAG_SECONDS for fault in faults
    )
