"""Time limits of user code: a timer of the branch's own, on pools that run tasks in a main thread (prefork, solo).

    engine code            user code               engine code
    SIGALRM: ignored       raises                  ignored
    SIGUSR1: blocked       delivered               blocked, dropped at the end of the task

SIGALRM is ours: its handler raises only while it is armed. SIGUSR1 is Celery's soft time limit, which stands behind: an
exception out of a signal handler in the middle of a call to Redis would leave its reply to the next call, or crash the
client (hiredis 3.5 does), so the signal is blocked but around user code. On other threads no timer exists, and the call
is not limited here.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # the public module makes enums: 1.4 µs a mask against 0.5
import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from billiard.exceptions import SoftTimeLimitExceeded
from celery import signals
from celery.exceptions import WorkerShutdown, WorkerTerminate

from orchestration.engine.cancellation import Cancellation
from tasks.canvas import ProcessorTask
from tasks.worker import lifecycle

_log = logging.getLogger(__name__)
#: By which the timer may be early against the monotonic clock.
EARLY_NS = 5_000_000
_SOFT = {signal.SIGUSR1}
_guarded = threading.local()


class PoolTimeLimit:
    """`TimeLimit` of the engine, by signals."""

    timeout_error: type[BaseException] = SoftTimeLimitExceeded
    passes: tuple[type[BaseException], ...] = (WorkerShutdown, WorkerTerminate)

    def __init__(self) -> None:
        self._armed = False
        self._runs = False
        self._installed = False
        self._over_ns = 0
        self._cancellation = Cancellation()

    def call(self, seconds: float, function: Callable[[], Any], cancellation: Cancellation | None = None) -> Any:
        """Call `function`; SoftTimeLimitExceeded is raised in it when `seconds` are over, Cancelled by `interrupt`."""
        if threading.current_thread() is not threading.main_thread():
            return function()
        if not self._installed:
            signal.signal(signal.SIGALRM, self._expire)
            self._installed = True
        if seconds <= 0:
            raise SoftTimeLimitExceeded(seconds)
        self._over_ns = time.monotonic_ns() + int(seconds * 1e9) - EARLY_NS
        self._cancellation = cancellation = cancellation or Cancellation()
        guarded = getattr(_guarded, "task", False)
        # A signal between these lines raises inside this call, where the caller takes it for what it is.
        try:
            try:
                self._armed = self._runs = True
                cancellation.raise_if_set()  # whoever sets it from now on finds the call armed
                signal.setitimer(signal.ITIMER_REAL, seconds)
                if guarded:
                    _signal.pthread_sigmask(_signal.SIG_UNBLOCK, _SOFT)
                return function()
            finally:
                if guarded:
                    _signal.pthread_sigmask(_signal.SIG_BLOCK, _SOFT)
        finally:
            if guarded:
                _signal.pthread_sigmask(_signal.SIG_BLOCK, _SOFT)
            self._armed = self._runs = False
            signal.setitimer(signal.ITIMER_REAL, 0)

    def interrupt(self) -> None:
        """Raise Cancelled in the call that runs in the main thread, if it is of a session that was cancelled."""
        if self._installed:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGALRM)

    def end_process(self) -> None:
        """End a child of the pool whose main thread is in user code; the worker starts another."""
        if self._runs and lifecycle.is_pool_child():
            _log.error("[WORKER] process %d does not end what was cancelled, and is ended", os.getpid())
            os.kill(os.getpid(), signal.SIGKILL)

    def _expire(self, _number: int, _frame: FrameType | None) -> None:
        if self._armed:
            if self._cancellation.is_set:
                self._armed = False
                self._cancellation.raise_if_set()
            elif time.monotonic_ns() >= self._over_ns:
                self._armed = False
                raise SoftTimeLimitExceeded


@signals.task_prerun.connect(weak=False)
def guard(task: Any = None, **_: Any) -> None:
    """A task of ours begins: from here on Celery's soft time limit reaches user code only."""
    if isinstance(task, ProcessorTask) and threading.current_thread() is threading.main_thread():
        _signal.pthread_sigmask(_signal.SIG_BLOCK, _SOFT)
        _guarded.task = True


@signals.task_postrun.connect(weak=False)
def unguard(task: Any = None, **_: Any) -> None:
    """It has ended: a limit that came too late is not the next task's."""
    if isinstance(task, ProcessorTask) and getattr(_guarded, "task", False):
        signal.sigtimedwait(_SOFT, 0)
        _guarded.task = False
        _signal.pthread_sigmask(_signal.SIG_UNBLOCK, _SOFT)
