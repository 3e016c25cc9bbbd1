"""EnhancedParallelProcessor: starts a flow session, runs its branches, completes it.

What if it dies here: before the row is inserted, nothing was accepted. In the first branch, the message comes again and
finds the row and the checkpoints. Once the session is open, Redis has all that is needed to go on.
"""

from __future__ import annotations

import logging
import uuid
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import orjson

from orchestration.engine.branch import EnhancedBranchProcessor
from orchestration.engine.context import ProcessingContext, Stores, load_context, make_context
from orchestration.engine.finish import RunResult, end_session
from orchestration.engine.inline import InlineRun
from orchestration.engine.invoke import TimeLimit
from orchestration.engine.results import has_nan
from orchestration.engine.runner import Links, RunnerLoop
from orchestration.engine.versions import Version, VersionCache
from orchestration.errors import PayloadError, ServiceUnreachable, WorkflowExecutionError
from orchestration.state.live import PAYLOAD_FIELD, NewSession, Runner
from orchestration.state.rows import encode_rows
from orchestration.store import sessions
from orchestration.vocabulary import Mode, RunStatus, Settlement, Verdict

if TYPE_CHECKING:
    from config.settings import Settings

_log = logging.getLogger(__name__)
#: Contexts kept in a process: a runner that comes back to a session finds what it has read before.
KEPT_CONTEXTS = 8


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
    #: It is open already: the message came again.
    is_open: bool = False
    #: Of the branches that are ready.
    attempt: int = 1


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

    def process_workflow_parallel(self, request: RunRequest) -> RunResult | Fork:
        """Start a flow session.

        Returns: the result, when all of it could run here, one action after another; else a Fork for `open_fork`.
        Raises: UnknownWorkflow, DefinitionError, PayloadError: nothing was recorded. ServiceUnreachable.
        """
        version = self.versions.find(request.workflow)
        payload = {} if request.payload is None else request.payload
        body = payload_text(payload, self.settings.max_payload_bytes)
        version.check_payload(payload)
        row = sessions.insert_session(
            self.stores.database, request.flow_session_id, workflow=version.workflow, version_id=version.version_id,
            version=version.number, payload=body, priority=request.priority, celery_task_id=request.celery_task_id,
            status=RunStatus.QUEUED if self.settings.max_concurrent_workflows else RunStatus.RUNNING,
        )  # fmt: skip
        if row.status.is_final:
            return RunResult.of_row(row, recorded_before=True)
        if not row.created:
            version = self.versions.load(row.version_id)  # the name may mean a newer one by now
        day = row.session_day.isoformat()
        context = make_context(request.flow_session_id, version, day, payload, self.worker, self.settings, self.stores)
        runner = self._runner(request.flow_session_id, f"{request.flow_session_id}.0", request.queue)
        fork = Fork(request, version, row, context, runner)
        if not row.created and self.stores.live.is_open(request.flow_session_id):
            return replace(fork, is_open=True)
        if self._is_limited() or not self._fits_here(context):
            return fork
        if not row.created:
            return replace(fork, attempt=2)  # whoever began it has died: from here on Redis counts the attempts
        self.stores.live.keep_clock()
        inline = InlineRun(context, self.spawn_branch_processor(context, runner), request.queue)
        with context.span_factory.start_as_current_span("workflow_execution"):
            inline.run_first_branch()
            inline.run_short_rest()
        fork = replace(fork, settlements=inline.settlements)
        return self._end_inline(fork, inline) if inline.has_ended else fork

    def open_fork(self, fork: Fork, signature: str) -> Verdict:
        """Open the session with its completion parked and this process as its first runner.

        Returns: GO, to be followed by `run_fork`; else why there is nothing to do here (the message came a second
        time, or all of it has been done before).
        """
        live = self.stores.live
        lease_us = int(self.settings.lease_seconds * 1e6)
        if not fork.is_open:
            new = _new_session(fork, signature, self.settings.max_concurrent_workflows)
            verdict, publications = live.open_session(fork.runner, new, lease_us)
            self.links.publish_runners(publications)
            if verdict is Verdict.GO and fork.row.status is RunStatus.QUEUED:
                sessions.set_status(
                    self.stores.database, fork.row.flow_session_id, fork.row.session_day, [RunStatus.QUEUED],
                    RunStatus.RUNNING,
                )  # fmt: skip
            if verdict is Verdict.ENDED:
                self.links.publish_completion(fork.request.flow_session_id, signature)
            if verdict is not Verdict.EXISTS:
                return verdict
        started = live.start_runner(fork.runner, lease_us)
        if started.verdict is Verdict.ENDED:
            # whoever ended it may have died with this message's first delivery; a second completion changes nothing
            self.links.publish_completion(fork.request.flow_session_id, started.signature)
        return started.verdict

    def run_fork(self, fork: Fork) -> Verdict:
        """Go on as the first runner of a session that was just opened, until there is no more to do here.

        Returns: why this runner left; its session goes on without it, or has ended.
        """
        loop = RunnerLoop(fork.context, fork.runner, self.spawn_branch_processor(fork.context, fork.runner), self.links)
        if not self._fits_here(fork.context):
            return loop.settle([], Mode.LEAVE).verdict
        return self._run(fork.context, loop)

    def give_up(self, runner: Runner) -> None:
        """Let others take over what a runner of this process has claimed, when it can't go on."""
        self.links.publish_runners(
            self.stores.live.expire_runner(runner.flow_session_id, runner.runner, runner.queue, self.worker)
        )

    def process_branches_parallel(self, flow_session_id: str, runner: str, queue: str) -> Verdict:
        """Run branches of an open session as one of its runners, until there is no more to do here.

        Returns: why this runner left.
        """
        registered = self._runner(flow_session_id, runner, queue)
        started = self.stores.live.start_runner(registered, int(self.settings.lease_seconds * 1e6))
        if started.verdict is Verdict.ENDED:
            # its process may have died before it sent the completion; a second one changes nothing
            self.links.publish_completion(flow_session_id, started.signature)
        if started.verdict is not Verdict.GO:
            return started.verdict
        context = self._context(flow_session_id, started.version_id, started.day)
        return self._run(
            context, RunnerLoop(context, registered, self.spawn_branch_processor(context, registered), self.links)
        )

    def spawn_branch_processor(self, context: ProcessingContext, runner: Runner) -> EnhancedBranchProcessor:
        """What runs claims of this session for this runner."""
        return EnhancedBranchProcessor(context, runner, self.limit, self.links.publish_runners)

    def complete_workflow(self, flow_session_id: str) -> RunResult:
        """Record the end of a session whose branches have all settled, once, and remove its live state.

        Returns: the result; of a session that was completed before, what was recorded then.
        Raises: UnknownRun; WorkflowExecutionError: the session has not ended.
        """
        row = sessions.load_session(self.stores.database, flow_session_id)
        if row is None:
            raise WorkflowExecutionError(f"flow session {flow_session_id} is not in PostgreSQL")
        if row.status.is_final:
            self.links.publish_runners(self.stores.live.close_session(flow_session_id))
            return RunResult.of_row(row, recorded_before=True)
        ended = self.stores.live.session_counts(flow_session_id)
        if ended is None:
            raise WorkflowExecutionError(f"flow session {flow_session_id} has no live state")
        counts, failed = ended
        context = self._context(flow_session_id, row.version_id, row.session_day.isoformat())
        result = end_session(context, row, counts, failed=failed > 0)
        self.links.publish_runners(self.stores.live.close_session(flow_session_id))
        self._contexts.pop(flow_session_id, None)
        return result

    def _end_inline(self, fork: Fork, inline: InlineRun) -> RunResult | Fork:
        """The end of a session that was never opened; when it can't be recorded now, Redis is to keep it."""
        live, context = self.stores.live, fork.context
        rows = [row for settlement in inline.settlements for row in settlement.rows]
        live.record_rows(context.flow_session_id, context.day, self.worker, encode_rows(rows))
        try:
            result = end_session(context, fork.row, inline.counts, failed=inline.failed)
        except ServiceUnreachable:
            return fork
        if any(len(fork.version.plan.branches[name].actions) > 1 for name in fork.version.plan.roots):
            live.forget_checkpoints(context.flow_session_id)
        return result

    def _run(self, context: ProcessingContext, loop: RunnerLoop) -> Verdict:
        with context.span_factory.start_as_current_span("workflow_execution"):
            verdict = loop.run()
        recorder = context.metrics_recorder
        _log.debug(
            "[PARALLELIZER] a runner of %s left (%s); this process has run %d branches, %d tasks, %.3f s for it",
            context.flow_session_id, verdict, recorder.branches, recorder.tasks, recorder.busy_ns / 1e9,
        )  # fmt: skip
        return verdict

    def _fits_here(self, context: ProcessingContext) -> bool:
        """Whether the time limits of this very message leave a branch its time."""
        return context.branch_timeout_seconds <= self.settings.branch_processing_timeout_secs

    def _is_limited(self) -> bool:
        """Whether a limit of the fleet is set: then even a first branch needs a permit, which only Redis can give."""
        return bool(self.settings.max_concurrent_branches_global or self.settings.max_concurrent_workflows)

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
        return Runner(flow_session_id, runner, f"{self.worker}/{uuid.uuid4().hex[:12]}", queue, self.worker)


def _new_session(fork: Fork, signature: str, most_sessions: int) -> NewSession:
    """What is opened: all that is known of the session, and what of it has been run."""
    context, plan = fork.context, fork.version.plan
    return NewSession(
        workflow=fork.version.workflow, version_id=fork.version.version_id, day=context.day, limit=context.limit,
        branch_timeout_seconds=context.branch_timeout_seconds, signature=signature, priority=fork.request.priority,
        attempt=fork.attempt, most_sessions=most_sessions,
        queues=sorted({branch.queue for branch in plan.branches.values()} | {fork.runner.queue}),
        open_branches=len(plan.branches), ready=[(name, plan.branches[name].queue) for name in plan.roots],
        results=[(PAYLOAD_FIELD, orjson.dumps(context.payload))], settlements=fork.settlements,
        item_results_cap=context.settings.max_item_results_bytes,
    )  # fmt: skip


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
