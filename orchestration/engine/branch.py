"""EnhancedBranchProcessor: runs one claim and says what became of it.

It decides by the plan (does an action start, is it tried again, what does it look like to its successors) and calls
actions. It settles nothing itself: what it returns is settled by the runner, in one script, but for checkpoints between
the steps of a branch.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import orjson

from orchestration.definition.expressions import ABSENT, Scope
from orchestration.engine.context import ProcessingContext, retries_field
from orchestration.engine.invoke import CallContext, Invocation, TimeLimit, describe_error, invoke
from orchestration.engine.results import (
    STORED,
    counts_of,
    encode_result,
    ended_view,
    keep_ended,
    keep_items,
    keep_success,
    success_view,
)
from orchestration.errors import ActionError, ExpressionError, StaleClaim
from orchestration.plan import Branch, PlannedAction, decide
from orchestration.registry import ActionSpec, find_action
from orchestration.state.live import Runner
from orchestration.state.rows import branch_row, encode_rows, end_sequence_of, sequence_of, task_row
from orchestration.store import results as stored_results
from orchestration.vocabulary import (
    NO_ITEM,
    OUTCOME_OF_STATUS,
    Claim,
    Durability,
    ItemCounts,
    JoinCounts,
    JoinStep,
    Outcome,
    Settlement,
    TaskStatus,
    UnitKind,
)

_log = logging.getLogger(__name__)
_action_log = logging.getLogger("orchestration.action")

_STATUS_OF_DECISION = {Outcome.SKIPPED: TaskStatus.SKIPPED, Outcome.UPSTREAM_FAILED: TaskStatus.UPSTREAM_FAILED}
_JOIN_OF = {
    Outcome.SUCCESS: JoinCounts(succeeded=1),
    Outcome.FAILED: JoinCounts(failed=1),
    Outcome.SKIPPED: JoinCounts(skipped=1),
    Outcome.UPSTREAM_FAILED: JoinCounts(upstream_failed=1),
}
NO_RESULT = b"null"


@dataclass(slots=True)
class TaskEnd:
    """How one task ended, or that it is to be tried again."""

    status: TaskStatus
    #: Of a success: the result as JSON.
    result: bytes = NO_RESULT
    error: Mapping[str, object] | None = None
    started_ns: int | None = None
    finished_ns: int = field(default_factory=time.monotonic_ns)
    #: Milliseconds to wait before the next attempt, or None.
    retry_after_ms: int | None = None


@dataclass(slots=True)
class BranchEnd:
    """How a branch ended, or at which step it must wait for a retry."""

    outcome: Outcome = Outcome.SUCCESS
    fails_session: bool = False
    counts: dict[str, int] = field(default_factory=dict)
    results: list[tuple[str, bytes]] = field(default_factory=list)
    rows: list[list[object]] = field(default_factory=list)
    #: The last action, and what is kept of it where it must be.
    last: tuple[str, bytes] = ("", b"")
    #: Milliseconds to wait before the step is tried again; `results` then notes how often it has been.
    retry_after_ms: int | None = None


class EnhancedBranchProcessor:
    """Runs claims of one flow session in this process."""

    def __init__(self, context: ProcessingContext, runner: Runner, limit: TimeLimit) -> None:
        self._context = context
        self._runner = runner
        self._limit = limit
        self._scope = context.scope()
        self._specs: dict[str, ActionSpec] = {}

    def process_task_and_branches_parallel(self, task: Claim) -> Settlement:
        """Run a claim: a branch, a chunk of items, the expansion or the end of a `for_each`.

        Returns: what to settle.
        Raises: StaleClaim: at a checkpoint it was seen that somebody else owns the branch.
        """
        if task.kind is UnitKind.CHUNK:
            return self._chunk(task)
        branch = self._context.plan.branches[task.name]
        if task.kind is UnitKind.FINISH:
            return self._finish(branch, task)
        with self._context.span_factory.start_as_current_span("process_task_and_branches"):
            if branch.is_for_each:
                return self._expand(branch, task)
            end = self.run_branch(branch, task, task.attempt, task.retry)
            rows = encode_rows(end.rows)
            if end.retry_after_ms is not None:
                return Settlement(
                    task,
                    "defer",
                    rows=rows,
                    results=end.results,
                    delay_us=end.retry_after_ms * 1000,
                    retry=task.retry + 1,
                )
            return Settlement(
                task, "done", rows=rows, counts=end.counts, results=end.results, outcome=end.outcome,
                fails_session=end.fails_session, successors=join_steps(branch),
            )  # fmt: skip

    def run_branch(self, branch: Branch, claim: Claim | None, attempt: int, retry: int) -> BranchEnd:
        """Run the actions of a branch one after another.

        Args: claim: the fence for checkpoints; None while the session is not open. attempt, retry: more than 1 and 0
            when it was begun before: steps with a checkpoint are not run again.
        Raises: StaleClaim: somebody else owns the branch.
        """
        context = self._context
        # a root may have been begun before the session was open
        resumed = attempt > 1 or retry > 0 or (claim is not None and branch.predecessors == 0)
        done, retries = context.settled_steps(branch.actions) if resumed else ({}, {})
        sequence = sequence_of(attempt, retry)
        joined = claim.joined if claim else JoinCounts()
        end = BranchEnd()
        began_ns = time.monotonic_ns()
        deadline_ns = began_ns + int(context.branch_timeout_seconds * 1e9)
        worst = TaskStatus.SUCCEEDED
        last = branch.actions[-1]
        given_up = self._given_up(attempt)
        for action in branch.actions:
            if action.name in done:
                status = TaskStatus(str(done[action.name]["status"]))
            else:
                tried = retries.get(action.name, 0)
                task = given_up or self._task(action, joined, self._scope, attempt, tried, NO_ITEM, deadline_ns)
                given_up = None  # it was the first step without a checkpoint that ran each time; the others may run
                row = self._row(action, task, attempt + tried, sequence, NO_ITEM)
                if task.retry_after_ms is not None:
                    note = (retries_field(action.name), str(tried + 1).encode())
                    return BranchEnd(rows=[row], results=[note], retry_after_ms=task.retry_after_ms)
                status = task.status
                if status is TaskStatus.TIMED_OUT:
                    # what still runs after it, by its trigger rule, gets time of its own
                    deadline_ns = time.monotonic_ns() + int(context.branch_timeout_seconds * 1e9)
                kept = self._keep(action, task, NO_ITEM, attempt)
                if action is last:
                    end.last = (action.name, kept)
                    if action.durability is Durability.SYNC:
                        context.write_now(encode_rows([row]))
                    end.rows.append(row)
                    if action.name in context.reads:
                        end.results.append((action.name, kept))
                else:
                    self._checkpoint(claim, action, kept, row)
            end.counts[status.value] = end.counts.get(status.value, 0) + 1
            end.outcome = outcome_of(action, status)
            joined = _JOIN_OF[end.outcome]
            if status in (TaskStatus.FAILED, TaskStatus.TIMED_OUT) or (
                action is last and worst is TaskStatus.SUCCEEDED
            ):
                worst = status
        end.fails_session = last.is_leaf and end.outcome in (Outcome.FAILED, Outcome.UPSTREAM_FAILED)
        context.metrics_recorder.branches += 1
        end.rows.append(
            branch_row(
                branch.name, worst, attempt + retry, sequence, branch.queue, finished_ago_us=0,
                started_ago_us=None if claim else (time.monotonic_ns() - began_ns) // 1000,
                waited_us=claim.since_us - claim.ready_us if claim else None,
            )
        )  # fmt: skip
        return end

    # for_each

    def _expand(self, branch: Branch, claim: Claim) -> Settlement:
        """Find the items; with none, or when the action does not start, the branch ends here."""
        action = branch.actions[0]
        began_ns = time.monotonic_ns()
        given_up = self._given_up(claim.attempt)
        if given_up is not None:
            return self._end_for_each(branch, claim, given_up, ItemCounts(0))
        try:
            status = self._starts(action, claim.joined, self._scope, per_item=False)
            size = self._size(action) if status is None else 0
        except (ExpressionError, ActionError) as error:
            failed = TaskEnd(TaskStatus.FAILED, error=describe_error(error, 1), started_ns=began_ns)
            return self._end_for_each(branch, claim, failed, ItemCounts(0))
        if status is not None:
            return self._end_for_each(branch, claim, TaskEnd(status), ItemCounts(0))
        if size == 0:
            return self._end_for_each(branch, claim, TaskEnd(TaskStatus.SUCCEEDED, started_ns=began_ns), ItemCounts(0))
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
        started, sequence = task.started_ns, end_sequence_of(claim.attempt)
        rows = [
            self._row(action, task, claim.attempt, sequence, NO_ITEM),
            branch_row(
                branch.name, task.status, claim.attempt, sequence, branch.queue, finished_ago_us=0,
                waited_us=claim.since_us - claim.ready_us if claim.kind is UnitKind.BRANCH else None,
                started_ago_us=None if started is None else (time.monotonic_ns() - started) // 1000,
            ),
        ]  # fmt: skip
        return Settlement(
            claim, "done", rows=encode_rows(rows), counts=counts,
            results=[(action.name, kept)] if action.name in self._context.reads else None, outcome=outcome,
            fails_session=action.is_leaf and outcome in (Outcome.FAILED, Outcome.UPSTREAM_FAILED),
            successors=join_steps(branch),
        )  # fmt: skip

    def _chunk(self, claim: Claim) -> Settlement:
        """Run the items of a chunk one after another."""
        context = self._context
        action = context.plan.actions[claim.name]
        scope = self._scope
        counts: dict[str, int] = {}
        rows: list[list[object]] = []
        values: list[bytes] = []
        keep_values = action.name in context.reads
        timeout_ns = int(context.branch_timeout_seconds * 1e9)
        settled = 0
        sequence = sequence_of(claim.attempt, claim.retry)
        try:
            items = context.items(action)
            for index in range(claim.start, claim.start + claim.count):
                scope.item, scope.item_index = items[index], index
                deadline_ns = time.monotonic_ns() + timeout_ns
                task = self._given_up(claim.attempt) or self._task(
                    action, _JOIN_OF[Outcome.SUCCESS], scope, claim.attempt, claim.retry, index, deadline_ns
                )
                row = self._row(action, task, claim.attempt + claim.retry, sequence, index)
                if task.retry_after_ms is not None and claim.count == 1:
                    return Settlement(
                        claim,
                        "defer",
                        rows=encode_rows([row]),
                        delay_us=task.retry_after_ms * 1000,
                        retry=claim.retry + 1,
                    )
                counts[task.status.value] = counts.get(task.status.value, 0) + 1
                rows.append(row)
                kept = self._kept_item(action, task, index, claim.attempt)
                if keep_values:
                    values.append(kept)
                settled += 1
            if action.durability is Durability.SYNC:
                context.write_now(encode_rows(rows))
        finally:
            scope.item = scope.item_index = ABSENT
        context.metrics_recorder.branches += settled
        has_values = keep_values and any(value != NO_RESULT for value in values)
        return Settlement(
            claim, "items", rows=encode_rows(rows), counts=counts, settled=settled,
            item_results=b"[" + b",".join(values) + b"]" if has_values else b"",
        )  # fmt: skip

    # One task

    def _task(
        self,
        action: PlannedAction,
        joined: JoinCounts,
        scope: Scope,
        attempt: int,
        retry: int,
        item: int,
        deadline_ns: int,
    ) -> TaskEnd:
        """Run one task, or find that it does not start."""
        try:
            status = self._starts(action, joined, scope, per_item=item != NO_ITEM)
            if status is not None:
                return TaskEnd(status)
            inputs = action.inputs.render(scope)
            spec = self._spec(action.uses)
        except (ExpressionError, ActionError) as error:
            now = time.monotonic_ns()
            return TaskEnd(
                TaskStatus.FAILED, error=describe_error(error, attempt + retry), started_ns=now, finished_ns=now
            )
        left = (deadline_ns - time.monotonic_ns()) / 1e9
        own = action.timeout_seconds
        seconds = left if own is None or left < own else own
        call = invoke(spec, inputs, lambda: self._call_context(action, attempt + retry, item), seconds, self._limit)  # type: ignore[arg-type]
        self._context.metrics_recorder.record_task(call.finished_ns - call.started_ns)
        if call.status is TaskStatus.SUCCEEDED:
            try:
                result = encode_result(call.value, most_bytes=self._context.settings.max_stored_result_bytes)
            except ActionError as error:
                call = Invocation(TaskStatus.FAILED, call.started_ns, call.finished_ns, error=error)
            else:
                return TaskEnd(call.status, result, started_ns=call.started_ns, finished_ns=call.finished_ns)
        assert call.error is not None
        end = TaskEnd(
            call.status, error=self._describe(action, call, attempt + retry, seconds), started_ns=call.started_ns,
            finished_ns=call.finished_ns,
        )  # fmt: skip
        out_of_branch_time = call.status is TaskStatus.TIMED_OUT and seconds is left
        if not out_of_branch_time and action.retry.allows(retry + 1, call.error):
            end.retry_after_ms = action.retry.delay_before(retry + 2)
        return end

    def _given_up(self, attempt: int) -> TaskEnd | None:
        """The end of a task that has taken too many processes down; None for any other."""
        most = self._context.settings.max_branch_crashes
        if attempt <= most:
            return None
        error = ActionError(f"the process that ran it died {attempt - 1} times (MAX_BRANCH_CRASHES={most})")
        now = time.monotonic_ns()
        return TaskEnd(TaskStatus.FAILED, error=describe_error(error, attempt), started_ns=now, finished_ns=now)

    def _starts(self, action: PlannedAction, joined: JoinCounts, scope: Scope, *, per_item: bool) -> TaskStatus | None:
        """None when the action runs, else what it becomes without running.

        Raises: ExpressionError: its condition.
        """
        if not per_item:
            decision = decide(action.rule, joined)
            if decision is not None:
                return _STATUS_OF_DECISION[decision]
        condition = action.condition
        if condition is None or condition.uses_item != per_item:
            return None
        return None if condition.evaluate(scope) else TaskStatus.SKIPPED

    def _spec(self, uses: str) -> ActionSpec:
        spec = self._specs.get(uses)
        if spec is None:
            spec = self._specs[uses] = find_action(uses)
        return spec

    def _call_context(self, action: PlannedAction, attempt: int, item: int) -> CallContext:
        context = self._context
        place = action.name if item == NO_ITEM else f"{action.name}:{item}"
        ids = {"flow_session_id": context.flow_session_id, "workflow_id": context.plan.workflow, "task_id": place}
        return CallContext(
            context.flow_session_id, context.plan.workflow, action.name, None if item == NO_ITEM else item, attempt,
            f"{context.flow_session_id}/{place}", logging.LoggerAdapter(_action_log, ids),
        )  # fmt: skip

    def _describe(self, action: PlannedAction, call: Invocation, attempt: int, seconds: float) -> Mapping[str, object]:
        assert call.error is not None
        if call.status is TaskStatus.TIMED_OUT:
            limit = "timeout_seconds"
            if seconds != action.timeout_seconds:
                limit, seconds = "the branch timeout", self._context.branch_timeout_seconds
            return {
                "type": type(call.error).__name__,
                "message": f"it ran longer than {seconds:g} s ({limit})",
                "attempt": attempt,
            }
        return describe_error(call.error, attempt)

    # What is kept and recorded

    def _keep(self, action: PlannedAction, task: TaskEnd, item: int, attempt: int) -> bytes:
        """What Redis keeps of a task; a result too large for it goes to PostgreSQL first."""
        context = self._context
        read = action.name in context.reads
        if task.status is not TaskStatus.SUCCEEDED:
            if read:
                context.remember(action.name, ended_view(task.status.value, task.error))
            return keep_ended(task.status, task.error)
        if read:
            context.remember(action.name, success_view(orjson.loads(task.result)))
        if len(task.result) <= context.settings.max_result_bytes:
            return keep_success(task.result)
        self._store(action, item, task.result, attempt)
        return STORED

    def _kept_item(self, action: PlannedAction, task: TaskEnd, index: int, attempt: int) -> bytes:
        if task.status is not TaskStatus.SUCCEEDED:
            return NO_RESULT
        if len(task.result) > self._context.settings.max_result_bytes:
            self._store(action, index, task.result, attempt)
        return task.result

    def _store(self, action: PlannedAction, item: int, result: bytes, attempt: int) -> None:
        context = self._context
        stored_results.put_result(
            context.stores.database, context.flow_session_id, context.day, action.name, item, result, attempt
        )

    def _row(self, action: PlannedAction, task: TaskEnd, attempt: int, sequence: int, item: int) -> list[object]:
        now = time.monotonic_ns()
        succeeded = task.status is TaskStatus.SUCCEEDED
        result = task.result if succeeded or task.result is not NO_RESULT else None
        if result is not None and len(result) > self._context.settings.max_result_bytes:
            result = orjson.dumps({"$stored": True, "size_bytes": len(result)})
        waits = task.retry_after_ms is not None
        return task_row(
            action.name, TaskStatus.PENDING if waits else task.status, attempt, sequence, action.queue, item=item,
            started_ago_us=None if task.started_ns is None else (now - task.started_ns) // 1000,
            finished_ago_us=None if waits else (now - task.finished_ns) // 1000,
            result=result, error=orjson.dumps(task.error) if task.error else None,
        )  # fmt: skip

    def _checkpoint(self, claim: Claim | None, action: PlannedAction, kept: bytes, row: list[object]) -> None:
        context = self._context
        rows = encode_rows([row])
        if not context.stores.live.checkpoint_step(self._runner, claim, context.day, action.name, kept, rows):
            name = claim.name if claim else action.name
            raise StaleClaim(f"branch {name} of {context.flow_session_id} belongs to another attempt")
        if action.durability is Durability.SYNC:
            context.write_now(rows)


def join_steps(branch: Branch) -> tuple[JoinStep, ...]:
    """The successors of a branch as the scripts take them."""
    return tuple(JoinStep(step.branch, step.predecessors, step.queue) for step in branch.successors)


def outcome_of(action: PlannedAction, status: TaskStatus) -> Outcome:
    """How an ended action looks to its successors and to the end of the session."""
    outcome = OUTCOME_OF_STATUS[status]
    return Outcome.SUCCESS if outcome is Outcome.FAILED and action.continue_on_failure else outcome
