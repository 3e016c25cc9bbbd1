"""Threads that nothing can end: they wait in C, although their action's time and the grace are over.

Nothing is lost by such a thread but itself: its branch has gone on without it. The worker says so, with the place in
the code. What becomes of the thread depends on the pool:

- prefork: its process ends itself, when all that runs beside in it has ended, and Celery starts another. The message
  comes again, as after a crash, and finds nothing to do.
- threads: a new thread takes its place. When it comes back it is one of the pool's again. The message comes again too.
  The worker does not wait for such threads when it stops.
- solo: nothing can be done about the only thread there is.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, Protocol, cast

from celery import bootsteps

from tasks.celery_app import app
from tasks.worker.limits.calls import ThreadCall
from tasks.worker.limits.pool import is_pool_process

_log = logging.getLogger(__name__)

#: More stuck threads than this are not replaced: the worker serves with fewer, and in the end not at all.
MOST: Final = 100
#: Between two looks at the threads of a pool that stops.
LOOK_SECONDS: Final = 0.1


class Message(Protocol):
    """What a worker knows of a message."""

    def lose_thread(self, *, given_up: bool) -> None:
        """The thread that runs it is stuck."""


class StuckThreads:
    """The stuck threads of this process."""

    def __init__(self) -> None:
        self._executor: ThreadPoolExecutor | None = None
        #: The message that a thread runs. Celery's own list has one for each task id, and messages may come twice.
        self._requests: dict[int, Message] = {}
        self._stuck: set[threading.Thread] = set()
        self._lock = threading.Lock()

    def serve(self, executor: ThreadPoolExecutor) -> None:
        """Replace threads of this pool."""
        self._executor = executor

    def begin(self, request: Message) -> None:
        """This thread begins to run a task."""
        if self._executor is not None:
            self._requests[threading.get_ident()] = request

    def report(self, call: ThreadCall) -> None:
        """A call can't be ended; returns at once."""
        threading.Thread(target=self._report, args=(call, call.call.action), name="stuck-report", daemon=True).start()

    def came_back(self, call: ThreadCall) -> None:
        """It has ended at last; called by its own thread."""
        seconds = (time.monotonic_ns() - call.began_ns) / 1e9
        _log.warning("thread %s came back from action %s after %.1f s", call.thread.name, call.call.action, seconds)
        if call.thread in self._stuck and self._executor is not None:
            self._threads_of(self._executor).add(call.thread)
        self._stuck.discard(call.thread)

    def wait_for_others(self) -> None:
        """Return when all threads of the pool have ended but for those that are stuck; it takes no more tasks."""
        executor = self._executor
        if executor is None:
            return
        executor.shutdown(wait=False, cancel_futures=True)
        threads = self._threads_of(executor)
        for thread in list(threads):
            while thread.is_alive() and thread not in self._stuck:
                thread.join(LOOK_SECONDS)
        threads -= self._stuck

    def leave(self, exit_code: int) -> None:
        """End the process if some are stuck: the interpreter would wait for them."""
        if self._stuck:
            _log.warning("%d threads are stuck; the worker ends without them", len(self._stuck))
            logging.shutdown()
            sys.stdout.flush()
            os._exit(exit_code)

    def _report(self, call: ThreadCall, action: str) -> None:
        thread, began_ns = call.thread, call.began_ns
        frame = sys._current_frames().get(thread.ident or 0)  # noqa: SLF001 - the only way to another thread's stack
        stack = "".join(traceback.format_stack(frame, limit=8)) if frame is not None else ""
        if call.successor is not None:
            call.successor.over.wait()
        with self._lock:
            if call.began_ns != began_ns or not call.runs:
                return  # it has come back meanwhile
            is_replaced = self._replace(thread)
        if is_replaced:
            self._hand_back(call)
        ends_process = is_pool_process()
        _log.error(
            "%s is stuck in action %s, %.1f s by now, and can't be ended; %s\n%s",
            f"process {os.getpid()}" if ends_process else f"thread {thread.name}", action,
            (time.monotonic_ns() - began_ns) / 1e9,
            "another takes its place" if is_replaced or ends_process else "it keeps its place", stack,
        )  # fmt: skip
        if ends_process:
            logging.shutdown()
            os.kill(os.getpid(), signal.SIGKILL)

    def _replace(self, thread: threading.Thread) -> bool:
        executor = self._executor
        if executor is None or thread not in self._threads_of(executor) or len(self._stuck) >= MOST:
            return False
        self._stuck.add(thread)
        self._threads_of(executor).discard(thread)  # the executor then starts another for the next task
        return True

    def _hand_back(self, call: ThreadCall) -> None:
        request = self._requests.get(call.thread.ident or 0)
        if request is not None:
            request.lose_thread(given_up=call.successor is None or call.successor.failed)

    @staticmethod
    def _threads_of(executor: ThreadPoolExecutor) -> set[threading.Thread]:
        threads: Any = executor._threads  # noqa: SLF001 - it has no other way
        return cast("set[threading.Thread]", threads)


#: This process's.
stuck_threads: Final = StuckThreads()


class ReplaceStuckThreads(bootsteps.StartStopStep):
    """Knows the pool while it runs; when it stops, waits for the threads that can still end."""

    requires = ("celery.worker.components:Pool",)

    def start(self, worker: Any) -> None:
        """Replace threads that get stuck, if the pool has such."""
        executor = getattr(worker.pool, "executor", None)
        if isinstance(executor, ThreadPoolExecutor):
            stuck_threads.serve(executor)

    def stop(self, _worker: Any) -> None:
        """The pool's own stop would wait for all of them."""
        stuck_threads.wait_for_others()


app.steps["worker"].add(ReplaceStuckThreads)
