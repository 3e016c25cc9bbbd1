"""The flushing thread of a process: looks, every 20 ms while anything runs, at what has run for longer than that.

It flushes chunks whose current item is slow (chunk.py), sees whether the session was cancelled (cancellation.py), and
sends the status `running` of what runs for 30 ms: a shorter branch is recorded once, when it has ended, which halves
the rows of a large `for_each`.

It must not take the signals of time limits: they are for the thread that runs users' code.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Protocol

from orchestration.engine.threads import leave_signals_to_main

_log = logging.getLogger(__name__)

#: Between two looks. A wait, not a lock: an item that ends meanwhile costs nothing.
LOOK_SECONDS: Final = 0.02


class Reporter(Protocol):
    """Stands for one runner; see `EnhancedBranchProcessor`."""

    def report(self, rows: list[list[object]]) -> None: ...
    def look(self, now_ns: int) -> None: ...


class Watched(Protocol):
    """Something that runs."""

    def look(self, now_ns: int) -> list[list[object]]:
        """Do what must be done meanwhile; returns rows to send. Called by the flushing thread."""


class Flusher:
    """One for each process; the thread starts with the first thing to watch, and waits when there is none."""

    def __init__(self) -> None:
        self._watched: dict[int, tuple[Watched, Reporter]] = {}
        self._something = threading.Event()
        self._pid = 0
        self._starting = threading.Lock()

    @contextmanager
    def watching(self, watched: Watched, reporter: Reporter) -> Iterator[None]:
        """Look at it while the block runs."""
        if self._pid != os.getpid():
            self._start()
        key = id(watched)
        self._watched[key] = (watched, reporter)
        if not self._something.is_set():
            self._something.set()
        try:
            yield
        finally:
            del self._watched[key]

    def _start(self) -> None:
        with self._starting:
            if self._pid != os.getpid():
                self._watched, self._something = {}, threading.Event()
                threading.Thread(target=self._run, name="flusher", daemon=True).start()
                self._pid = os.getpid()

    def _run(self) -> None:
        leave_signals_to_main()
        while True:
            self._something.wait()
            time.sleep(LOOK_SECONDS)
            rows: dict[int, tuple[Reporter, list[list[object]]]] = {}
            looked = list(self._watched.values())
            for watched, reporter in looked:
                self._look(watched, reporter, rows)
            for reporter in {id(reporter): reporter for _, reporter in looked}.values():
                try:
                    reporter.look(time.monotonic_ns())
                except Exception:  # noqa: BLE001 - as below; it looks again
                    _log.warning("can't see whether a session was cancelled", exc_info=True)
            for reporter, found in rows.values():
                try:
                    reporter.report(found)
                except Exception:  # noqa: BLE001 - the thread must live; the end of the branch is recorded in any case
                    _log.warning("could not report what runs", exc_info=True)
            if not self._watched:
                self._something.clear()
                if self._watched:  # something came in between
                    self._something.set()

    @staticmethod
    def _look(watched: Watched, reporter: Reporter, rows: dict[int, tuple[Reporter, list[list[object]]]]) -> None:
        try:
            found = watched.look(time.monotonic_ns())
        except Exception:  # noqa: BLE001 - the runner repeats what failed here, and meets the error itself
            _log.warning("could not settle the finished items of a chunk yet", exc_info=True)
            return
        if found:
            rows.setdefault(id(reporter), (reporter, []))[1].extend(found)


#: This process's.
flusher: Final = Flusher()
