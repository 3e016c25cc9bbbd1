"""The runner's loop: settle, claim, run, until the session has no more for it or others are owed its slot.

An action that does not end when its time is over is left behind (invoke.py): its branch is settled from another thread,
which takes the runner over, claims no more, lets what runs beside end, and leaves. The thread that is stuck in the
action finds all that done when it comes back.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from typing import Protocol

from config.celery_config import TOUR_SECONDS
from orchestration.engine.branch import EnhancedBranchProcessor
from orchestration.engine.context import ProcessingContext
from orchestration.engine.invoke import GivenUp
from orchestration.engine.multiplex import LoopBlocked, Multiplexer
from orchestration.errors import ServiceUnreachable, StaleClaim, WorkflowExecutionError
from orchestration.state.client import RedisError
from orchestration.state.records import Runner
from orchestration.telemetry.metrics_memory import counters
from orchestration.vocabulary import Claim, Mode, Next, Publication, Settlement, Verdict

_log = logging.getLogger(__name__)

#: How often a runner looks whether others wait (measured: 50 ms keeps small runs within 0.2 s at 2 % of the rate).
TICK_NS = 50_000_000
#: A service stays away, or somebody's action keeps the event loop: no fault of the claims. Any other error counts as a
#: crash of theirs (see `give_up`), so that one which lasts ends, as a poison branch.
UNREACHABLE = (ServiceUnreachable, RedisError, LoopBlocked)
#: When claims that a runner could not run may be claimed again.
HAND_BACK_US = 1_000_000
#: Slot time is charged to the session in portions of at least this.
CHARGE_NS = 10_000_000
#: Verdicts after which the runner is still registered.
STAYS = (Verdict.GO, Verdict.HOLD, Verdict.DRAIN, Verdict.WAIT)


class Links(Protocol):
    """What the engine asks of the message layer."""

    def publish_runners(self, publications: Sequence[Publication]) -> None:
        """Send the messages of these runners."""

    def publish_completion(self, flow_session_id: str, signature: str) -> None:
        """Send the parked completion of a session that has ended."""

    def stopping(self) -> bool:
        """Whether this worker is to take no more work."""

    def crowded(self, queue: str) -> bool:
        """Whether a message waits in the broker for a process of this queue."""


class RunnerLoop:
    """One runner of one session.

    Args: takes_one: leave after one claim: each branch is a message of its own.
    """

    def __init__(
        self, context: ProcessingContext, runner: Runner, processor: EnhancedBranchProcessor, links: Links,
        *, takes_one: bool = False,
    ) -> None:  # fmt: skip
        self._context = context
        self._runner = runner
        self._processor = processor
        self._links = links
        self._settling = threading.Lock()
        self._calls = 0
        self._began = self._sliced = self._ticked = self._charged = self._counted = time.monotonic_ns()
        self._async: Multiplexer | None = None
        #: Permits to take beyond those of branches that run: more and more while all that comes is async.
        self._more = 1
        #: The last call gave as many async branches as were wanted: there may be more, to be asked for at once.
        self._got_all = False
        self._drains = False
        self._takes_one = takes_one
        self._has_taken = False
        #: How the runner ended when another thread took it over.
        self._left: Verdict | Exception = Verdict.GONE

    def run(self) -> Verdict:
        """Run until the runner has left; returns why.

        Raises: what a service that stays away makes of a call; claims held go back first, if Redis answers.
        """
        try:
            verdict = self._take_turns([])
        except GivenUp:
            if isinstance(self._left, Exception):
                raise self._left from None
            verdict = self._left
        counters.add("runner_slices_total", 1, verdict.value)
        return verdict

    def _take_turns(self, settlements: list[Settlement]) -> Verdict:
        held: Sequence[Claim] = ()
        try:
            while True:
                answer = self.settle(settlements)
                if answer.verdict not in STAYS:
                    return answer.verdict
                self._drains = self._drains or answer.verdict is Verdict.DRAIN
                self._has_taken = self._has_taken or bool(answer.claims)
                held = self._start_async(answer.claims)
                if answer.verdict is Verdict.WAIT and self._async is None:
                    time.sleep(TICK_NS / 1e9)
                    settlements = []
                    continue
                if not held and self._async is None:
                    raise WorkflowExecutionError(f"runner {self._runner.runner} holds what nobody runs")
                settlements = self._work(held)
                held = ()
        except UNREACHABLE:
            finished, running = self._cancel_async()
            self._hand_back(finished, [*held, *running])
            raise
        finally:
            self._cancel_async()

    def settle(self, settlements: Sequence[Settlement], mode: Mode | None = None) -> Next:
        """One call of `settle_branch`, and what its answer asks to publish."""
        running = self._async.running if self._async is not None else 0
        self._more = max(1, min(self._more, self._context.settings.runner_async_branches - running))
        with self._settling:
            return self._call(settlements, mode or self._mode(time.monotonic_ns()), self._wanted(running))

    def _call(self, settlements: Sequence[Settlement], mode: Mode, want: int) -> Next:
        now = time.monotonic_ns()
        self._count(now)
        elapsed = now - self._charged
        if elapsed < CHARGE_NS and mode is Mode.GO:
            elapsed = 0
        else:
            self._charged = now
        self._calls += 1
        context = self._context
        answer = context.stores.live.settle_branch(
            self._runner, settlements, call=self._calls, mode=mode, want=want,
            chunks="" if self._takes_one else context.chunks(self._runner.queue), elapsed_us=elapsed // 1000,
            item_results_cap=context.settings.max_item_results_bytes,
            keep=context.keeper(*(settlement.rows for settlement in settlements)) if settlements else None,
        )  # fmt: skip
        if answer.publications:
            # before anything else: a runner that is registered and never published keeps a slot
            self._links.publish_runners(answer.publications)
        refused = answer.refused
        if answer.verdict in (Verdict.LOST, Verdict.GONE):
            refused = refused or frozenset(settlement.claim.unit for settlement in settlements)
        for unit in refused:
            session = context.flow_session_id
            _log.warning("settlement of %s in %s refused: it is no longer this runner's", unit, session)
        if answer.verdict is Verdict.ENDED and answer.signature:
            self._links.publish_completion(context.flow_session_id, answer.signature)
        return answer

    def _count(self, now: int) -> None:
        """Add to the worker's counters how long permits were held since the last call, and how long in actions."""
        permits = max(1, self._async.running if self._async is not None else 0)
        counters.add("permit_seconds_total", permits * (now - self._counted))
        counters.add("busy_seconds_total", self._context.metrics_recorder.take_busy_ns())
        self._counted = now

    def _wanted(self, running: int) -> int:
        most = 1 if self._takes_one else self._context.settings.runner_async_branches
        return max(1, running, min(most, running + self._more))

    def _mode(self, now: int) -> Mode:
        if self._context.is_over:
            return Mode.OVER
        if self._drains or self._links.stopping() or now - self._began > TOUR_SECONDS * 1e9:
            return Mode.LEAVE
        if self._takes_one and self._has_taken:
            return Mode.LEAVE
        if now - self._ticked < TICK_NS:
            return Mode.GO
        self._ticked = now
        if self._links.crowded(self._runner.queue):
            return Mode.CROWD
        if now - self._sliced >= self._context.settings.runner_slice_seconds * 1e9:
            self._sliced = now
            return Mode.SLICE
        return Mode.TICK

    # Branches in this thread

    def _work(self, held: Sequence[Claim]) -> list[Settlement]:
        """Run what is not async, one after another, or wait for what is; returns what has ended."""
        if not held:
            assert self._async is not None
            return self._async.take() if self._got_all else self._async.wait(TICK_NS / 1e9)
        if len(held) > 1:
            # taken in the belief that they are async: others may run them while the first one runs
            self._hand_on(held[1:])
        beside = self._async
        if beside is None:
            return self._process(held[0])
        beside.begin_busy()
        try:
            settlements = self._process(held[0])
        finally:
            beside.end_busy()
        return [*settlements, *beside.take()]

    def _process(self, claim: Claim) -> list[Settlement]:
        active = self._context.active_branches
        active[claim.unit] = claim
        try:
            return [self._processor.process_task_and_branches_parallel(claim, self._go_on_without)]
        except StaleClaim as stale:
            _log.warning("%s", stale)
            return []
        finally:
            if active.get(claim.unit) is claim:
                del active[claim.unit]

    def _go_on_without(self, settlements: Sequence[Settlement], _blocks: bool) -> None:
        """The runner's thread is stuck in an action: the runner is this thread's from here on, until it has left."""
        self._drains = True
        if self._async is not None:
            self._async.end_busy()
        try:
            self._left = self._take_turns(list(settlements))
        except Exception as error:
            self._left = error
            raise

    # Async branches beside them

    def _start_async(self, claims: Sequence[Claim]) -> Sequence[Claim]:
        """Start the branches that are async; returns the others."""
        beside = [claim for claim in claims if self._processor.is_async(claim)]
        self._got_all = len(beside) >= self._more
        if not beside:
            self._more = 1
            return claims
        if self._async is None:
            self._async = Multiplexer(self._processor, self._settle_only)
        self._async.start(beside)
        here = [claim for claim in claims if not self._processor.is_async(claim)]
        self._more = 1 if here else 2 * len(claims)
        return here

    def _settle_only(self, settlements: Sequence[Settlement]) -> None:
        """Settle what has ended beside a branch that keeps the runner busy; called by the loop's thread."""
        assert self._async is not None
        with self._settling:
            self._call(settlements, Mode.GO, self._async.running + 1)

    def _hand_on(self, claims: Sequence[Claim]) -> None:
        with self._settling:
            held = 1 + (self._async.running if self._async is not None else 0)
            self._call([Settlement(claim, "back") for claim in claims], Mode.GO, held)

    def _cancel_async(self) -> tuple[list[Settlement], list[Claim]]:
        multiplexer, self._async = self._async, None
        return multiplexer.cancel() if multiplexer is not None else ([], [])

    def _hand_back(self, finished: Sequence[Settlement], claims: Sequence[Claim]) -> None:
        try:
            # later, since what stopped this runner may stop the next one too
            delayed = [Settlement(claim, "defer", delay_us=HAND_BACK_US, retry=claim.retry + 1) for claim in claims]
            self.settle([*finished, *delayed], Mode.LEAVE)
        except Exception:  # noqa: BLE001 - the first error is the one to raise
            session = self._context.flow_session_id
            _log.warning("claims of %s were not handed back; their lease will expire", session, exc_info=True)
