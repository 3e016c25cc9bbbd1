"""The batch writer alone: rows that wait in the status channel, as after an outage of PostgreSQL."""

from __future__ import annotations

import gc
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from threading import Event, Thread
from typing import ClassVar, Self

import orjson
import psutil

from orchestration.channel.parse import Fields, parse_entry
from orchestration.channel.updater import Updater
from orchestration.state.rows import sequence_of
from orchestration.state.stream import StatusStream
from orchestration.store.pool import Database
from orchestration.store.updates import write_rows
from tests.performance.comparison import Comparison, Goal, Sample
from tests.performance.counting import Counters, expect
from tests.performance.memory import LOOK_SECONDS, MB
from tests.performance.stack import PREFORK, WorkerKind

#: Rows in an entry, as a chunk of items makes it, and in a transaction, as the updater's.
ROWS_IN_ENTRY = 250
BATCH_ROWS = 5000


@dataclass(frozen=True, slots=True)
class Backlog:
    """So many rows in the stream of a namespace that no worker drains."""

    rows: int
    #: Written without the stream, of rows that are parsed before the clock starts.
    rows_alone: int
    name: ClassVar[str] = "backlog"
    beside: ClassVar[str] = ""
    worker: ClassVar[WorkerKind] = PREFORK
    repeats: ClassVar[int] = 1
    comparisons: ClassVar[Sequence[Comparison]] = (
        Comparison("write_rows alone", "rows/s", "alone", goal=Goal(30_000.0)),
        Comparison("from the stream until it is empty", "rows/s", "drained"),
        Comparison("the process that drains grows by", "MB", "process_peak", goal=Goal(50.0, is_most=True)),
    )

    @property
    def title(self) -> str:
        return f"{self.rows:,} rows that wait in the status channel"

    def warm_up(self, counters: Counters) -> None:
        self._drain(counters, min(self.rows, 2 * BATCH_ROWS))

    def ours(self, counters: Counters) -> Sample:
        alone = self._write_alone(counters)
        drained, peak = self._drain(counters, self.rows)
        return Sample(
            {"alone": alone, "drained": drained, "process_peak": peak},
            {"rows": self.rows, "rows_alone": self.rows_alone},
        )

    def other(self, counters: Counters) -> None:
        """Nothing: the goal is a number."""
        del counters

    def _write_alone(self, counters: Counters) -> float:
        """Rows a second."""
        session = str(uuid.uuid4())
        parsed = [parse_entry("alone", fields) for fields in _entries(session, self.rows_alone)]
        at_once = BATCH_ROWS // ROWS_IN_ENTRY
        begun = time.perf_counter()
        for at in range(0, len(parsed), at_once):
            write_rows(counters.database, [row for entry in parsed[at : at + at_once] for row in entry.tasks])
        seconds = time.perf_counter() - begun
        expect("rows written", _rows_of(counters.database, session), self.rows_alone)
        return self.rows_alone / seconds

    def _drain(self, counters: Counters, rows: int) -> tuple[float, float]:
        """Rows a second, and MB by which this process grew meanwhile, the Python side of it all."""
        session, namespace = str(uuid.uuid4()), f"backlog{uuid.uuid4().hex[:8]}"
        with closing(StatusStream(counters.stack.redis_url, namespace)) as stream:
            for fields in _entries(session, rows):
                stream.append(fields)
            gc.collect()
            updater = Updater(stream, counters.database, "bench", batch_rows=BATCH_ROWS)
            with _Growth() as growth:
                begun = time.perf_counter()
                drained = updater.drain_all()
                seconds = time.perf_counter() - begun
            expect("rows drained", drained.rows, rows)
            expect("entries left", stream.length(), 0)
        expect("rows recorded", _rows_of(counters.database, session), rows)
        return rows / seconds, growth.most_bytes / MB


class _Growth:
    """The most by which this process is larger than at the beginning of the block."""

    def __init__(self) -> None:
        self.most_bytes = 0
        self._process, self._over = psutil.Process(), Event()
        self._thread = Thread(target=self._watch, name="growth")

    def __enter__(self) -> Self:
        self._before = self._process.memory_info().rss
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(LOOK_SECONDS):
            self.most_bytes = max(self.most_bytes, self._process.memory_info().rss - self._before)


def _entries(session: str, rows: int) -> Iterator[Fields]:
    """Entries as chunks of items send them."""
    now_us, day = time.time_ns() // 1000, datetime.now(UTC).date().isoformat()
    head = [(b"s", session.encode()), (b"d", day.encode()), (b"t", str(now_us).encode()), (b"w", b"worker@bench")]
    sequence = sequence_of(1, 0)
    for start in range(0, rows, ROWS_IN_ENTRY):
        blob = orjson.dumps(
            [
                [
                    "t",
                    "each",
                    item,
                    "succeeded",
                    1,
                    sequence,
                    "branches",
                    now_us - 20,
                    now_us - 10,
                    f'{{"n":{item}}}',
                    None,
                ]
                for item in range(start, min(start + ROWS_IN_ENTRY, rows))
            ]
        )
        yield [*head, (b"b", blob)]


def _rows_of(database: Database, session: str) -> int:
    query = "SELECT count(*) FROM tasks WHERE flow_session_id = %s AND session_day >= current_date - 1"
    return int(database.fetch(query, (session,))[0][0])
