"""The runner's loop: settle, claim, run, until the session has no more for it or others are owed its slot."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Protocol

from config.celery_config import TOUR_SECONDS
from orchestration.engine.branch import EnhancedBranchProcessor
from orchestration.engine.context import ProcessingContext
from orchestration.errors import ServiceUnreachable, StaleClaim
from orchestration.state.client import RedisError
from orchestration.state.live import Runner
from orchestration.vocabulary import Claim, Mode, Next, Publication, Settlement, Verdict

_log = logging.getLogger(__name__)

#: How often a runner looks whether others wait (measured: 50 ms keeps small runs within 0.2 s at 2 % of the rate).
TICK_NS = 50_000_000
#: A service stays away: no fault of the claims. Any other error counts as a crash of theirs (see `give_up`), so that
#: one which lasts ends, as a poison branch.
UNREACHABLE = (ServiceUnreachable, RedisError)
#: When claims that a runner could not run may be claimed again.
HAND_BACK_US = 1_000_000
#: Slot time is charged to the session in portions of at least this.
CHARGE_NS = 10_000_000


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
    """One runner of one session."""

    def __init__(
        self, context: ProcessingContext, runner: Runner, processor: EnhancedBranchProcessor, links: Links
    ) -> None:
        self._context = context
        self._runner = runner
        self._processor = processor
        self._links = links
        self._calls = 0
        self._began = self._sliced = self._ticked = self._charged = time.monotonic_ns()

    def run(self, settlements: Sequence[Settlement] = ()) -> Verdict:
        """Run until the runner has left; returns why.

        Args: settlements: what the caller has to settle at once.
        Raises: what a service that stays away makes of a call; claims held go back first, if Redis answers.
        """
        while True:
            answer = self.settle(settlements)
            if answer.verdict is not Verdict.GO:
                return answer.verdict
            settlements = []
            for claim in answer.claims:
                self._context.active_branches[claim.unit] = claim
                try:
                    settlements.append(self._processor.process_task_and_branches_parallel(claim))
                except StaleClaim as stale:
                    _log.warning("[BRANCH_PROCESSOR] %s", stale)
                except UNREACHABLE:
                    self._hand_back(answer.claims)
                    raise
                finally:
                    del self._context.active_branches[claim.unit]

    def settle(self, settlements: Sequence[Settlement], mode: Mode | None = None) -> Next:
        """One call of `settle_branch`, and what its answer asks to publish."""
        now = time.monotonic_ns()
        mode = mode or self._mode(now)
        elapsed = now - self._charged
        if elapsed < CHARGE_NS and mode is Mode.GO:
            elapsed = 0
        else:
            self._charged = now
        self._calls += 1
        answer = self._context.stores.live.settle_branch(
            self._runner, settlements, call=self._calls, mode=mode, elapsed_us=elapsed // 1000,
            item_results_cap=self._context.settings.max_item_results_bytes,
        )  # fmt: skip
        if answer.publications:
            # before anything else: a runner that is registered and never published keeps a slot
            self._links.publish_runners(answer.publications)
        for unit in answer.refused:
            session = self._context.flow_session_id
            _log.warning("[PARALLELIZER] settlement of %s in %s refused: another attempt owns it", unit, session)
        if answer.verdict is Verdict.ENDED:
            self._links.publish_completion(self._context.flow_session_id, answer.signature)
        return answer

    def _mode(self, now: int) -> Mode:
        if self._links.stopping() or now - self._began > TOUR_SECONDS * 1e9:
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

    def _hand_back(self, claims: Sequence[Claim]) -> None:
        try:
            # later, since what stopped this runner may stop the next one too
            delayed = [Settlement(claim, "defer", delay_us=HAND_BACK_US, retry=claim.retry + 1) for claim in claims]
            self.settle(delayed, Mode.LEAVE)
        except Exception:  # noqa: BLE001 - the first error is the one to raise
            session = self._context.flow_session_id
            _log.warning(
                "[PARALLELIZER] claims of %s were not handed back; their lease will expire", session, exc_info=True
            )
