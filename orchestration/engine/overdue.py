"""What becomes of a branch that has waited too long before anybody began it (`max_wait_seconds`).

The upkeep process decides it by the plan, and settles it: nothing runs, so no permit, slot or runner is needed, of
which there is none. Where a later step of the branch runs whatever happened before, the branch goes back for that.

What if the process dies here: the branch is found overdue again, a second later.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from orchestration.engine.branch import join_steps, outcome_of
from orchestration.engine.context import ProcessingContext, Stores, load_context
from orchestration.engine.invoke import describe_error
from orchestration.engine.task import TaskEnd, TaskProcessor
from orchestration.engine.versions import VersionCache
from orchestration.errors import ActionError, ExpressionError, SessionClosed
from orchestration.plan import PlannedAction
from orchestration.state.clock import Timeline
from orchestration.state.records import Overdue
from orchestration.state.rows import branch_row, sequence_of
from orchestration.vocabulary import NO_ITEM, JoinCounts, Outcome, Publication, Settlement, TaskStatus

if TYPE_CHECKING:
    from config.settings import Settings

_JOIN_OF = {
    Outcome.SUCCESS: JoinCounts(succeeded=1),
    Outcome.FAILED: JoinCounts(failed=1),
    Outcome.SKIPPED: JoinCounts(skipped=1),
    Outcome.UPSTREAM_FAILED: JoinCounts(upstream_failed=1),
}


class OverdueBranches:
    """Ends them for one process; compiles a workflow, with its actions, when one of its branches is overdue."""

    def __init__(self, stores: Stores, settings: Settings, worker: str) -> None:
        self._stores = stores
        self._settings = settings
        self._worker = worker
        self._versions = VersionCache(stores.database, settings)

    def end(self, overdue: Overdue) -> tuple[Publication, ...]:
        """Settle the branch, unless it has begun meanwhile; returns what to publish.

        Raises: ServiceUnreachable. DefinitionError: an action of the workflow is not known here.
        """
        live = self._stores.live
        live.keep_clock()
        version = self._versions.load(overdue.version_id)
        try:
            context = load_context(
                overdue.flow_session_id, version, overdue.day, self._worker, self._settings, self._stores
            )
        except SessionClosed:
            return ()
        settlement = end_overdue(context, overdue)
        trace = context.span_factory.of_claim(context, overdue.claim)
        if trace is not None:
            settlement = trace.settlement(settlement)
        return live.settle_overdue(overdue, settlement, self._worker, self._settings.max_item_results_bytes)[1]


def end_overdue(context: ProcessingContext, overdue: Overdue) -> Settlement:
    """How the branch ends: the first step that would run is timed out; it is put back for a later one that runs."""
    tasks, claim = TaskProcessor(context), overdue.claim
    branch = context.plan.branches[claim.name]
    sequence, timeline = sequence_of(1, 0), Timeline(context.stores.live.clock, claim.since_us)
    joined, outcome, worst = claim.joined, Outcome.SUCCESS, TaskStatus.SUCCEEDED
    rows: list[list[object]] = []
    results: list[tuple[str, bytes]] = []
    counts: dict[str, int] = {}
    for action in branch.actions:
        end = _end_of(tasks, context, action, joined, overdue)
        if end.status is TaskStatus.TIMED_OUT and worst is TaskStatus.TIMED_OUT:
            return Settlement(claim, "defer", rows=rows, results=results, retry=1)
        rows.append(tasks.row(action, end, 1, sequence, NO_ITEM, timeline))
        results.append((action.name, tasks.keep(action, end, 1)))
        counts[end.status.value] = counts.get(end.status.value, 0) + 1
        outcome = outcome_of(action, end.status)
        joined = _JOIN_OF[outcome]
        if worst is not TaskStatus.TIMED_OUT:
            worst = end.status
    rows.append(
        branch_row(
            branch.name, worst, 1, sequence, branch.queue, finished_us=timeline.start_us(time.monotonic_ns()),
            waited_us=max(0, claim.since_us - claim.ready_us),
        )
    )  # fmt: skip
    fails = branch.actions[-1].is_leaf and outcome in (Outcome.FAILED, Outcome.UPSTREAM_FAILED)
    return Settlement(
        claim, "done", rows=rows, counts=counts, outcome=outcome, fails_session=fails, successors=join_steps(branch),
        results=[(name, kept) for name, kept in results if name in context.reads],
    )  # fmt: skip


def _end_of(
    tasks: TaskProcessor, context: ProcessingContext, action: PlannedAction, joined: JoinCounts, overdue: Overdue
) -> TaskEnd:
    try:
        status = tasks.starts(action, joined, context.scope(), per_item=False)
    except ExpressionError as error:
        return TaskEnd(TaskStatus.FAILED, error=describe_error(error, 1))
    if status is not None:
        return TaskEnd(status)
    seconds = context.plan.limits.max_wait_seconds or 0.0
    waited = ActionError(f"it waited longer than {seconds:g} s (max_wait_seconds) for {overdue.waits_for}")
    return TaskEnd(TaskStatus.TIMED_OUT, error={**describe_error(waited, 1), "type": "WaitedTooLong"})
