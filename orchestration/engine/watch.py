"""What the flushing thread sees of a branch under way: after 30 ms its start, and that of each slow step, is sent."""

from __future__ import annotations

import time

from orchestration.engine.chunk import SLOW_NS
from orchestration.plan import Branch, PlannedAction
from orchestration.state.clock import Timeline
from orchestration.state.rows import branch_row, start_sequence_of, task_row
from orchestration.vocabulary import Claim, TaskStatus


class BranchWatch:
    """One branch."""

    def __init__(self, branch: Branch, claim: Claim, timeline: Timeline) -> None:
        self._branch = branch
        self._timeline = timeline
        self._claim = claim
        self._is_reported = False
        self._step: tuple[PlannedAction, int, int] | None = None
        self.began_ns = time.monotonic_ns()

    def begin(self, action: PlannedAction, attempt: int) -> int:
        """A step begins; returns when."""
        now = time.monotonic_ns()
        self._step = (action, attempt, now)
        return now

    def look(self, now_ns: int) -> list[list[object]]:
        """Rows to send."""
        rows: list[list[object]] = []
        claim, branch, step = self._claim, self._branch, self._step
        sequence = start_sequence_of(claim.attempt, claim.retry)
        if not self._is_reported and now_ns - self.began_ns >= SLOW_NS:
            self._is_reported = True
            rows.append(
                branch_row(
                    branch.name, TaskStatus.RUNNING, claim.attempt + claim.retry, sequence, branch.queue,
                    started_us=self._timeline.seen_us(self.began_ns),
                    waited_us=max(0, claim.since_us - claim.ready_us),
                )
            )  # fmt: skip
        if step is not None and now_ns - step[2] >= SLOW_NS:
            action, attempt, began_ns = step
            self._step = None
            rows.append(
                task_row(
                    action.name,
                    TaskStatus.RUNNING,
                    attempt,
                    sequence,
                    action.queue,
                    started_us=self._timeline.seen_us(began_ns),
                )
            )
        return rows
