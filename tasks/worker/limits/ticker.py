"""Looks at the calls of a process when something is due of one: one thread, however many calls there are.

Calls are many and short, their time limits long. So a call that begins writes down when it is due and compares that
with the next look, which is mostly sooner; a call that ends tells nobody. A look that comes in vain, for a call that
has ended long ago, comes at most once in the time of the limit.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import threading
import time
import weakref
from typing import Final, Protocol

from orchestration.engine.threads import leave_signals_to_main

_log = logging.getLogger(__name__)

#: Nothing is due. By `time.monotonic_ns`, like all times here.
NEVER: Final = 1 << 62
#: After a look that failed.
AGAIN_NS: Final = 1_000_000_000


class Watched(Protocol):
    """A call, or the calls of one thread."""

    #: When something is to be done. Written by the thread of the call before it begins, by the ticker while it runs.
    due_ns: int

    def expire(self, now_ns: int) -> int:
        """Do what is due; returns when the next thing is."""


class Ticker:
    """The looks of one process; the thread starts when it is first needed."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Watch nothing; in a forked child, where the thread and the calls of the parent are not."""
        #: When it looks next, unless it is woken.
        self.wake_ns = NEVER
        self._watched: dict[int, weakref.ref[Watched]] = {}
        self._numbers = itertools.count()
        self._starting = threading.Lock()
        self._runs = False
        #: The thread waits for it. A bare lock: a limit may land while it is released, and an Event would stay locked.
        self._gate = threading.Lock()

    def watch(self, watched: Watched) -> None:
        """Look at it as long as it exists."""
        number, known = next(self._numbers), self._watched
        known[number] = weakref.ref(watched, lambda _: known.pop(number, None))
        if not self._runs:
            with self._starting:
                if not self._runs:
                    self._start()
                    self._runs = True

    def watched(self) -> list[Watched]:
        """What it looks at."""
        known = [reference() for reference in list(self._watched.values())]
        return [watched for watched in known if watched is not None]

    def wake(self) -> None:
        """Something is due sooner than `wake_ns`."""
        with contextlib.suppress(RuntimeError):  # it is open already
            self._gate.release()

    def look(self) -> None:
        """Do what is due, and plan the next look."""
        self.wake_ns, next_ns, now = NEVER, NEVER, time.monotonic_ns()
        for watched in self.watched():
            due_ns = watched.due_ns
            if due_ns <= now:
                due_ns = self._expire(watched, now)
            next_ns = min(next_ns, due_ns)
        # a call that began meanwhile has seen NEVER, and wakes
        self.wake_ns = next_ns

    def _start(self) -> None:
        threading.Thread(target=self._run, name="time-limits", daemon=True).start()

    @staticmethod
    def _expire(watched: Watched, now_ns: int) -> int:
        try:
            return watched.expire(now_ns)
        except Exception:  # noqa: BLE001 - such as a thread that can't be started: the others must not suffer
            _log.exception("the time limit of a call could not be kept; trying again")
            return now_ns + AGAIN_NS

    def _run(self) -> None:
        leave_signals_to_main()
        while True:
            self.look()
            left_ns = self.wake_ns - time.monotonic_ns()
            self._gate.acquire(timeout=min(threading.TIMEOUT_MAX, max(0, left_ns) / 1e9))
