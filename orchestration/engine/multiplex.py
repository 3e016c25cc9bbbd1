"""Async branches side by side: one event loop for each process, on a thread of its own.

A branch that only waits, for a reply or a timer, needs no process: a runner that meets branches made of async actions
starts them here and claims further ones, up to `RUNNER_ASYNC_BRANCHES`, each with its own permit, claim and time limit.
Two processes carry a hundred waiting calls, and a limit of ten still means ten at once.

The loop has a thread of its own, so that the runner's thread can run a branch that is not async meanwhile, under its
timer, on every pool. While the runner is busy so, what ends here is settled from here; while it waits, it settles.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final

from orchestration.engine.branch import EnhancedBranchProcessor
from orchestration.errors import StaleClaim
from orchestration.vocabulary import Claim, Settlement

_log = logging.getLogger(__name__)

#: How long cancelled branches may take to end when a runner gives up.
CANCEL_SECONDS: Final = 5.0


class _LoopThread:
    """The event loop of a process, started when first needed; a forked child makes its own."""

    def __init__(self) -> None:
        self._starting = threading.Lock()
        self._pid = 0
        self._loop: asyncio.AbstractEventLoop

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
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGALRM, signal.SIGUSR1))
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
        self._loop = _thread.loop()
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._finished: list[Settlement] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._running: dict[str, Claim] = {}
        self._error: BaseException | None = None
        self._is_busy = False

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
            if not over.wait(CANCEL_SECONDS):
                _log.warning("[BRANCH_PROCESSOR] async branches that were cancelled do not end")
        with self._lock:
            return self._finished, list(self._running.values())

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
            settlement = await self._processor.process_async(claim)
        except StaleClaim as stale:
            _log.warning("[BRANCH_PROCESSOR] %s", stale)
        except asyncio.CancelledError:
            raise
        except BaseException as raised:  # noqa: BLE001 - the runner's thread raises it
            error = raised
        with self._lock:
            del self._running[claim.unit]
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
