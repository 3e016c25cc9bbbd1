"""EnhancedBranchProcessor: runs one claim and says what became of it.

It decides by the plan (does an action start, is it tried again, what does it look like to its successors). It settles
nothing itself: what it returns is settled by the runner, in one script, but for checkpoints between the steps of a
branch and the flushing of slow chunks (chunk.py).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import orjson

from orchestration.definition.expressions import Scope
from orchestration.engine.cancellation import CancelWatch
from orchestration.engine.checkpoints import Checkpoints, WriteBehind
from orchestration.engine.chunk import ChunkRun
from orchestration.engine.context import ProcessingContext, retries_field
from orchestration.engine.flush import flusher
from orchestration.engine.invoke import Call, Late, TimeLimit, describe_error, left_behind
from orchestration.engine.results import TaskView, counts_of, keep_ended, keep_items
from orchestration.engine.task import Steps, TaskEnd, TaskProcessor, end_without, run_steps, run_steps_async
from orchestration.engine.traced import ClaimTrace
from orchestration.engine.watch import BranchWatch
from orchestration.errors import ActionError, ExpressionError, ServiceUnreachable, StaleClaim
from orchestration.plan import Branch, PlannedAction
from orchestration.state.clock import Timeline
from orchestration.state.records import Runner
from orchestration.state.rows import branch_row, encode_rows, end_sequence_of, sequence_of, start_sequence_of, task_row
from orchestration.telemetry.logs import Place, at
from orchestration.vocabulary import (
    NO_ITEM,
    OUTCOME_OF_STATUS,
    Claim,
    Durability,
    ItemCounts,
    JoinCounts,
    JoinStep,
    Outcome,
    Publication,
    Settlement,
    TaskStatus,
    UnitKind,
)

_log = logging.getLogger(__name__)

_JOIN_OF = {
    Outcome.SUCCESS: JoinCounts(succeeded=1),
    Outcome.FAILED: JoinCounts(failed=1),
    Outcome.SKIPPED: JoinCounts(skipped=1),
    Outcome.UPSTREAM_FAILED: JoinCounts(upstream_failed=1),
}
_FAILURES = (TaskStatus.FAILED, TaskStatus.TIMED_OUT, TaskStatus.CANCELLED)

#: Goes on without an action that does not end in time, from a thread of its own: with what to settle of its claim
#: (nothing, if somebody else owns that by now), and whether the action keeps its event loop from running anything else.
GoOnWithout = Callable[[Sequence[Settlement], bool], None]


@dataclass(slots=True)
class BranchEnd:
    """How a branch ended, or at which step it must wait for a retry."""

    outcome: Outcome = Outcome.SUCCESS
    fails_session: bool = False
    counts: dict[str, int] = field(default_factory=dict)
    results: list[tuple[str, bytes]] = field(default_factory=list)
    rows: list[list[object]] = field(default_factory=list)
    #: Milliseconds to wait before the step is tried again; `results` then notes how often it has been.
    retry_after_ms: int | None = None
    #: µs until the turn of a step comes by its rate limits.
    turn_after_us: int | None = None


class EnhancedBranchProcessor:
    """Runs claims of one flow session for one runner.

    Args: publish: sends the runners that a flushed chunk made room for. give_up: see `CancelWatch`.
    """

    def __init__(
        self,
        context: ProcessingContext,
        runner: Runner,
        limit: TimeLimit,
        publish: Callable[[Sequence[Publication]], None],
        checkpoints: Checkpoints = Checkpoints.FENCED,
        give_up: Callable[[Runner], None] = lambda _: None,
    ) -> None:
        self._context = context
        self._runner = runner
        self._limit = limit
        self._publish = publish
        self._tasks = TaskProcessor(context)
        self._scope = context.scope()
        self.checkpoints = checkpoints
        self._cancelling = CancelWatch(context, runner, limit.interrupt, lambda: give_up(runner), limit.end_process)

    def process_task_and_branches_parallel(self, task: Claim, without: GoOnWithout | None = None) -> Settlement:
        """Run a claim: a branch, a chunk of items, the expansion or the end of a `for_each`.

        Args: without: goes on when an action of it does not end in time; called in another thread.
        Returns: what to settle.
        Raises: StaleClaim: it was seen that somebody else owns the branch. GivenUp: `without` was called.
        """
        steps, place = self._steps(task, self._scope), Place(self._context, task)
        with at(place):
            return run_steps(steps, place, self._limit, self._late(steps, place, without))

    async def process_async(self, task: Claim, without: GoOnWithout | None = None) -> Settlement:
        """Run a claim for which `is_async` holds beside others, on this thread's event loop."""
        steps, place = self._steps(task, self._context.scope()), Place(self._context, task)
        with at(place):
            return await run_steps_async(steps, place, self._limit, self._late(steps, place, without))

    def is_async(self, claim: Claim) -> bool:
        """Whether all that the claim runs is async: it can wait beside others without a process of its own."""
        if claim.kind is UnitKind.FINISH:
            return False
        branch = self._context.plan.branches[claim.name]
        if claim.kind is UnitKind.BRANCH and branch.is_for_each:
            return False
        return self._context.is_async(branch)

    def report(self, rows: list[list[object]]) -> None:
        """Send the status of what still runs."""
        context = self._context
        context.stores.live.record_rows(context.flow_session_id, context.day, self._runner.worker, encode_rows(rows))

    def _late(self, steps: Steps[Settlement], place: Place, without: GoOnWithout | None) -> Late | None:
        if without is None:
            return None

        def late(call: Call, began_ns: int, blocks: bool) -> None:
            with at(Place(place.session, place.unit)):
                try:
                    settlements = [end_without(steps, left_behind(call, began_ns, self._limit))]
                except StaleClaim as stale:
                    _log.warning("%s", stale)
                    settlements = []
                without(settlements, blocks)

        return late

    def look(self, now_ns: int) -> None:
        """See whether the session was cancelled; called by the flushing thread while something runs."""
        self._cancelling.look(now_ns)

    def _steps(self, claim: Claim, scope: Scope) -> Steps[Settlement]:
        trace = self._context.span_factory.of_claim(self._context, claim)
        settlement = yield from self._run(claim, scope, trace)
        return settlement if trace is None else trace.settlement(settlement)

    def _run(self, claim: Claim, scope: Scope, trace: ClaimTrace | None) -> Steps[Settlement]:
        if claim.kind is UnitKind.CHUNK:
            return (yield from self._chunk(claim, scope, trace))
        branch = self._context.plan.branches[claim.name]
        if claim.kind is UnitKind.FINISH:
            return self._finish(branch, claim)
        if branch.is_for_each:
            return self._expand(branch, claim)
        end = yield from self._branch(branch, claim, scope, trace)
        if end.turn_after_us is not None:
            return Settlement(
                claim, "defer", rows=end.rows, results=end.results, delay_us=end.turn_after_us, retry=claim.retry
            )
        if end.retry_after_ms is not None:
            return Settlement(
                claim, "defer", rows=end.rows, results=end.results, delay_us=end.retry_after_ms * 1000,
                retry=claim.retry + 1,
            )  # fmt: skip
        return Settlement(
            claim, "done", rows=end.rows, counts=end.counts, results=end.results, outcome=end.outcome,
            fails_session=end.fails_session, successors=join_steps(branch),
        )  # fmt: skip

    def _branch(self, branch: Branch, claim: Claim, scope: Scope, trace: ClaimTrace | None) -> Steps[BranchEnd]:
        """Run the actions of a branch one after another; steps with a checkpoint are not run again."""
        context, attempt, retry = self._context, claim.attempt, claim.retry
        done, retries = self._done_before(branch, claim, trace)
        sequence, joined = sequence_of(attempt, retry), claim.joined
        end, timeline = BranchEnd(), self._timeline(claim)
        watch = BranchWatch(branch, claim, timeline)
        began_us = timeline.start_us(watch.began_ns)
        deadline_ns = watch.began_ns + int(context.branch_timeout_seconds * 1e9)
        worst, last, given_up = TaskStatus.SUCCEEDED, branch.actions[-1], self._tasks.given_up(claim)
        checkpoints = WriteBehind(self._context, self._runner, claim, self.checkpoints)
        with flusher.watching(watch, self):
            for place, action in enumerate(branch.actions):
                if action.name in done:
                    status = TaskStatus(str(done[action.name]["status"]))
                else:
                    if action.durability is Durability.SYNC:
                        checkpoints.wait()
                    tried = retries.get(action.name, 0)
                    began_ns = watch.begin(action, attempt + tried)
                    task, ended_ns = given_up, began_ns
                    if task is None:
                        task = yield from self._tasks.steps(action, joined, scope, attempt, tried, NO_ITEM, deadline_ns)
                        ended_ns = time.monotonic_ns()
                        if task.turn_after_us is not None:
                            checkpoints.wait()
                            return BranchEnd(rows=end.rows, results=end.results, turn_after_us=task.turn_after_us)
                        context.costs.of(action.name).record(ended_ns - began_ns)
                        deadline_ns += task.kept_ns
                    given_up = None  # it was the first step without a checkpoint that ran each time; others may run
                    row = self._tasks.row(action, task, attempt + tried, sequence, NO_ITEM, timeline)
                    if task.retry_after_ms is not None:
                        checkpoints.wait()
                        note = (retries_field(action.name), str(tried + 1).encode())
                        return BranchEnd(
                            rows=[*end.rows, row], results=[*end.results, note], retry_after_ms=task.retry_after_ms
                        )
                    status = task.status
                    if status is TaskStatus.TIMED_OUT:
                        # what still runs after it, by its trigger rule, gets time of its own
                        deadline_ns = time.monotonic_ns() + int(context.branch_timeout_seconds * 1e9)
                    kept = self._tasks.keep(action, task, attempt)
                    if task.left_behind and action is not last:
                        checkpoints.wait()
                        return self._part_before(action, kept, row, end)
                    if action is not last and checkpoints.are_kept and status is not TaskStatus.CANCELLED:
                        checkpoints.send(action, kept, [row] if trace is None else trace.checkpoint(row, place))
                    else:
                        self._report_with_end(action, kept, row, end)
                    # what waits for Redis or PostgreSQL is not the branch's own time
                    deadline_ns += time.monotonic_ns() - ended_ns
                end.counts[status.value] = end.counts.get(status.value, 0) + 1
                end.outcome = outcome_of(action, status)
                joined = _JOIN_OF[end.outcome]
                worst = _worst(worst, status, is_last=action is last)
        checkpoints.wait()
        end.fails_session = last.is_leaf and end.outcome in (Outcome.FAILED, Outcome.UPSTREAM_FAILED)
        context.metrics_recorder.branches += 1
        end.rows.append(
            branch_row(
                branch.name, worst, attempt + retry, sequence, branch.queue, started_us=began_us,
                finished_us=timeline.start_us(time.monotonic_ns()),
                waited_us=max(0, claim.since_us - claim.ready_us),
            )
        )  # fmt: skip
        return end

    def _done_before(
        self, branch: Branch, claim: Claim, trace: ClaimTrace | None
    ) -> tuple[Mapping[str, TaskView], Mapping[str, int]]:
        """Steps of the branch that have ended, and how often others were tried again."""
        if self._is_fresh(branch, claim):
            return {}, {}
        done, retries = self._context.settled_steps(branch.actions)
        if trace is not None and (done or retries or claim.attempt > 1 or claim.retry):
            trace.resume(done, retries)
        return done, retries

    def _part_before(self, action: PlannedAction, kept: bytes, row: list[object], end: BranchEnd) -> BranchEnd:
        """What has been done of a branch up to an action that was left behind; what follows it runs elsewhere."""
        if action.durability is Durability.SYNC:
            self._write_now(row)
        return BranchEnd(rows=[*end.rows, row], results=[*end.results, (action.name, kept)], retry_after_ms=0)

    def _is_fresh(self, branch: Branch, claim: Claim) -> bool:
        """Whether no step of the branch can have ended before."""
        if claim.attempt > 1 or claim.retry or any(action.rates for action in branch.actions[1:]):
            return False  # a step that waited for its rate limit was no attempt
        if self._context.has_gaps:
            return False
        # a root may have been begun before the session was open
        return self.checkpoints is not Checkpoints.FENCED or branch.predecessors > 0

    def _report_with_end(self, action: PlannedAction, kept: bytes, row: list[object], end: BranchEnd) -> None:
        if action.durability is Durability.SYNC:
            self._write_now(row)
        end.rows.append(row)
        if action.name in self._context.reads:
            end.results.append((action.name, kept))

    def _write_now(self, row: list[object]) -> None:
        """Commit the row of what is about to be settled."""
        try:
            self._context.write_now(encode_rows([row]))
        except ServiceUnreachable as error:
            # the worker stops: to settle it is better than to run it again
            _log.warning("%s is settled before it is in PostgreSQL: %s", row[1], error)

    # for_each

    def _expand(self, branch: Branch, claim: Claim) -> Settlement:
        """Find the items; with none, or when the action does not start, the branch ends here."""
        action = branch.actions[0]
        began_ns = time.monotonic_ns()
        given_up = self._tasks.given_up(claim)
        if given_up is not None:
            return self._end_for_each(branch, claim, given_up, ItemCounts(0))
        try:
            status = self._tasks.starts(action, claim.joined, self._scope, per_item=False)
            size = self._size(action) if status is None else 0
        except (ExpressionError, ActionError) as error:
            failed = TaskEnd(TaskStatus.FAILED, error=describe_error(error, 1), started_ns=began_ns)
            return self._end_for_each(branch, claim, failed, ItemCounts(0))
        if status is not None:
            return self._end_for_each(branch, claim, TaskEnd(status), ItemCounts(0))
        if size == 0:
            return self._end_for_each(branch, claim, TaskEnd(TaskStatus.SUCCEEDED, started_ns=began_ns), ItemCounts(0))
        self._context.costs.of(action.name).size = size
        return Settlement(claim, "expand", size=size, max_concurrent=action.max_concurrent or 0)

    def _size(self, action: PlannedAction) -> int:
        size, most = len(self._context.items(action)), self._context.settings.max_for_each_items
        if size > most:
            raise ActionError(f"for_each gives {size} items, more than MAX_FOR_EACH_ITEMS={most}")
        return size

    def _finish(self, branch: Branch, claim: Claim) -> Settlement:
        """All items have settled: how did the action as a whole end?"""
        assert claim.items is not None
        items = claim.items
        if items.failed or items.timed_out or items.cancelled:
            failed = items.failed + items.timed_out + items.cancelled
            error = {"type": "ItemsFailed", "message": f"{failed} of {items.size} items did not succeed", "attempt": 1}
            return self._end_for_each(branch, claim, TaskEnd(TaskStatus.FAILED, error=error), items)
        status = TaskStatus.SKIPPED if items.skipped == items.size else TaskStatus.SUCCEEDED
        return self._end_for_each(branch, claim, TaskEnd(status), items)

    def _end_for_each(self, branch: Branch, claim: Claim, task: TaskEnd, items: ItemCounts) -> Settlement:
        action = branch.actions[0]
        outcome = outcome_of(action, task.status)
        counts = {status: number for status, number in counts_of(items).items() if number and status != "total"}
        if not items.size and task.status is not TaskStatus.SUCCEEDED:
            counts = {task.status.value: 1}
        if items.size or task.status is TaskStatus.SUCCEEDED:
            task.result = orjson.dumps(counts_of(items))
            kept = keep_items(task.status, items)
        else:
            kept = keep_ended(task.status, task.error)
        sequence, timeline = end_sequence_of(claim.attempt), self._timeline(claim)
        rows = [
            self._tasks.row(action, task, claim.attempt, sequence, NO_ITEM, timeline),
            branch_row(
                branch.name, task.status, claim.attempt, sequence, branch.queue,
                finished_us=timeline.start_us(time.monotonic_ns()),
                waited_us=max(0, claim.since_us - claim.ready_us) if claim.kind is UnitKind.BRANCH else None,
                started_us=None if task.started_ns is None else timeline.start_us(task.started_ns),
            ),
        ]  # fmt: skip
        return Settlement(
            claim, "done", rows=rows, counts=counts,
            results=[(action.name, kept)] if action.name in self._context.reads else None, outcome=outcome,
            fails_session=action.is_leaf and outcome in (Outcome.FAILED, Outcome.UPSTREAM_FAILED),
            successors=join_steps(branch),
        )  # fmt: skip

    def _chunk(self, claim: Claim, scope: Scope, trace: ClaimTrace | None) -> Steps[Settlement]:
        """Run the items of a chunk one after another."""
        if trace is not None:
            trace.resume_items()
        context, tasks = self._context, self._tasks
        action = context.plan.actions[claim.name]
        attempt, retry = claim.attempt, claim.retry
        sequence, started = sequence_of(attempt, retry), start_sequence_of(attempt, retry)
        timeline = self._timeline(claim)
        run = ChunkRun(
            claim, None if self.checkpoints is Checkpoints.NONE else partial(self._flush, trace),
            lambda index, began_ns: task_row(
                action.name, TaskStatus.RUNNING, attempt + retry, started, action.queue, item=index,
                started_us=timeline.seen_us(began_ns),
            ),
            keeps_results=action.name in context.reads,
        )  # fmt: skip
        items = context.items(action)
        timeout_ns = int(context.branch_timeout_seconds * 1e9)
        began_ns, ended = time.monotonic_ns(), 0
        has_deadline = context.plan.limits.deadline_seconds is not None  # asked before each item
        deferred: tuple[list[object] | None, int] | None = None
        with flusher.watching(run, self):
            while (
                not (context.cancellation.is_set or (has_deadline and context.is_over))
                and (index := run.take()) is not None
            ):
                scope.item, scope.item_index = items[index], index
                task = tasks.given_up(claim)
                if task is None:
                    deadline_ns = time.monotonic_ns() + timeout_ns
                    task = yield from tasks.steps(
                        action, _JOIN_OF[Outcome.SUCCESS], scope, attempt, retry, index, deadline_ns
                    )
                if task.turn_after_us is not None:
                    deferred = (None, task.turn_after_us)
                    break
                row = tasks.row(action, task, attempt + retry, sequence, index, timeline)
                ended += 1
                if task.retry_after_ms is not None:
                    deferred = (row, task.retry_after_ms * 1000)
                    break
                result = tasks.keep_item(action, task, index, attempt)
                if action.durability is Durability.SYNC:
                    self._write_now(row)
                run.add(task.status.value, row, result)
                if task.left_behind:
                    break
        if ended:
            context.costs.of(action.name).record(time.monotonic_ns() - began_ns, ended)
        context.metrics_recorder.branches += ended
        return run.settlement(deferred)

    def _timeline(self, claim: Claim) -> Timeline:
        return Timeline(self._context.stores.live.clock, claim.since_us or self._context.accepted_us)

    def _flush(self, trace: ClaimTrace | None, settlement: Settlement) -> bool:
        """Settle the finished items of a chunk; called by the flushing thread."""
        context = self._context
        if trace is not None:
            settlement = trace.settlement(settlement)
        done, publications = context.stores.live.flush_chunk(
            self._runner, context.day, settlement, context.settings.max_item_results_bytes,
            context.keeper(settlement.rows),
        )  # fmt: skip
        if publications:
            self._publish(publications)
        return done


def _worst(worst: TaskStatus, status: TaskStatus, *, is_last: bool) -> TaskStatus:
    """The status of a branch after one more step; what was timed out by the run's deadline leaves others cancelled."""
    if status in _FAILURES:
        is_over = worst is TaskStatus.TIMED_OUT and status is TaskStatus.CANCELLED
        return worst if is_over else status
    return status if is_last and worst is TaskStatus.SUCCEEDED else worst


def join_steps(branch: Branch) -> tuple[JoinStep, ...]:
    """The successors of a branch as the scripts take them."""
    return tuple(JoinStep(step.branch, step.predecessors, step.queue) for step in branch.successors)


def outcome_of(action: PlannedAction, status: TaskStatus) -> Outcome:
    """How an ended action looks to its successors and to the end of the session."""
    outcome = OUTCOME_OF_STATUS[status]
    return Outcome.SUCCESS if outcome is Outcome.FAILED and action.continue_on_failure else outcome
