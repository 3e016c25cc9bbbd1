"""Short sessions in one process: branches run one after another, their joins counted in memory.

A fork whose actions take a few milliseconds together is not worth messages to others: in a burst of small runs, four
times as many end in a second (measured in a prototype). The first branch of a session runs here in any case. What is
done here is kept as settlements, the same as a runner makes: either the session ends here, and nothing of it was ever
in Redis, or it is opened and they are settled there, in one script (`open_session`), and others join in.

An action that does not end when its time is over is left behind (invoke.py): the session is opened from another thread,
with what has been done, and goes on elsewhere.

What if the process dies here: the message comes again, and the session is opened. The first branch goes on behind its
checkpoints; what was done after it, a few milliseconds of work, is done again.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

import orjson

from orchestration.engine.branch import EnhancedBranchProcessor
from orchestration.engine.checkpoints import Checkpoints
from orchestration.engine.context import ProcessingContext
from orchestration.state.patience import Keep
from orchestration.vocabulary import (
    Claim,
    Dispatch,
    Durability,
    ItemCounts,
    JoinCounts,
    Outcome,
    Rest,
    Settlement,
    UnitKind,
)

#: A fork that was expected to be short and is not is shared after so many times what was allowed.
OVERRUN: Final = 4
_LETTERS: Final = (Outcome.SUCCESS, Outcome.FAILED, Outcome.SKIPPED, Outcome.UPSTREAM_FAILED)


class InlineRun:
    """One flow session that is not open.

    Args: queue: of the message that runs here; other queues are other workers'.
    """

    def __init__(self, context: ProcessingContext, processor: EnhancedBranchProcessor, queue: str) -> None:
        self._context = context
        self._processor = processor
        self._queue = queue
        self._budget_ns = context.settings.inline_fork_ms * 1_000_000
        self._ready: deque[Claim] = deque(_claim(UnitKind.BRANCH, name) for name in context.plan.roots)
        self._joined: dict[str, list[Outcome]] = {}
        self._open = dict(context.plan.branches)
        self._is_handed_over = False
        #: What has been done, in its order.
        self.settlements: list[Settlement] = []
        #: Tasks ended by status, and whether the session has failed.
        self.counts: dict[str, int] = {}
        self.failed = False
        #: Opens the session, with the settlements, when this thread is stuck in an action; called in another thread,
        #: which all of this belongs to from then on.
        self.without: Callable[[], None] | None = None

    @property
    def has_ended(self) -> bool:
        """Whether all branches have settled."""
        return not self._open

    def run_first_branch(self) -> None:
        """Run the one root, with checkpoints, if it may run here."""
        roots = self._context.plan.roots
        first = self._context.plan.branches[roots[0]]
        if len(roots) == 1 and not first.is_for_each and first.queue == self._queue:
            self._processor.checkpoints = Checkpoints.UNFENCED
            self._run_next()

    def run_short_rest(self) -> None:
        """Run what is left, if it is expected to be short; stop when it is not."""
        if self._is_handed_over or self._context.cancellation.is_set or not self._is_short():
            return
        self._processor.checkpoints = Checkpoints.NONE
        until_ns = time.monotonic_ns() + OVERRUN * self._budget_ns
        while self._ready and not self._is_handed_over and time.monotonic_ns() < until_ns:
            if self._ready[0].kind is UnitKind.CHUNK and not self._fits(self._ready[0]):
                return
            self._run_next()

    def _is_short(self) -> bool:
        branches = self._open.values()
        if not self._budget_ns or self._context.dispatch is Dispatch.CHORD:
            return False
        if not all(branch.queue == self._queue and not self._context.is_async(branch) for branch in branches):
            return False
        actions = [action for branch in branches for action in branch.actions]
        if any(action.durability is Durability.SYNC or action.rates for action in actions):
            return False
        expected_ns = self._context.costs.estimate_ns(actions)
        return expected_ns is not None and expected_ns <= self._budget_ns

    def _fits(self, claim: Claim) -> bool:
        return claim.count * self._context.costs.of(claim.name).mean_ns <= self._budget_ns

    def _run_next(self) -> None:
        without = self._go_on_without if self.without is not None else None
        settlement = self._processor.process_task_and_branches_parallel(self._ready.popleft(), without)
        self.settlements.append(settlement)
        match settlement.verb:
            case "done":
                self._done(settlement)
            case "expand":
                self._ready.append(_claim(UnitKind.CHUNK, settlement.claim.name, count=settlement.size))
            case "items":
                self._items(settlement)
            case _:
                self._is_handed_over = True  # it waits for a retry

    def _go_on_without(self, settlements: Sequence[Settlement], _blocks: bool) -> None:
        assert self.without is not None
        self.settlements += settlements
        self.without()

    def _done(self, settlement: Settlement) -> None:
        branch = self._open.pop(settlement.claim.name)
        for status, number in (settlement.counts or {}).items():
            self.counts[status] = self.counts.get(status, 0) + number
        self.failed = self.failed or settlement.fails_session
        for action, kept in settlement.results or ():
            self._context.remember_kept(action, kept)
        for successor in branch.successors:
            outcomes = self._joined.setdefault(successor.branch, [])
            outcomes.append(settlement.outcome)
            if len(outcomes) == successor.predecessors:
                joined = JoinCounts(*(outcomes.count(letter) for letter in _LETTERS))
                self._ready.append(_claim(UnitKind.BRANCH, successor.branch, joined=joined))

    def _items(self, settlement: Settlement) -> None:
        claim = settlement.claim
        if settlement.settled < claim.count or settlement.rest is not Rest.BACK:
            self._is_handed_over = True
            return
        results = orjson.loads(settlement.item_results) if settlement.item_results else [None] * claim.count
        self._context.remember_items(claim.name, results)
        ended = settlement.counts or {}
        counts = ItemCounts(
            claim.count, ended.get("succeeded", 0), ended.get("failed", 0), ended.get("timed_out", 0),
            ended.get("skipped", 0),
        )  # fmt: skip
        self._ready.append(_claim(UnitKind.FINISH, claim.name, items=counts))


def keeper_alone(context: ProcessingContext, settlements: Sequence[Settlement]) -> Keep | None:
    """What keeps the rows of branches that ran alone, when Redis does not take them: of roots, and of no others.

    While this process is cut off, another may have taken the session over. That one runs the roots in one attempt more,
    so its rows win; but what follows it runs under the same numbers as here, where the first to record it would win.
    """
    roots = context.plan.roots
    return context.keeper(
        *(each.rows for each in settlements if each.claim.kind is UnitKind.BRANCH and each.claim.name in roots)
    )


def _claim(
    kind: UnitKind, name: str, *, count: int = 1, joined: JoinCounts | None = None, items: ItemCounts | None = None
) -> Claim:
    unit = f"{kind.value}:{name}:0" if kind is UnitKind.CHUNK else f"{kind.value}:{name}"
    return Claim(kind, name, unit, f"|1|{count}|0|0|0", 1, 0, 0, count, joined=joined or JoinCounts(), items=items)
