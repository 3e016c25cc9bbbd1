"""What the processes of one worker count, in memory that they share: no file, so nothing is left of whoever is killed.

A table of whole numbers. Each process writes a row of its own; the worker's upkeep process reads all of them. A child
that takes the place of a dead one takes over its row and goes on counting, so the numbers only rise and there are never
more rows than places in the pool. The memory is the worker's: it goes with its last process, and a worker that is
started again begins at nought, as counters may. Seconds are counted in ns.

An addition costs some 0.2 µs: add once for each settlement or batch, not for each item.
"""

from __future__ import annotations

import mmap
import os
import tempfile
import threading
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from orchestration.telemetry.metrics import METRICS, Metric, Source, Type
from orchestration.vocabulary import Verdict

#: Rows of a worker: its main process (the pool, where it is one of threads), its upkeep process, children.
MAIN_ROW, UPKEEP_ROW, FIRST_CHILD_ROW = 0, 1, 2
#: Children beyond so many share the last row, and may lose a count.
ROWS: Final = FIRST_CHILD_ROW + 510
NS: Final = 1_000_000_000
_BYTES: Final = 8

#: What a process may tell apart, by label.
VALUES: Final[Mapping[str, tuple[str, ...]]] = {
    "verdict": tuple(verdict.value for verdict in Verdict),
    "way": ("postgresql", "spool", "memory"),
}


@dataclass(frozen=True, slots=True)
class Column:
    """One number: of a counter, one for each value of its label; of a histogram, a bucket, or the sum."""

    metric: Metric
    label: str = ""
    #: Place of a bucket; None: it is the number itself, or the sum.
    bucket: int | None = None


def _columns() -> Iterator[Column]:
    for metric in METRICS.values():
        if metric.source is not Source.WORKER or metric.type is Type.GAUGE:
            continue
        if metric.bounds is not None:
            yield from (Column(metric, bucket=place) for place in range(len(metric.bounds.whole) + 1))
        elif metric.type is Type.SUMMARY:
            yield Column(metric, bucket=0)
        for label in VALUES[metric.labels[0]] if metric.labels else ("",):
            yield Column(metric, label)


COLUMNS: Final = tuple(_columns())
_PLACES: Final = {(column.metric.short_name, column.label, column.bucket): at for at, column in enumerate(COLUMNS)}
_SIZE_BYTES: Final = ROWS * len(COLUMNS) * _BYTES


class WorkerCounters:
    """The table, as one process sees it; until `share` or `join` it is this process's alone."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cells = memoryview(bytearray(_SIZE_BYTES)).cast("q")
        self._row = MAIN_ROW
        self._file: int | None = None
        os.register_at_fork(after_in_child=self._renew_lock)

    def share(self) -> int:
        """Begin anew in memory that children see; returns the descriptor by which a program that is started joins."""
        if self._file is None:
            with tempfile.TemporaryFile() as file:  # it has no name, so it can't be left behind
                file.truncate(_SIZE_BYTES)
                self._file = os.dup(file.fileno())
            self._map(self._file, MAIN_ROW)
        return self._file

    def join(self, descriptor: int) -> None:
        """Use the memory of a worker, as its upkeep process."""
        self._map(descriptor, UPKEEP_ROW)

    def use_row_of_child(self, index: int) -> None:
        """Count as the child at this place of the pool, from 0."""
        self._row = min(FIRST_CHILD_ROW + index, ROWS - 1)

    def add(self, name: str, number: int, label: str = "") -> None:
        """A counter is higher by so much; seconds in ns."""
        at = self._row * len(COLUMNS) + _PLACES[name, label, None]
        with self._lock:
            self._cells[at] += number

    def observe(self, name: str, value: int) -> None:
        """One more value of a histogram or summary; seconds in ns."""
        bounds = METRICS[name].bounds
        place = bisect_left(bounds.whole, value) if bounds is not None else 0
        start = self._row * len(COLUMNS)
        with self._lock:
            self._cells[start + _PLACES[name, "", place]] += 1
            self._cells[start + _PLACES[name, "", None]] += value

    def read(self) -> list[int]:
        """The numbers of all processes of the worker together, as `COLUMNS` has them."""
        cells, width = self._cells, len(COLUMNS)
        return [sum(cells[at : ROWS * width : width]) for at in range(width)]

    def _map(self, descriptor: int, row: int) -> None:
        self._cells = memoryview(mmap.mmap(descriptor, _SIZE_BYTES)).cast("q")
        self._row = row

    def _renew_lock(self) -> None:
        self._lock = threading.Lock()


#: What this process counts in.
counters: Final = WorkerCounters()
