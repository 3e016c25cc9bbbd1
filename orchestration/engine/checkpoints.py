"""Checkpoints of the steps of a branch, written behind: what keeps a step from being run again after a crash.

What if the process dies here: the step that was under way runs again. Of the checkpoints that were sent, Redis loses
those that it has not read when it fails to write a reply to the socket of the dead (12 of 1,500 killed processes lost
some, all sent within a millisecond), and their steps run again too. After a crash each checkpoint is waited for: the
step that a branch comes to again and again is then the one that kills it, and no innocent one before it.
"""

from __future__ import annotations

from enum import Enum, auto

from orchestration.engine.context import ProcessingContext
from orchestration.errors import StaleClaim
from orchestration.plan import PlannedAction
from orchestration.state.records import Runner
from orchestration.state.rows import encode_rows
from orchestration.vocabulary import Claim, Durability


class Checkpoints(Enum):
    """What keeps the steps of a branch from being run again after a crash."""

    #: Redis, only while the claim is ours.
    FENCED = auto()
    #: Redis; the session is not open, so nobody else can own the branch.
    UNFENCED = auto()
    #: Nothing: what runs is short, and runs again.
    NONE = auto()


class WriteBehind:
    """The checkpoints of one branch: sent before the next step begins, answered when somebody must know.

    Measured in a prototype: 18,000–35,000 steps a second against 5,000–8,600 with a round trip each.
    """

    def __init__(self, context: ProcessingContext, runner: Runner, claim: Claim, kind: Checkpoints) -> None:
        self._context = context
        self._runner = runner
        self._claim = claim
        self._fence = claim if kind is Checkpoints.FENCED else None
        self._is_refused = self._is_waited_for = False
        self._waits_for_each = claim.attempt > 1
        self.are_kept = kind is not Checkpoints.NONE

    def send(self, action: PlannedAction, kept: bytes, told: list[list[object]]) -> None:
        """Keep the result of a step, and send its row.

        Raises: StaleClaim: an answer has come that says so.
        """
        context, rows = self._context, encode_rows(told)
        context.stores.live.send_checkpoint(
            self._runner, self._fence, context.day, action.name, kept, rows, self._answered, context.keeper(told)
        )
        self._is_waited_for = True
        if action.durability is Durability.SYNC:
            self.wait()
            context.write_now(rows)
        elif self._waits_for_each:
            self.wait()
        elif self._is_refused:
            self._raise_stale()

    def wait(self) -> None:
        """All that was sent is kept.

        Raises: StaleClaim: it is not, for somebody else owns the branch.
        """
        if self._is_waited_for:
            self._is_waited_for = False
            self._context.stores.live.await_checkpoints()
        if self._is_refused:
            self._raise_stale()

    def _answered(self, reply: object) -> None:
        self._is_refused = self._is_refused or not reply

    def _raise_stale(self) -> None:
        raise StaleClaim(f"branch {self._claim.name} of {self._context.flow_session_id} belongs to another attempt")
