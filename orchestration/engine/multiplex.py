"""Async branches side by side: one event loop for each process, on a thread of its own.

A branch that only waits, for a reply or a timer, needs no process: a runner that meets branches made of async actions
starts them here and claims further ones, up to `RUNNER_ASYNC_BRANCHES`, each with its own permit, claim and time limit.
Two processes carry a hundred waiting calls, and a limit of ten still means ten at once.

The loop has a thread of its own, so that the runner's thread can run a branch that is not async meanwhile, under its
timer, on every pool. While the runner is busy so, what ends here is settled from here; while it waits, it settles.

An action may keep the loop from running anything else, by a call that waits in C. When its own time is over its branch
goes on without it, and later branches get a new loop. If the old one is not back soon, what waits there can't be ended:
its claims are handed back, and run again elsewhere. It is cancelled when the loop is back.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any, Final

from orchestration.engine.branch import EnhancedBranchProcessor
from orchestration.engine.invoke import GivenUp
from orchestration.engine.threads import leave_signals_to_main
from orchestration.errors import StaleClaim, WorkflowExecutionError
from orchestration.vocabulary import Claim, Settlement

_log = logging.getLogger(__name__)

#: How long cancelled branches may take to end when a runner gives up.
CANCEL_SECONDS: Final = 5.0
#: How long an action may keep the loop, after its branch has gone on without it, before the others are handed back.
BLOCKED_SECONDS: Final = 5.0


class LoopBlocked(WorkflowExecutionError):
    """An action keeps the event loop from running the branches of others; they run again elsewhere."""


class _LoopThread:
    """The event loop of a process, started when first needed; a forked child makes its own."""

    def __init__(self) -> None:
        self._starting = threading.Lock()
        self._pid = 0
        self._loop: asyncio.AbstractEventLoop
        self._users: weakref.WeakSet[Multiplexer] = weakref.WeakSet()

    def use(self, user: Multiplexer) -> asyncio.AbstractEventLoop:
        """The loop, and word when it is lost."""
        loop = self.loop()
        self._users.add(user)
        return loop

    def leave(self, loop: asyncio.AbstractEventLoop) -> None:
        """An action blocks this loop: use another from now on, and give this one a while to come back."""
        with self._starting:
            if self._loop is not loop or self._pid != os.getpid():
                return  # it was left before
            self._pid = 0
        threading.Thread(target=self._wait_for, args=(loop,), name="blocked-loop", daemon=True).start()

    def _wait_for(self, loop: asyncio.AbstractEventLoop) -> None:
        leave_signals_to_main()
        back = threading.Event()
        loop.call_soon_threadsafe(back.set)
        if not back.wait(BLOCKED_SECONDS):
            for user in list(self._users):
                user.lose(loop)

    def loop(self) -> asyncio.AbstractEventLoop:
        if self._pid != os.getpid():
            with self._starting:
                if self._pid != os.getpid():
                    self._loop = asyncio.new_event_loop()
                    threading.Thread(target=self._run, args=(self._loop,), name="async-branches", daemon=True).start()
                    self._pid = os.getpid()
        return self._loop

    @staticmethod
    def _run(loop: asyncio.AbstractEventLoop) -> None:
        leave_signals_to_main()
        asyncio.set_event_loop(loop)
        loop.run_forever()


_thread: Final = _LoopThread()


class Multiplexer:
    """The async branches of one runner.

    Args: settle: settles what has ended and claims nothing; called on the loop's thread, while the runner is busy.
    """

    def __init__(self, processor: EnhancedBranchProcessor, settle: Callable[[Sequence[Settlement]], None]) -> None:
        self._processor = processor
        self._settle = settle
        self._loop = _thread.use(self)
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._finished: list[Settlement] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._running: dict[str, Claim] = {}
        self._error: BaseException | None = None
        self._is_busy = self._is_lost = False

    @property
    def running(self) -> int:
        """Branches that have not ended."""
        return len(self._running)

    def start(self, claims: Sequence[Claim]) -> None:
        """Begin to run branches, and return."""
        with self._lock:
            self._running.update((claim.unit, claim) for claim in claims)
        self._loop.call_soon_threadsafe(self._create, claims)

    def wait(self, seconds: float) -> list[Settlement]:
        """What has ended since the last call; waits for the first of them, at most so long.

        Raises: what a service that stays away makes of a call.
        """
        self._ended.wait(seconds)
        return self.take()

    def take(self) -> list[Settlement]:
        """What has ended since the last call.

        Raises: see `wait`.
        """
        with self._lock:
            if self._error is not None:
                raise self._error
            finished, self._finished = self._finished, []
            self._ended.clear()
        return finished

    def begin_busy(self) -> None:
        """From now on, what ends is settled from the loop's thread."""
        with self._lock:
            self._is_busy = True
            waiting = bool(self._finished)
        if waiting:
            self._loop.call_soon_threadsafe(self._settle_finished)

    def end_busy(self) -> None:
        """From now on, what ends is for `wait` and `take`."""
        with self._lock:
            self._is_busy = False

    def cancel(self) -> tuple[list[Settlement], list[Claim]]:
        """Give up all that runs. A branch that does not end in time is fenced out.

        Returns: what had ended, and the claims of the rest.
        """
        if self._running:
            over = threading.Event()
            self._loop.call_soon_threadsafe(self._cancel_all, over)
            if not self._is_lost and not over.wait(CANCEL_SECONDS):
                _log.warning("async branches that were cancelled do not end")
        with self._lock:
            return self._finished, list(self._running.values())

    def lose(self, loop: asyncio.AbstractEventLoop) -> None:
        """This loop is blocked and does not come back: the runner is told, if it has branches there."""
        with self._lock:
            if loop is not self._loop or not self._running:
                return
            self._is_lost = True
            self._error = self._error or LoopBlocked(
                f"{len(self._running)} async branches wait for a blocked event loop"
            )
        self._ended.set()

    def _without(self, claim: Claim) -> Callable[[Sequence[Settlement], bool], None]:
        def go_on(settlements: Sequence[Settlement], blocks: bool) -> None:
            with self._lock:
                self._running.pop(claim.unit, None)
                self._finished += settlements
            self._settle_finished()
            self._ended.set()
            if blocks:
                _thread.leave(self._loop)

        return go_on

    # On the loop's thread

    def _create(self, claims: Sequence[Claim]) -> None:
        for claim in claims:
            task = self._loop.create_task(self._run(claim))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _run(self, claim: Claim) -> None:
        settlement: Settlement | None = None
        error: BaseException | None = None
        try:
            settlement = await self._processor.process_async(claim, self._without(claim))
        except GivenUp:
            return
        except StaleClaim as stale:
            _log.warning("%s", stale)
        except asyncio.CancelledError:
            raise
        except BaseException as raised:  # noqa: BLE001 - the runner's thread raises it
            error = raised
        with self._lock:
            self._running.pop(claim.unit, None)
            if settlement is not None:
                self._finished.append(settlement)
            self._error = self._error or error
            settles_here = self._is_busy and len(self._finished) == 1
        if settles_here:
            self._loop.call_soon(self._settle_finished)  # with all that ends in this round of the loop
        self._ended.set()

    def _settle_finished(self) -> None:
        with self._lock:
            if not self._is_busy or not self._finished:
                return
            finished, self._finished = self._finished, []
        try:
            self._settle(finished)
        except Exception as error:  # noqa: BLE001 - the runner's thread raises it
            with self._lock:
                self._error = self._error or error

    def _cancel_all(self, over: threading.Event) -> None:
        tasks = set(self._tasks)
        for task in tasks:
            task.cancel()

        async def wait() -> None:
            if tasks:
                await asyncio.wait(tasks)
            over.set()

        waiter: asyncio.Task[Any] = self._loop.create_task(wait())
        self._tasks.add(waiter)
        waiter.add_done_callback(self._tasks.discard)
