"""EnhancedParallelProcessor: starts a flow session, runs its branches, completes it.

What if it dies here: before the row is inserted, nothing was accepted. In the first branch, the message comes again and
finds the row and the checkpoints. Once the session is open, Redis has all that is needed to go on.
"""

from __future__ import annotations

import logging
import os
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import orjson

from orchestration.definition.expressions import Scope
from orchestration.engine.branch import EnhancedBranchProcessor
from orchestration.engine.concurrency_key import concurrency_key
from orchestration.engine.context import ProcessingContext, Stores, load_context, make_context, session_view
from orchestration.engine.finish import RunResult, end_session
from orchestration.engine.inline import InlineRun, keeper_alone
from orchestration.engine.invoke import TimeLimit
from orchestration.engine.opening import new_session
from orchestration.engine.rebuild import rebuild
from orchestration.engine.results import has_nan
from orchestration.engine.run_ids import check_same_run
from orchestration.engine.runner import Links, RunnerLoop
from orchestration.engine.traced import rows_of_end, tell_end, trace_of_row
from orchestration.engine.unsettled import end_stopped
from orchestration.engine.versions import Version, VersionCache
from orchestration.errors import (
    PayloadError,
    SecondMessage,
    ServiceUnreachable,
    SessionClosed,
    StaleClaim,
    WorkflowExecutionError,
)
from orchestration.state.limits import OperatorLimits
from orchestration.state.records import Runner
from orchestration.state.rows import encode_rows
from orchestration.state.wire import lives_in
from orchestration.store import recovery, sessions
from orchestration.store.recovery import Facts
from orchestration.telemetry.logs import Place, at
from orchestration.telemetry.metrics_memory import counters
from orchestration.telemetry.probes import probe
from orchestration.telemetry.tracing_sdk import get_tracing
from orchestration.vocabulary import Mode, RunStatus, Settlement, Verdict

if TYPE_CHECKING:
    from config.settings import Settings

_log = logging.getLogger(__name__)
#: Contexts kept in a process: a runner that comes back to a session finds what it has read before.
KEPT_CONTEXTS = 8
#: So that a runner which can't load its session's version is no message after message.
STEP_ASIDE_SECONDS = 1.0
#: Callbacks are sent and the result is stored in some ms; when the broker or the result back end is away, in more.
DELIVERY_US = 30_000_000


@dataclass(frozen=True, slots=True)
class RunRequest:
    """One call of `run_workflow`."""

    flow_session_id: str
    workflow: str | Mapping[str, object]
    payload: object
    #: The queue whose process runs this call.
    queue: str
    priority: int = 0
    celery_task_id: str | None = None
    #: JSON, of what follows its end: with the id, all that is needed to publish it again.
    call: str | None = None
    #: Opens a session while the thread of this call is stuck in an action of it; called in another thread.
    fork_without: Callable[[Fork], None] | None = None
    #: The caller's own id, of which `flow_session_id` was made: other calls may come with the same one.
    run_id: str | None = None
    #: Whether another copy of this call's message is at work.
    has_copy_at_work: Callable[[], bool] | None = None
    #: W3C `traceparent` of the caller's span.
    traceparent: str | None = None


@dataclass(frozen=True, slots=True)
class Fork:
    """A session that needs Redis: it is opened as soon as its completion can be parked."""

    request: RunRequest
    version: Version
    row: sessions.SessionRow
    context: ProcessingContext
    runner: Runner
    #: What has been run in this process already.
    settlements: Sequence[Settlement] = ()
    #: Of the branches that are ready.
    attempt: int = 1
    #: Nothing more of it may run in this thread.
    leaves: bool = False
    #: Concurrency key; empty: none.
    key: str = ""
    #: What PostgreSQL knows of it, and what has been done by that; None: it is opened for the first time.
    facts: Facts | None = None
    results: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(slots=True)
class EnhancedParallelProcessor:
    """The engine of one process."""

    settings: Settings
    stores: Stores
    versions: VersionCache
    links: Links
    limit: TimeLimit
    #: Who this worker is: its node name and a nonce for its life.
    worker: str
    _contexts: OrderedDict[str, ProcessingContext] = field(default_factory=OrderedDict)
    operators: OperatorLimits = field(init=False)

    def __post_init__(self) -> None:
        self.operators = OperatorLimits(self.stores.live)

    def process_workflow_parallel(self, request: RunRequest) -> RunResult | Fork:
        """Start a flow session.

        Returns: the result, when all of it could run here, one action after another; else a Fork for `open_fork`.
        Raises: UnknownWorkflow, DefinitionError, PayloadError, RunIdTaken: nothing was recorded. ServiceUnreachable.
            SecondMessage: another copy of the message is at work.
            GivenUp: the session was opened by `request.fork_without`, and goes on.
        """
        version = self.versions.find(request.workflow)
        payload = {} if request.payload is None else request.payload
        body = payload_text(payload, self.settings.max_payload_bytes)
        version.check_payload(payload)
        key = _key_of(version, request, payload)
        row = sessions.insert_session(
            self.stores.database, request.flow_session_id, workflow=version.workflow, version_id=version.version_id,
            version=version.number, payload=body, priority=request.priority, celery_task_id=request.celery_task_id,
            call=request.call, traceparent=self._trace(request),
            status=RunStatus.QUEUED if self._limits_sessions(version) else RunStatus.RUNNING,
        )  # fmt: skip
        if request.run_id is not None and not row.created:
            check_same_run(request.run_id, request.workflow, version, payload, row)
        # of another call: that one's message comes again if its process dies, not this one
        is_of_another = request.run_id is not None and row.celery_task_id != request.celery_task_id
        if row.status.is_final or is_of_another:
            if not is_of_another:
                self._tell_again(request, version, row, payload)
            return RunResult.of_row(row, recorded_before=True)
        if not row.created:
            return self._accepted_before(request, row, crashed=True)
        fork = self._fork(request, version, row, payload, key)
        if self._is_limited(version) or not self._fits_here(fork.context):
            return fork
        context, runner = fork.context, fork.runner
        self.stores.live.keep_clock()
        context.accepted_us = min(row.created_us, self.stores.live.clock.latest_us(time.monotonic_ns()))
        inline = InlineRun(context, self.spawn_branch_processor(context, runner), request.queue)
        fork_without = request.fork_without
        if fork_without is not None:
            inline.without = lambda: fork_without(replace(fork, settlements=inline.settlements, leaves=True))
        began_ns = time.monotonic_ns()
        with at(Place(context)), context.span_factory.execution():
            try:
                inline.run_first_branch()
                inline.run_short_rest()
            except StaleClaim:
                return fork  # others have taken it up: this process was taken for dead
            finally:
                counters.add("permit_seconds_total", time.monotonic_ns() - began_ns)
                counters.add("busy_seconds_total", context.metrics_recorder.take_busy_ns())
        begun = replace(fork, settlements=inline.settlements)
        is_cancelled = context.cancellation.is_set
        return self._end_inline(begun, inline) if inline.has_ended and not is_cancelled else begun

    def take_up(self, request: RunRequest) -> RunResult | Fork:
        """Go on with a session that was accepted and of which Redis knows nothing.

        Args: request: workflow and payload are those of its row, whatever it says.
        Returns: the result, if it has ended; else a Fork for `open_fork`.
        """
        row = self._row(request.flow_session_id)
        if row.status.is_final:
            return RunResult.of_row(row, recorded_before=True)
        return self._accepted_before(request, row, crashed=False)

    def _accepted_before(self, request: RunRequest, row: sessions.SessionRow, *, crashed: bool) -> Fork:
        """The fork of a session whose row was there: with what has been done of it, unless it is open."""
        session = request.flow_session_id
        version = self.versions.load(row.version_id)  # the name may mean a newer one by now
        request = replace(request, priority=row.priority)
        payload = None if row.payload is None else orjson.loads(row.payload)
        fork = self._fork(request, version, row, payload, _key_of(version, request, payload))
        if self.stores.live.is_open(session):
            return fork
        if crashed and request.has_copy_at_work is not None and request.has_copy_at_work():
            # if that one's process dies, its own message comes again
            raise SecondMessage(f"another copy of the message of {session} is at work")
        facts = recovery.load_facts(self.stores.database, session, row.session_day)
        if facts.is_empty and crashed:
            has_begun = not self._is_limited(version) and self._fits_here(fork.context)
            # from here on Redis counts the attempts
            return replace(fork, attempt=2 if has_begun else 1, facts=facts if facts.is_cancelled else None)
        done = rebuild(fork.context, facts, self.stores.live.now_us(), crashed=crashed)
        probe("rebuild.done")
        return replace(fork, settlements=done.settlements, results=done.results, facts=facts, leaves=not crashed)

    def _trace(self, request: RunRequest) -> str | None:
        """What is recorded of the trace of a session that is accepted now; None: traces are off."""
        tracing = get_tracing()
        if tracing is None:
            return None
        return tracing.accept(request.flow_session_id, request.traceparent, 0).traceparent

    def _tell_again(self, request: RunRequest, version: Version, row: sessions.SessionRow, payload: object) -> None:
        """A message comes again for a session that has ended: its process may have died before it told the trace."""
        if row.traceparent is not None:
            tell_end(self._fork(request, version, row, payload, "").context, row)

    def _fork(self, request: RunRequest, version: Version, row: sessions.SessionRow, payload: object, key: str) -> Fork:
        session, day = request.flow_session_id, row.session_day.isoformat()
        trace = trace_of_row(row)
        context = make_context(session, version, day, payload, self.worker, self.settings, self.stores, trace)
        runner = self._runner(session, f"{session}.0", request.queue)
        return Fork(request, version, row, context, runner, key=key)

    def open_fork(self, fork: Fork, signature: str) -> Verdict:
        """Open the session with its completion parked, and this process as its first runner unless it has a chord.

        Returns: GO, to be followed by `run_fork`; CHORD: the caller publishes `header_of` the session; else why there
        is nothing to do here (the message came a second time, or all of it has been done before).
        """
        live, session = self.stores.live, fork.request.flow_session_id
        lease_us = int(self.settings.lease_seconds * 1e6)
        new = new_session(fork, signature, self.settings.max_concurrent_workflows, self._deadline_us(fork))
        if fork.facts is not None and fork.facts.is_cancelled:
            live.cancel_session(session)  # Redis has forgotten it, perhaps; `open_session` heeds the mark
        keep = keeper_alone(fork.context, fork.settlements)
        verdict, publications = live.open_session(fork.runner, new, lease_us, keep)
        self.links.publish_runners(publications)
        if verdict is Verdict.GO and fork.row.status is RunStatus.QUEUED:
            sessions.set_status(
                self.stores.database, session, fork.row.session_day, [RunStatus.QUEUED], RunStatus.RUNNING
            )
        if verdict is Verdict.REJECTED:
            self._reject(fork)
        if verdict in (Verdict.ENDED, Verdict.REJECTED):
            self.links.publish_completion(session, signature)
        # of a session that was open: the settings of whoever opened it, which may be others
        header = self.header_of(session) if verdict is Verdict.EXISTS else new.header
        if header and verdict in (Verdict.GO, Verdict.QUEUED, Verdict.EXISTS):
            return Verdict.CHORD
        if verdict is not Verdict.EXISTS:
            return verdict
        started = live.start_runner(fork.runner, lease_us)
        if started.verdict is Verdict.ENDED:
            # whoever ended it may have died with this message's first delivery; a second completion changes nothing
            self.links.publish_completion(session, started.signature)
        return started.verdict

    def _deadline_us(self, fork: Fork) -> int:
        """µs until the deadline of a session that is to be opened passes, at least 1; 0: it has none."""
        seconds = fork.version.plan.limits.deadline_seconds
        if seconds is None:
            return 0
        if not fork.row.created:
            seconds -= sessions.age_seconds(self.stores.database, fork.request.flow_session_id, fork.row.session_day)
        return max(1, int(seconds * 1e6))

    def _reject(self, fork: Fork) -> None:
        """A session that may not run now and is not to wait has failed; its completion gives what is recorded here."""
        limits = fork.version.plan.limits
        message = (
            f"as many flow sessions run as may (limits of {fork.version.workflow}: max_concurrent_sessions "
            f"{limits.max_concurrent_sessions or '-'}, per key {limits.max_concurrent_sessions_per_key or '-'}"
            f"{f', key {fork.key}' if fork.key else ''}), and when_full is reject"
        )
        won, row = sessions.finish_session(
            self.stores.database, fork.request.flow_session_id, fork.row.session_day, RunStatus.FAILED,
            error=orjson.dumps({"type": "LimitReached", "message": message}), workflow=fork.version.workflow,
        )  # fmt: skip
        if won:
            tell_end(fork.context, row)

    def header_of(self, flow_session_id: str) -> int:
        """How many runners the chord of an open session has; they are `<session>.1`, `<session>.2`, …; 0: no chord."""
        return self.stores.live.header_of(flow_session_id)

    def run_fork(self, fork: Fork) -> Verdict:
        """Go on as the first runner of a session that was just opened, until there is no more to do here.

        Returns: why this runner left; its session goes on without it, or has ended.
        """
        loop = RunnerLoop(fork.context, fork.runner, self.spawn_branch_processor(fork.context, fork.runner), self.links)
        if fork.leaves or not self._fits_here(fork.context):
            return loop.settle([], Mode.LEAVE).verdict
        return self._run(fork.context, loop)

    def give_up(self, runner: Runner) -> None:
        """Let others take over what a runner of this process has claimed, when it can't go on."""
        live = self.stores.live
        unsent = live.resend_runners()
        takers = live.expire_runner(runner.flow_session_id, runner.runner, runner.queue, self.worker, runner.life)
        self.links.publish_runners(unsent + takers)

    def process_branches_parallel(self, flow_session_id: str, runner: str, queue: str, message: str = "") -> Verdict:
        """Run branches of an open session as one of its runners, until there is no more to do here.

        Args: message: what publishes the runner again, if it is of a chord: such a one may come and leave many times.
        Returns: why this runner left.
        Raises: what keeps it from going on; a runner of a chord was given up before.
        """
        registered = self._runner(flow_session_id, runner, queue)
        try:
            return self._run_registered(registered, message)
        except Exception:
            if message:
                # nobody else does: to Celery, a task in a header must not fail
                self.give_up(registered)
            raise

    def _run_registered(self, runner: Runner, message: str) -> Verdict:
        session = runner.flow_session_id
        started = self.stores.live.start_runner(runner, int(self.settings.lease_seconds * 1e6), message)
        self.links.publish_runners(started.publications)
        if started.verdict is Verdict.ENDED and started.signature:
            # its process may have died before it sent the completion; a second one changes nothing
            self.links.publish_completion(session, started.signature)
        if started.verdict is not Verdict.GO:
            return started.verdict
        try:
            context = self._context(session, started.version_id, started.day)
        except SessionClosed:
            return Verdict.GONE  # others have ended it since
        except ServiceUnreachable as error:
            return self._step_aside(runner, error)
        branches = self.spawn_branch_processor(context, runner)
        takes_one = bool(message) and not self.settings.runner_slice_seconds
        return self._run(context, RunnerLoop(context, runner, branches, self.links, takes_one=takes_one))

    def _step_aside(self, runner: Runner, error: ServiceUnreachable) -> Verdict:
        """Leave a session whose version is not known here and can't be loaded now: others of the queue may go on.

        It is published again like any that has work, after those.
        """
        _log.warning("runner %s comes again later: %s", runner.runner, error)
        time.sleep(STEP_ASIDE_SECONDS)
        answer = self.stores.live.settle_branch(runner, [], call=1, mode=Mode.LEAVE)
        self.links.publish_runners(answer.publications)
        if answer.verdict is Verdict.ENDED and answer.signature:
            self.links.publish_completion(runner.flow_session_id, answer.signature)
        return answer.verdict

    def spawn_branch_processor(self, context: ProcessingContext, runner: Runner) -> EnhancedBranchProcessor:
        """What runs claims of this session for this runner."""
        return EnhancedBranchProcessor(context, runner, self.limit, self.links.publish_runners, give_up=self.give_up)

    def complete_workflow(self, flow_session_id: str) -> RunResult:
        """Record the end of a session whose branches have all settled, once, and remove its live state.

        Returns: the result; of a session that was completed before, what was recorded then.
        Raises: UnknownRun. SessionNotEnded; SessionClosed: Redis has lost it, and it is taken up again.
        """
        row = self._row(flow_session_id)
        result, told = None, b""
        if not row.status.is_final:
            try:
                result, told = self._end_open(row)
            except SessionClosed:
                row = self._row(flow_session_id)
                if not row.status.is_final:
                    raise
        elif row.traceparent is not None and self.stores.live.is_open(flow_session_id):
            told = self._rows_of_end(row)
        publications, is_holder = self.stores.live.close_session(
            flow_session_id, self._life(), DELIVERY_US,
            day=row.session_day.isoformat(), worker=self.worker, rows=told,
        )  # fmt: skip
        self.links.publish_runners(publications)
        self._contexts.pop(flow_session_id, None)
        return replace(result or RunResult.of_row(row, recorded_before=True), delivered_by_another=not is_holder)

    def _rows_of_end(self, row: sessions.SessionRow) -> bytes:
        """Whoever has committed the end may have died before it told the trace, as before it closed the session."""
        with suppress(SessionClosed):
            context = self._context(row.flow_session_id, row.version_id, row.session_day.isoformat())
            return rows_of_end(context, row)
        return b""

    def _row(self, flow_session_id: str) -> sessions.SessionRow:
        row = sessions.load_session(self.stores.database, flow_session_id)
        if row is None:
            raise WorkflowExecutionError(f"flow session {flow_session_id} is not in PostgreSQL")
        return row

    def _end_open(self, row: sessions.SessionRow) -> tuple[RunResult, bytes]:
        counts, failed, stopped = self.stores.live.ended_counts(row.flow_session_id)
        context = self._context(row.flow_session_id, row.version_id, row.session_day.isoformat())
        if stopped is not None:
            return end_stopped(context, row, counts, stopped)
        return end_session(context, row, counts, failed=failed > 0, is_open=True)

    def _end_inline(self, fork: Fork, inline: InlineRun) -> RunResult | Fork:
        """The end of a session that was never opened; when it can't be recorded now, Redis is to keep it."""
        live, context = self.stores.live, fork.context
        data = encode_rows([row for settlement in inline.settlements for row in settlement.rows])
        keep = keeper_alone(context, inline.settlements)
        if not live.record_rows(context.flow_session_id, context.day, self.worker, data, keep, alone=True):
            return fork  # cancelled or taken up in the meantime: its end is that of an open session
        try:
            result, told = end_session(context, fork.row, inline.counts, failed=inline.failed)
        except ServiceUnreachable:
            return fork
        if told:
            live.send_rows(context.flow_session_id, context.day, self.worker, told)
        if any(len(fork.version.plan.branches[name].actions) > 1 for name in fork.version.plan.roots):
            live.forget_checkpoints(context.flow_session_id)
        return result

    def _run(self, context: ProcessingContext, loop: RunnerLoop) -> Verdict:
        with at(Place(context)):
            with context.span_factory.execution():
                verdict = loop.run()
            if verdict in (Verdict.LOST, Verdict.GONE):
                # perhaps Redis has lost the session: what runs again may give other results than those known here
                self._contexts.pop(context.flow_session_id, None)
            recorder = context.metrics_recorder
            _log.debug(
                "a runner of %s left (%s); this process has run %d branches, %d tasks, %.3f s for it",
                context.flow_session_id, verdict, recorder.branches, recorder.tasks, recorder.busy_ns / 1e9,
            )  # fmt: skip
        return verdict

    def _fits_here(self, context: ProcessingContext) -> bool:
        """Whether the time limits of this very message leave a branch its time."""
        return context.branch_timeout_seconds <= self.settings.branch_processing_timeout_secs

    def _is_limited(self, version: Version) -> bool:
        """Whether more than its own limit holds for a session: then even a first branch needs a permit of Redis's.

        So it does where the session is to be ended at a time, whatever has become of the process that runs it.
        """
        return bool(
            self.settings.max_concurrent_branches_global
            or self._limits_sessions(version)
            or version.plan.limits.is_shared
            or version.plan.limits.ends_at_a_time
            or self.operators.limit(version.workflow)
        )

    def _limits_sessions(self, version: Version) -> bool:
        """Whether the session may have to wait for others to end."""
        return (
            bool(self.settings.max_concurrent_workflows)
            or version.plan.limits.is_of_sessions
            or self.operators.limit_sessions(version.workflow)
        )

    def _context(self, flow_session_id: str, version_id: str, day: str) -> ProcessingContext:
        context = self._contexts.get(flow_session_id)
        if context is None:
            context = load_context(
                flow_session_id, self.versions.load(version_id), day, self.worker, self.settings, self.stores
            )
            self._contexts[flow_session_id] = context
            while len(self._contexts) > KEPT_CONTEXTS:
                self._contexts.popitem(last=False)
        return context

    def _runner(self, flow_session_id: str, runner: str, queue: str) -> Runner:
        return Runner(flow_session_id, runner, self._life(), queue, self.worker)

    def _life(self) -> str:
        return f"{lives_in(self.worker, os.getpid())}{uuid.uuid4().hex[:12]}"


def _key_of(version: Version, request: RunRequest, payload: object) -> str:
    session = session_view(request.flow_session_id, version)
    return concurrency_key(version.plan.limits.concurrency_key, Scope(payload=payload, session=session))


def process_workflow(
    processor: EnhancedParallelProcessor, workflow: str | Mapping[str, object], payload: object = None, **options: Any
) -> RunResult | Fork:
    """Start a flow session with an id of its own; see `EnhancedParallelProcessor.process_workflow_parallel`."""
    request = RunRequest(str(uuid.uuid4()), workflow, payload, **{"queue": "branches", **options})
    return processor.process_workflow_parallel(request)


def payload_text(payload: object, most_bytes: int) -> bytes:
    """The payload as JSON.

    Raises: PayloadError: it is not JSON, or larger than `most_bytes`.
    """
    try:
        text = orjson.dumps(payload)
    except orjson.JSONEncodeError as error:
        raise PayloadError(f"the payload is not JSON: {error}") from None
    if b"null" in text and has_nan(payload):
        raise PayloadError("the payload is not JSON: it holds NaN or an infinity")
    if len(text) > most_bytes:
        raise PayloadError(f"the payload has {len(text)} bytes as JSON, more than MAX_PAYLOAD_BYTES={most_bytes}")
    return text
