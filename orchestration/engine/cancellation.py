"""What a cancelled session means to the process that runs some of it.

    the mark is seen → Cancelled in what runs, nothing more begins → grace → what still runs is given up

The mark is a key in Redis (`cancel_session`). The flushing thread looks at it, ten times a second for each session of
which something has run for 20 ms: what is shorter costs nothing, and learns it when it settles. Each runner that has
seen it says so, for whoever cancelled: from then on nothing begins.

What if the process dies here: its units go back as after any crash, and with the last of them the session ends.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

from orchestration.errors import Cancelled

if TYPE_CHECKING:
    from orchestration.engine.context import ProcessingContext
    from orchestration.state.records import Runner

_log = logging.getLogger(__name__)

#: Between two looks at the mark of a session.
LOOK_NS: Final = 100_000_000


class Cancellation:
    """Whether a session was cancelled, as far as this process knows; it never becomes false again."""

    __slots__ = ("_interrupts", "_lock", "is_set", "next_look_ns", "since_ns")

    def __init__(self) -> None:
        self.is_set = False
        #: By `time.monotonic_ns`: when it was seen, and when somebody is to look next.
        self.since_ns = self.next_look_ns = 0
        self._interrupts: dict[object, Callable[[], None]] = {}
        self._lock = threading.Lock()

    def set(self, now_ns: int) -> None:
        """Nothing more of the session begins here; what has said how is interrupted."""
        with self._lock:
            self.since_ns = now_ns
            self.is_set = True
            interrupts = list(self._interrupts.values())
        for interrupt in interrupts:
            interrupt()

    @contextmanager
    def interrupting(self, interrupt: Callable[[], None]) -> Iterator[None]:
        """While the block runs, `interrupt` ends it; called once, by another thread.

        Raises: Cancelled: it was cancelled before.
        """
        key = object()
        with self._lock:
            self.raise_if_set()
            self._interrupts[key] = interrupt
        try:
            yield
        finally:
            with self._lock:
                del self._interrupts[key]

    def raise_if_set(self) -> None:
        """Do nothing, or raise Cancelled."""
        if self.is_set:
            raise Cancelled


def on_loop(loop: asyncio.AbstractEventLoop, function: Callable[[], None]) -> Callable[[], None]:
    """Calls `function` in that loop; it may be closed by then."""

    def call() -> None:
        with suppress(RuntimeError):  # it has just closed: the action has ended
            loop.call_soon_threadsafe(function)

    return call


class CancelWatch:
    """Looks, for one runner, whether its session was cancelled, and ends what runs.

    Args: runner: it. interrupt: raises Cancelled in user code of this process that no event loop runs, if it is
        cancelled. give_up: what the runner has claimed is no longer its own. end_process: ends the process if user code
        holds it and another will take its place.
    """

    def __init__(
        self, context: ProcessingContext, runner: Runner, interrupt: Callable[[], None], give_up: Callable[[], None],
        end_process: Callable[[], None],
    ) -> None:  # fmt: skip
        self._context = context
        self._runner = runner
        self._interrupt = interrupt
        self._give_up = give_up
        self._end_process = end_process
        self._grace_ns = int(context.settings.branch_grace_seconds * 1e9)
        self._is_given_up = self._has_heeded = False

    def look(self, now_ns: int) -> None:
        """Called by the flushing thread while something of the runner's runs."""
        cancellation, session = self._context.cancellation, self._context.flow_session_id
        if cancellation.is_set:
            if not self._is_given_up and now_ns - cancellation.since_ns > self._grace_ns:
                self._is_given_up = True
                _log.warning("what still runs of %s, which was cancelled, is given up", session)
                self._give_up()
                self._end_process()
            elif not self._is_given_up:
                self._interrupt()
            self._heed()
        elif now_ns >= cancellation.next_look_ns:
            cancellation.next_look_ns = now_ns + LOOK_NS
            if self._context.stores.live.is_cancelled(session):
                _log.info("flow session %s was cancelled; what runs of it is told", session)
                cancellation.set(now_ns)
                self._interrupt()
                self._heed()

    def _heed(self) -> None:
        """Whoever cancelled waits for this."""
        if not self._has_heeded:
            self._context.stores.live.heed_cancel(self._runner)
            self._has_heeded = True
