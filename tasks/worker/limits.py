"""Time limits of user code: a timer of the branch's own, on pools that run tasks in a main thread (prefork, solo).

The handler raises only while it is armed, that is around user code: an alarm that comes later is ignored, so it can't
land in the engine. On other threads no timer exists, and the call is not limited here.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from billiard.exceptions import SoftTimeLimitExceeded
from celery.exceptions import WorkerShutdown, WorkerTerminate


class PoolTimeLimit:
    """`TimeLimit` of the engine, by SIGALRM."""

    timeout_error: type[BaseException] = SoftTimeLimitExceeded
    passes: tuple[type[BaseException], ...] = (WorkerShutdown, WorkerTerminate)

    def __init__(self) -> None:
        self._armed = False
        self._installed = False

    def call(self, seconds: float, function: Callable[[], Any]) -> Any:
        """Call `function`; SoftTimeLimitExceeded is raised in it when `seconds` are over."""
        if threading.current_thread() is not threading.main_thread():
            return function()
        if not self._installed:
            signal.signal(signal.SIGALRM, self._expire)
            self._installed = True
        if seconds <= 0:
            raise SoftTimeLimitExceeded(seconds)
        try:
            self._armed = True
            signal.setitimer(signal.ITIMER_REAL, seconds)
            return function()
        finally:
            # An alarm between these lines raises inside this call, where the caller takes it for what it is.
            self._armed = False
            signal.setitimer(signal.ITIMER_REAL, 0)

    def _expire(self, _number: int, _frame: FrameType | None) -> None:
        if self._armed:
            self._armed = False
            raise SoftTimeLimitExceeded
