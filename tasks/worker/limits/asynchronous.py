"""Time limits of async actions that run beside others on one event loop.

    when its time is over     it is cancelled; what it gives from now on is not taken
    + LATE                    one that takes no notice is left to itself, and its branch goes on
    + grace, then each second it is cancelled again
    its session is cancelled  it is cancelled once, and what it makes of that is taken

An action that keeps the loop from running anything else (it computes, or calls what waits in C) can't be cancelled. So
each step of it, from one `await` to the next, is a call under the limit of its thread (calls.py): when the time is
over, an exception is raised in the step, and if that does not end it, the branch goes on without it, in another thread.
What such a step takes of the time of others, some of which may not even have begun, is given back to them.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Coroutine, Generator
from types import TracebackType
from typing import Any, Final

from billiard.exceptions import SoftTimeLimitExceeded

from orchestration.engine.cancellation import on_loop
from orchestration.engine.invoke import Call, GivenUp, Late
from orchestration.errors import Cancelled
from tasks.worker.limits.calls import LATE_NS, TIME_IS_OVER, call_of_thread

_log = logging.getLogger(__name__)

AGAIN_SECONDS: Final = 1.0
#: A step that is longer keeps the loop from others: their time does not go on meanwhile.
KEEPS_NS: Final = LATE_NS
#: Of actions that take no notice, until they end: nothing else refers to their tasks.
_left: Final[set[asyncio.Task[Any]]] = set()


class _LoopOfThread(threading.local):
    """The event loop that this thread runs."""

    #: How long steps have kept it, in all.
    kept_ns = 0


_loop_of_thread: Final = _LoopOfThread()


async def run_limited(call: Call, coroutine: Coroutine[Any, Any, Any], late: Late | None, grace_ns: int) -> Any:
    """Run an action in a task of its own; see `TimeLimit.run`."""
    loop, is_interrupted = asyncio.get_running_loop(), False
    steps = LimitedSteps(call, coroutine, late, grace_ns)
    task: asyncio.Task[Any] = loop.create_task(steps)

    def interrupt() -> None:
        nonlocal is_interrupted
        is_interrupted = task.cancel()

    try:
        with call.cancellation.interrupting(on_loop(loop, interrupt)):
            await _wait_for(call, task, steps, grace_ns)
    except asyncio.CancelledError:
        task.cancel()
        await asyncio.wait((task,), timeout=grace_ns / 1e9)
        raise
    except Cancelled:
        task.cancel()  # it has not begun
        raise
    finally:
        call.kept_ns = steps.kept_ns
    if is_interrupted and task.cancelled():
        raise Cancelled
    return task.result()


async def _wait_for(call: Call, task: asyncio.Task[Any], steps: LimitedSteps, grace_ns: int) -> None:
    while not task.done() and (left_ns := steps.due_ns - time.monotonic_ns()) > 0:
        await asyncio.wait((task,), timeout=left_ns / 1e9)
    if task.done():
        return
    task.cancel()
    await asyncio.wait((task,), timeout=LATE_NS / 1e9)
    if not task.done():
        _leave(call, task, grace_ns / 1e9)
    elif not task.cancelled() and isinstance(task.exception(), GivenUp):
        raise GivenUp
    raise SoftTimeLimitExceeded(call.seconds)


def _leave(call: Call, task: asyncio.Task[Any], grace_seconds: float) -> None:
    _log.warning("async action %s takes no notice of being cancelled; its branch goes on without it", call.action)

    async def cancel_again() -> None:
        pause = grace_seconds
        while not task.done():
            await asyncio.wait((task,), timeout=pause)
            task.cancel()
            pause = AGAIN_SECONDS

    for each in (task, asyncio.get_running_loop().create_task(cancel_again())):
        _left.add(each)
        each.add_done_callback(_forget)


def _forget(task: asyncio.Task[Any]) -> None:
    _left.discard(task)
    if not task.cancelled():
        task.exception()  # nobody else asks for it


class LimitedSteps(Coroutine[Any, Any, Any]):
    """The coroutine of an action; no step of it keeps the loop longer than its time."""

    def __init__(self, call: Call, coroutine: Coroutine[Any, Any, Any], late: Late | None, grace_ns: int) -> None:
        self._call = call
        self._coroutine = coroutine
        self._late = late
        self._grace_ns = grace_ns
        self._began_ns = time.monotonic_ns()
        self._kept_before_ns = _loop_of_thread.kept_ns
        self._keeps_ns = 0

    @property
    def kept_ns(self) -> int:
        """How long others have kept the loop since it began."""
        return _loop_of_thread.kept_ns - self._kept_before_ns - self._keeps_ns

    @property
    def due_ns(self) -> int:
        """When its time is over (`time.monotonic_ns`), unless others keep the loop meanwhile."""
        due_ns, latest_ns = self._began_ns + int(self._call.seconds * 1e9) + self.kept_ns, self._call.latest_ns
        return due_ns if latest_ns is None else min(due_ns, latest_ns)

    def send(self, value: Any) -> Any:
        """Run to the next `await`."""
        return self._step(self._coroutine.send, value)

    def throw(  # type: ignore[override]  # the one signature that asyncio uses
        self, error: Any, value: BaseException | None = None, traceback: TracebackType | None = None
    ) -> Any:
        """Raise an exception, such as CancelledError, where it waits."""
        del value, traceback
        return self._step(self._coroutine.throw, error)

    def close(self) -> None:
        """End it where it waits."""
        self._coroutine.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        raise TypeError("it is for a task of its own")

    def _step(self, go_on: Any, value: Any) -> Any:
        own = call_of_thread()
        late, due_ns, now = self._late, self.due_ns, time.monotonic_ns()
        if now >= due_ns:  # it cleans up, and its branch does not wait for it
            late, due_ns = None, max(now, due_ns + self._grace_ns)
        try:
            try:
                own.begin_step(self._call, late, self._began_ns, due_ns, self._grace_ns)
                waits_for = go_on(value)
            finally:
                try:
                    own.end()
                except TIME_IS_OVER:  # the step had ended already
                    own.end()
                self._note_step(now)
        except BaseException as error:
            own.end()
            if own.is_over:
                raise own.leave() from (None if isinstance(error, TIME_IS_OVER) else error)
            raise
        if own.is_over:
            raise own.leave()
        return waits_for

    def _note_step(self, began_ns: int) -> None:
        step_ns = time.monotonic_ns() - began_ns
        if step_ns > KEEPS_NS:
            self._keeps_ns += step_ns
            _loop_of_thread.kept_ns += step_ns
