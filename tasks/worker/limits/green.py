"""Time limits where threads are greenlets (Celery's pool gevent): all of them run in the process's main thread.

The ticker is no thread there, since one greenlet that computes keeps all others from running. Its looks are signals of
the kernel's timer. An exception for the greenlet that runs just now is raised by the signal's handler; any other one
waits, and the hub throws it in, as `gevent.Timeout` does.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from tasks.worker.limits.ticker import NEVER, Ticker


def is_green() -> bool:
    """Whether threads are greenlets in this process."""
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))


def make_ticker() -> Ticker:
    """The ticker that this process needs."""
    return GreenTicker() if is_green() else Ticker()


class GreenTicker(Ticker):
    """Looks when SIGALRM comes."""

    #: To be raised by the handler, in the greenlet that it has interrupted.
    raises: type[BaseException] | None = None

    def wake(self) -> None:
        """Something is due sooner than `wake_ns`: the next signal comes then."""
        self._plan(min((watched.due_ns for watched in self.watched()), default=NEVER))

    def _start(self) -> None:
        signal.signal(signal.SIGALRM, self._alarm)

    def _plan(self, due_ns: int) -> None:
        self.wake_ns = due_ns
        left_ns = max(1000, due_ns - time.monotonic_ns())  # a timer of zero is off
        signal.setitimer(signal.ITIMER_REAL, left_ns / 1e9 if due_ns < NEVER else 0)

    def _alarm(self, _number: int, _frame: FrameType | None) -> None:
        self.raises = None
        self.look()
        self._plan(self.wake_ns)
        error, self.raises = self.raises, None
        if error is not None:
            raise error


class GreenRaiser:
    """Raises in the greenlet that makes it.

    Args: may_land: whether user code runs there just now.
    """

    def __init__(self, may_land: Callable[[], bool]) -> None:
        import gevent  # noqa: PLC0415 - an extra

        self._gevent: Any = gevent
        self._greenlet = gevent.getcurrent()
        self._may_land = may_land
        self._thrown: type[BaseException] | None = None

    def arm(self, seconds: float, error: type[BaseException]) -> bool:
        del seconds, error
        return False

    def throw(self, error: type[BaseException]) -> None:
        from tasks.worker.limits.calls import ticker  # noqa: PLC0415 - which makes this

        assert isinstance(ticker, GreenTicker)
        if self._gevent.getcurrent() is self._greenlet:
            ticker.raises = error
        else:
            self._thrown = error
            self._gevent.get_hub().loop.run_callback_threadsafe(self._deliver)

    def throw_again(self) -> None:
        """It is not missed."""

    def take_back(self) -> None:
        self._thrown = None

    def _deliver(self) -> None:
        error, self._thrown = self._thrown, None
        if error is not None and self._may_land():
            self._greenlet.throw(error)
