"""`TimeLimit` of the engine, on every pool.

engine code               user code                        engine code
nothing is raised here    raises when its time is over     nothing is raised here
SIGUSR1: kept             raises, or what was kept does    kept, dropped at the end of the task
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable, Coroutine
from typing import Any

from billiard.common import terminate_handler_fired
from billiard.exceptions import SoftTimeLimitExceeded
from billiard.process import current_process
from celery.exceptions import WorkerShutdown, WorkerTerminate

from orchestration.engine.invoke import Call, Late
from tasks.worker.limits.asynchronous import run_limited
from tasks.worker.limits.calls import LANDS, TIME_IS_OVER, Stuck, ThreadCall, call_of_thread, calls_of_process
from tasks.worker.limits.celery_soft import is_guarded, keep_out, let_in

_log = logging.getLogger(__name__)


def is_pool_process() -> bool:
    """Whether this is a process of the pool prefork, which the worker's main process replaces."""
    return bool(current_process().name != "MainProcess")


class PoolTimeLimit:
    """Time limits of one process.

    Args: grace_seconds: from the end of a call's time to the hard limit.
    """

    timeout_error: type[BaseException] = SoftTimeLimitExceeded
    passes: tuple[type[BaseException], ...] = (WorkerShutdown, WorkerTerminate)

    def __init__(self, grace_seconds: float = 5.0, stuck: Stuck | None = None) -> None:
        self._grace_ns = int(grace_seconds * 1e9)
        self._stuck = stuck

    def call(self, call: Call, function: Callable[[], Any], late: Late | None = None) -> Any:
        """Call `function`; SoftTimeLimitExceeded is raised in it when the time of `call` is over; see `TimeLimit`."""
        if call.seconds <= 0:
            raise SoftTimeLimitExceeded(call.seconds)
        own = call_of_thread()
        guarded = is_guarded()
        try:
            value = self._call(own, call, function, late, guarded)
        except self.passes:
            raise
        except BaseException as error:
            _end(own, guarded=guarded)
            if own.is_over:
                raise own.leave() from (None if isinstance(error, TIME_IS_OVER) else error)
            if terminate_handler_fired():
                # a signal ends this process (a cold shutdown): it says nothing of the action, which runs again
                raise WorkerTerminate from error
            raise
        if own.is_over:
            raise own.leave()
        return value

    def _call(self, own: ThreadCall, call: Call, function: Callable[[], Any], late: Late | None, guarded: bool) -> Any:
        """What lands between these lines is raised by this method, and its caller takes it for what it is."""
        try:
            own.begin(call, late, self._grace_ns, self._stuck)
            if guarded:
                let_in()
            return function()
        finally:
            try:  # the lines of `_end`: called here it would cost each item some 60 ns
                if guarded:
                    keep_out()
                own.end()
            except LANDS:  # the function had ended already
                _end(own, guarded=guarded)

    async def run(self, call: Call, coroutine: Coroutine[Any, Any, Any], late: Late | None = None) -> Any:
        """Run `coroutine` beside others; it is cancelled when the time of `call` is over; see `TimeLimit`."""
        return await run_limited(call, coroutine, late, self._grace_ns)

    def interrupt(self) -> None:
        """Raise Cancelled in the calls of this process whose session is cancelled; from any thread."""
        for call in calls_of_process():
            call.interrupt()

    def end_process(self) -> None:
        """End a process of the pool whose main thread is in such a call; the worker starts another."""
        main = threading.main_thread()
        if is_pool_process() and any(call.thread is main and call.holds_cancelled for call in calls_of_process()):
            _log.error("process %d does not end what was cancelled, and is ended", os.getpid())
            os.kill(os.getpid(), signal.SIGKILL)


def _end(own: ThreadCall, *, guarded: bool) -> None:
    if guarded:
        keep_out()
    own.end()
