"""The call that a thread is in, and what happens to it when its time is over.

    due               what                                           then
    its limit         SoftTimeLimitExceeded is raised in it           what it gives is not taken any more
    + LATE            its branch goes on without it, in another       its thread has nothing more to do when it comes
                      thread (`Successor`)                            back: GivenUp
    + grace           HardTimeLimit, which no `except Exception`      again each second
                      catches, is raised in it
    + STUCK           it waits in C, where nothing can be raised:     its thread is reported

All of it is done by the ticker under the call's lock; the call ends under the same lock. So nothing is raised in a
thread whose call has ended. The same holds for Cancelled, which is raised once, under that lock, in a call whose
session is cancelled while its time is not over.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from contextlib import AbstractContextManager, nullcontext
from typing import Final, Protocol

from billiard.exceptions import SoftTimeLimitExceeded

from orchestration.engine.invoke import Call, GivenUp, Late
from orchestration.engine.threads import leave_signals_to_main
from orchestration.errors import Cancelled
from tasks.worker.limits.green import GreenRaiser, is_green, make_ticker
from tasks.worker.limits.raising import MainRaiser, Raiser, ThreadRaiser
from tasks.worker.limits.ticker import NEVER

_log = logging.getLogger(__name__)

#: This process's.
ticker: Final = make_ticker()
os.register_at_fork(after_in_child=ticker.forget)
#: A call that has not ended so long after its time is over is given up. Long against the time that an exception takes
#: to go up through code that does not hold it (milliseconds), short against what people notice.
LATE_NS: Final = 100_000_000
#: A call that has not ended so long after the hard limit was raised in it waits in C.
STUCK_NS: Final = 250_000_000
#: Between two attempts to end it.
AGAIN_NS: Final = 1_000_000_000


class HardTimeLimit(BaseException):
    """Raised in user code that has not ended in the grace after its time was over."""


#: What lands in a thread because a time is over.
TIME_IS_OVER: Final = (SoftTimeLimitExceeded, HardTimeLimit)
#: What lands in a thread at all.
LANDS: Final = (*TIME_IS_OVER, Cancelled)


class Stuck(Protocol):
    """Told of calls that nothing can end."""

    def report(self, call: ThreadCall) -> None:
        """It waits in C. Called in the ticker's thread, which must not wait."""

    def came_back(self, call: ThreadCall) -> None:
        """It has ended at last. Called in its own thread."""


class Successor:
    """The thread that goes on without a call."""

    def __init__(self, call: Call, late: Late, began_ns: int, *, blocks: bool) -> None:
        self._call = call
        self._late = late
        self._began_ns = began_ns
        self._blocks = blocks
        #: It has done all there was to do, or failed.
        self.over = threading.Event()
        #: It could not go on.
        self.failed = False
        threading.Thread(target=self._run, name="successor", daemon=True).start()

    def _run(self) -> None:
        leave_signals_to_main()
        try:
            place = self._call.action if self._call.item < 0 else f"{self._call.action}:{self._call.item}"
            _log.warning(
                "action %s (%s) does not end although its time (%g s) is over; its branch goes on without it",
                place, self._call.spec.name, self._call.seconds,
            )  # fmt: skip
            self._late(self._call, self._began_ns, self._blocks)
        except Exception:  # noqa: BLE001 - the process that is stuck is given up as after a crash
            self.failed = True
            _log.exception("nobody can go on without action %s yet", self._call.action)
        finally:
            self.over.set()


class ThreadCall:
    """The call that the thread which makes this is in; one after another."""

    def __init__(self) -> None:
        self.lock: AbstractContextManager[object] = threading.Lock()
        self.due_ns = NEVER
        self.runs = self._is_armed = False
        self.thread = threading.current_thread()
        self._raiser: Raiser = self._make_raiser()
        self.began_ns = 0
        self.call: Call
        self._late: Late | None
        self._grace_ns = 0
        self._stuck: Stuck | None = None
        self._start_anew()
        ticker.watch(self)

    def _start_anew(self) -> None:
        """Nothing has happened to the call that is about to begin."""
        self._is_anew = True
        #: Its time is over.
        self.is_over = False
        self.successor: Successor | None = None
        self.is_stuck = self._blocks = self._is_interrupted = False
        self._step = self._soft

    def _make_raiser(self) -> Raiser:
        if is_green():
            # all that runs is in one thread, and the ticker's looks are signals: a lock would wait for itself
            self.lock = nullcontext()
            return GreenRaiser(lambda: self.runs)
        return MainRaiser(self._lands) if self.thread is threading.main_thread() else ThreadRaiser()

    def begin(self, call: Call, late: Late | None, grace_ns: int, stuck: Stuck | None) -> None:
        """User code begins.

        Args: grace_ns: from the end of its time to the hard limit.
        """
        if not self._is_anew:  # mostly it is, and each item would pay for it
            self._start_anew()
        now, seconds = time.monotonic_ns(), call.seconds
        self.call, self._late, self._grace_ns, self._stuck, self.began_ns = call, late, grace_ns, stuck, now
        self.due_ns = due_ns = now + int(seconds * 1e9)
        self.runs = True
        self._is_armed = self._raiser.arm(seconds, SoftTimeLimitExceeded)
        if due_ns < ticker.wake_ns:
            ticker.wake()
        if call.cancellation.is_set:  # whoever sets it from now on finds the call
            raise Cancelled

    def begin_step(self, call: Call, late: Late | None, began_ns: int, due_ns: int, grace_ns: int) -> None:
        """A coroutine of user code, which began then, goes on; in a thread that runs an event loop."""
        self._start_anew()
        self.call, self._late, self._grace_ns, self._stuck, self.began_ns = call, late, grace_ns, None, began_ns
        self._is_anew, self._is_armed, self._blocks = False, False, True
        self.due_ns = due_ns
        self.runs = True
        if due_ns < ticker.wake_ns:
            ticker.wake()

    def end(self) -> None:
        """User code has ended, and nothing lands from now on."""
        self.runs = False
        with self.lock:
            if self._is_armed or self.is_over or self._is_interrupted:
                self._raiser.take_back()

    def interrupt(self) -> None:
        """Raise Cancelled in it, if its session is cancelled; called by another thread."""
        with self.lock:
            if not self.holds_cancelled or self.is_over or self.call.spec.is_async:
                return
            if self._is_interrupted:
                self._raiser.throw_again()
            else:
                # from here on the ticker sees to its time
                self._is_interrupted, self._is_armed, self._is_anew = True, False, False
                self._raiser.throw(Cancelled)

    @property
    def holds_cancelled(self) -> bool:
        """Whether user code of a session that is cancelled runs in it."""
        return self.runs and self.call.cancellation.is_set

    def leave(self) -> BaseException:
        """What the caller gets of a call whose time was over before it ended."""
        if self._stuck is not None and self.is_stuck:
            self._stuck.came_back(self)
        if self.successor is not None:
            self.successor.over.wait()
            return GivenUp()
        error: BaseException = SoftTimeLimitExceeded(self.call.seconds)
        return error

    def expire(self, now_ns: int) -> int:
        """See `Watched`."""
        with self.lock:
            if not self.runs:
                return NEVER
            if self.due_ns <= now_ns:
                self.due_ns = self._step(now_ns)
            return self.due_ns

    def _lands(self, error: type[BaseException]) -> bool:
        """Called by the main thread's raiser, between two steps of whatever runs there."""
        if self.runs and error is not Cancelled:
            self.is_over, self._is_anew = True, False
        return self.runs

    # One after another; each returns when the next is due

    def _soft(self, now_ns: int) -> int:
        self.is_over, self._is_anew, self._step = True, False, self._give_up
        if not self._is_armed:
            self._raiser.throw(SoftTimeLimitExceeded)
        return now_ns + LATE_NS

    def _give_up(self, now_ns: int) -> int:
        self._step = self._hard
        if self._late is not None:
            self.successor = Successor(self.call, self._late, self.began_ns, blocks=self._blocks)
        return now_ns + self._grace_ns - LATE_NS

    def _hard(self, now_ns: int) -> int:
        self._step = self._report
        self._raiser.throw(HardTimeLimit)
        return now_ns + STUCK_NS

    def _report(self, now_ns: int) -> int:
        self._step = self._again
        if self._stuck is not None:
            self.is_stuck = True
            self._stuck.report(self)
        return now_ns + AGAIN_NS

    def _again(self, now_ns: int) -> int:
        self._raiser.throw(HardTimeLimit)
        return now_ns + AGAIN_NS


_own: Final = threading.local()
os.register_at_fork(after_in_child=_own.__dict__.clear)


def call_of_thread() -> ThreadCall:
    """The call that this thread is in, or is about to be in."""
    try:
        own: ThreadCall = _own.call
    except AttributeError:
        own = _own.call = ThreadCall()
    return own


def calls_of_process() -> list[ThreadCall]:
    """Those of all its threads, whether user code runs in them or not."""
    return [watched for watched in ticker.watched() if isinstance(watched, ThreadCall)]
