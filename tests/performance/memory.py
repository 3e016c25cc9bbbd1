"""What Redis and the worker's processes need of memory while something runs: the most that was seen, and what stays."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

import psutil

from tests.performance.counting import Counters, WrongCount

#: Between two looks; a million items take some thousand of them.
LOOK_SECONDS = 0.01
MB = 1e6
#: In the command line of the upkeep process.
UPKEEP = "tasks.upkeep"


class MemoryWatch:
    """Looks again and again while the block runs."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="memory-watch")
        self._pool = [psutil.Process(pid) for pid in counters.pool_processes()]
        self._upkeep = _upkeep_of(self._pool)
        self._redis_before = self._redis_peak = counters.redis_bytes()
        self._before = self._resident()
        self._peak = dict(self._before)
        self._is_lost = False

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def measures(self) -> dict[str, float]:
        """What grew by how much, MB; call when the work is done.

        Raises: WrongCount: a process has ended meanwhile.
        """
        if self._is_lost:
            raise WrongCount("a process of the worker ended while its memory was watched")
        grown = {pid: (peak - self._before[pid]) / MB for pid, peak in self._peak.items()}
        return {
            "redis_peak": (self._redis_peak - self._redis_before) / MB,
            "redis_after": (self._counters.redis_bytes() - self._redis_before) / MB,
            "process_peak": max(grown[process.pid] for process in self._pool),
            "upkeep_peak": grown[self._upkeep.pid],
        }

    def _watch(self) -> None:
        while not self._over.wait(LOOK_SECONDS):
            self._redis_peak = max(self._redis_peak, self._counters.redis_bytes())
            try:
                resident = self._resident()
            except psutil.NoSuchProcess:
                self._is_lost = True
                return
            self._peak = {pid: max(peak, resident[pid]) for pid, peak in self._peak.items()}

    def _resident(self) -> Mapping[int, int]:
        return {process.pid: process.memory_info().rss for process in [*self._pool, self._upkeep]}


def _upkeep_of(pool: Sequence[psutil.Process]) -> psutil.Process:
    """The upkeep process of the worker that these belong to."""
    worker = pool[0].parent()
    assert worker is not None
    return next(child for child in worker.children() if UPKEEP in child.cmdline())
