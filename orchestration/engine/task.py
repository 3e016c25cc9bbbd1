"""One task: does it start, with which inputs, how did it end, what is kept and recorded of it.

A task is a generator that asks for the call of its action and is told what became of it: the same code serves actions
that run in the runner's thread (`run_steps`) and async ones that run beside others (`run_steps_async`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import orjson
from opentelemetry.context import Context

from orchestration.definition.expressions import Scope
from orchestration.engine.context import ProcessingContext
from orchestration.engine.invoke import (
    Call,
    CallContext,
    Invocation,
    Late,
    TimeLimit,
    describe_error,
    invoke,
    invoke_async,
)
from orchestration.engine.results import (
    NO_RESULT,
    STORED,
    encode_result,
    ended_view,
    keep_ended,
    keep_success,
    success_view,
)
from orchestration.errors import ActionError, ExpressionError
from orchestration.plan import PlannedAction, decide
from orchestration.registry import ActionSpec, find_action
from orchestration.state.clock import Timeline
from orchestration.state.rows import task_row
from orchestration.store import results as stored_results
from orchestration.telemetry.logs import ActionLogger, Place, current_place, place_of_task
from orchestration.telemetry.metrics_memory import counters
from orchestration.vocabulary import NO_ITEM, Claim, JoinCounts, Outcome, TaskStatus

_action_log = logging.getLogger("orchestration.action")
_STATUS_OF_DECISION = {Outcome.SKIPPED: TaskStatus.SKIPPED, Outcome.UPSTREAM_FAILED: TaskStatus.UPSTREAM_FAILED}

#: A wait for a rate limit that is shorter than the way back to the queue is spent here.
SHORT_WAIT_US = 5000

T = TypeVar("T")
#: Asks for calls, is told what became of them, and returns a T.
Steps = Generator[Call, Invocation, T]


def run_steps(steps: Steps[T], place: Place, limit: TimeLimit, late: Late | None = None) -> T:
    """Make the calls that `steps` asks for, in this thread.

    Args: place: is told of each. late: calls `end_without` when a call does not end; `steps` is another thread's then.
    Raises: GivenUp: it was called.
    """
    try:
        call = next(steps)
        while True:
            place.call = call
            call = steps.send(invoke(call, limit, late))
    except StopIteration as end:
        value: T = end.value
        return value


async def run_steps_async(steps: Steps[T], place: Place, limit: TimeLimit, late: Late | None = None) -> T:
    """Make the calls that `steps` asks for, all of async actions, on this thread's event loop; see `run_steps`."""
    try:
        call = next(steps)
        while True:
            place.call = call
            call = steps.send(await invoke_async(call, limit, late))
    except StopIteration as end:
        value: T = end.value
        return value


def end_without(steps: Steps[T], invocation: Invocation) -> T:
    """Go on without a call that was left behind; `steps` ask for no further one."""
    try:
        steps.send(invocation)
    except StopIteration as end:
        value: T = end.value
        return value
    raise AssertionError("after a call that was left behind, nothing more is to run here")


@dataclass(slots=True)
class TaskEnd:
    """How one task ended, or that it is to be tried again. Times by `time.monotonic_ns`."""

    status: TaskStatus
    #: Of a success: the result as JSON.
    result: bytes = NO_RESULT
    error: Mapping[str, object] | None = None
    started_ns: int | None = None
    finished_ns: int = field(default_factory=time.monotonic_ns)
    #: Milliseconds to wait before the next attempt, or None.
    retry_after_ms: int | None = None
    #: By what its rate limits let it begin: Redis's time in µs, or None.
    let_in_us: int | None = None
    #: It has not begun: µs until its turn comes by its rate limits, or None.
    turn_after_us: int | None = None
    #: Its action did not end in time and may run on.
    left_behind: bool = False
    #: See `Call.kept_ns`.
    kept_ns: int = 0


class TaskProcessor:
    """Runs tasks of one flow session."""

    def __init__(self, context: ProcessingContext) -> None:
        self._context = context
        self._has_deadline = context.plan.limits.deadline_seconds is not None
        self._is_traced = context.span_factory.is_told
        self._specs: dict[str, ActionSpec] = {}

    def steps(
        self,
        action: PlannedAction,
        joined: JoinCounts,
        scope: Scope,
        attempt: int,
        retry: int,
        item: int,
        deadline_ns: int,
    ) -> Steps[TaskEnd]:
        """Run one task, or find that it does not start.

        Args: attempt: 1, and one more for each crash. retry: after failures. deadline_ns: the branch's.
        """
        context = self._context
        cancellation, over_ns = context.cancellation, context.deadline_ns if self._has_deadline else None
        if cancellation.is_set or (over_ns is not None and time.monotonic_ns() >= over_ns):
            return TaskEnd(TaskStatus.CANCELLED)
        try:
            status = self.starts(action, joined, scope, per_item=item != NO_ITEM)
            if status is not None:
                return TaskEnd(status)
            inputs: Mapping[str, object] = action.inputs.render(scope)  # type: ignore[assignment]  # checked: a mapping
            spec = self.spec(action.uses)
        except (ExpressionError, ActionError) as error:
            now = time.monotonic_ns()
            return TaskEnd(
                TaskStatus.FAILED, error=describe_error(error, attempt + retry), started_ns=now, finished_ns=now
            )
        let_in_us: int | None = None
        if action.rates:
            wait_us, now_us = self._wait_for_turn(action, attempt + retry, item)
            if wait_us:
                return TaskEnd(TaskStatus.PENDING, turn_after_us=wait_us)
            let_in_us = now_us
        left = ((deadline_ns if over_ns is None else min(deadline_ns, over_ns)) - time.monotonic_ns()) / 1e9
        own = action.timeout_seconds
        seconds = left if own is None or left < own else own
        asked = Call(
            spec, inputs, self._call_context, seconds, action.name, item, attempt, cancellation, over_ns, retry=retry
        )  # fmt: skip
        asked.span = self._span(action, item, attempt + retry)
        call = yield asked
        context.metrics_recorder.record_task(call.finished_ns - call.started_ns)
        if call.status is TaskStatus.SUCCEEDED:
            try:
                result = encode_result(call.value, most_bytes=context.settings.max_stored_result_bytes)
            except ActionError as error:
                call = Invocation(TaskStatus.FAILED, call.started_ns, call.finished_ns, error=error)
            else:
                return TaskEnd(
                    call.status, result, None, call.started_ns, call.finished_ns, let_in_us=let_in_us,
                    kept_ns=asked.kept_ns,
                )  # fmt: skip
        assert call.error is not None
        end = TaskEnd(
            call.status, error=self._describe(action, call, attempt + retry, seconds), started_ns=call.started_ns,
            finished_ns=call.finished_ns, let_in_us=let_in_us, left_behind=call.left_behind, kept_ns=asked.kept_ns,
        )  # fmt: skip
        out_of_branch_time = call.status is TaskStatus.TIMED_OUT and seconds is left
        if not out_of_branch_time and not cancellation.is_set and action.retry.allows(retry + 1, call.error):
            end.retry_after_ms = action.retry.delay_before(retry + 2)
        return end

    def _span(self, action: PlannedAction, item: int, attempt: int) -> Context | None:
        return self._context.span_factory.call_context(action.name, item, attempt) if self._is_traced else None

    def starts(self, action: PlannedAction, joined: JoinCounts, scope: Scope, *, per_item: bool) -> TaskStatus | None:
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

    def _wait_for_turn(self, action: PlannedAction, attempt: int, item: int) -> tuple[int, int]:
        """Take a token of each rate limit, after a short wait if need be.

        Returns: 0 and when the call begins; or the µs until its turn comes.
        """
        token = f"{self._context.flow_session_id}/{action.name}:{item}#{attempt}"
        while True:
            wait_us, now_us = self._context.stores.live.take_rate(token, self._context.rates(action))
            if not wait_us or wait_us > SHORT_WAIT_US:
                return wait_us, now_us
            time.sleep(wait_us / 1e6)

    def given_up(self, claim: Claim) -> TaskEnd | None:
        """The end of a task that has taken too many processes down; None for any other."""
        context, attempt = self._context, claim.attempt
        most = context.settings.max_branch_crashes
        if attempt <= most:
            return None
        death = context.stores.live.death_of(context.flow_session_id, claim.unit)
        last = f", the last time {death}" if death else ""
        counters.add("poison_branches_total", 1)
        error = ActionError(f"the process that ran it died {attempt - 1} times (MAX_BRANCH_CRASHES={most}){last}")
        now = time.monotonic_ns()
        described = {**describe_error(error, attempt), "died": attempt - 1, "how": death}
        return TaskEnd(TaskStatus.FAILED, error=described, started_ns=now, finished_ns=now)

    def spec(self, uses: str) -> ActionSpec:
        """The action that a definition calls so.

        Raises: ActionError: it is not known here.
        """
        spec = self._specs.get(uses)
        if spec is None:
            spec = self._specs[uses] = find_action(uses)
        return spec

    # What is kept and recorded

    def keep(self, action: PlannedAction, task: TaskEnd, attempt: int) -> bytes:
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
        self._store(action, NO_ITEM, task.result, attempt)
        return STORED

    def keep_item(self, action: PlannedAction, task: TaskEnd, index: int, attempt: int) -> bytes:
        """What Redis keeps of an item: its result, or null."""
        if task.status is not TaskStatus.SUCCEEDED:
            return NO_RESULT
        if len(task.result) > self._context.settings.max_result_bytes:
            self._store(action, index, task.result, attempt)
        return task.result

    def row(
        self, action: PlannedAction, task: TaskEnd, attempt: int, sequence: int, item: int, timeline: Timeline
    ) -> list[object]:
        """The row that tells how the task ended, or that it waits for its next attempt."""
        result: bytes | None = None
        if task.status is TaskStatus.SUCCEEDED or task.result is not NO_RESULT:
            result = task.result
            if len(result) > self._context.settings.max_result_bytes:
                result = orjson.dumps({"$stored": True, "size_bytes": len(result)})
        waits = task.retry_after_ms is not None
        started_us, finished_us = timeline.span_us(task.started_ns or task.finished_ns, task.finished_ns)
        if task.let_in_us is not None:
            # what a rate limit counts, to the microsecond
            started_us, finished_us = task.let_in_us, max(task.let_in_us, finished_us)
        return task_row(
            action.name, TaskStatus.PENDING if waits else task.status, attempt, sequence, action.queue, item=item,
            started_us=None if task.started_ns is None else started_us, finished_us=None if waits else finished_us,
            result=result, error=orjson.dumps(task.error) if task.error else None,
        )  # fmt: skip

    def _store(self, action: PlannedAction, item: int, result: bytes, attempt: int) -> None:
        context = self._context
        context.stores.patience.run(
            lambda: stored_results.put_result(
                context.stores.database, context.flow_session_id, context.day, action.name, item, result, attempt
            )
        )

    def _call_context(self, call: Call) -> CallContext:
        context = self._context
        place = place_of_task(call.action, call.item)
        return CallContext(
            context.flow_session_id, context.plan.workflow, call.action, None if call.item == NO_ITEM else call.item,
            call.number, f"{context.flow_session_id}/{place}",
            ActionLogger(_action_log, (current_place() or Place(context), call)), context.settings.action_options,
            context.cancellation,
        )  # fmt: skip

    def _describe(self, action: PlannedAction, call: Invocation, attempt: int, seconds: float) -> Mapping[str, object]:
        assert call.error is not None
        if call.status is TaskStatus.TIMED_OUT:
            limit, shown = "timeout_seconds", "timeout_seconds"
            if seconds != action.timeout_seconds:
                limit, shown = "branch_timeout_seconds", "the branch timeout"
                seconds = self._context.branch_timeout_seconds
                if self._context.is_over:
                    limit, shown = "deadline_seconds", "deadline_seconds of the run"
                    seconds = self._context.plan.limits.deadline_seconds or 0.0
            return {
                "type": type(call.error).__name__,
                "message": f"it ran longer than {seconds:g} s ({shown})",
                "attempt": attempt,
                "limit": limit,
                "seconds": seconds,
            }
        return describe_error(call.error, attempt)
