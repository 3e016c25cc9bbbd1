"""What a session is opened with: all that is known of it, and what of it has been done before. Decides only."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

from orchestration.engine.traced import kept_trace
from orchestration.plan import most_ready
from orchestration.state.records import PAYLOAD_FIELD, NewSession
from orchestration.vocabulary import Dispatch, RunStatus

if TYPE_CHECKING:
    from orchestration.engine.context import ProcessingContext
    from orchestration.engine.processor import Fork

#: Runners in the header of a chord: each of them is a message at the fork and a part at the end, needed or not.
MOST_IN_HEADER = 100


def new_session(fork: Fork, signature: str, most_sessions: int, deadline_us: int) -> NewSession:
    """What is opened: all that is known of the session, and what of it has been run."""
    context, plan = fork.context, fork.version.plan
    return NewSession(
        workflow=fork.version.workflow, version_id=fork.version.version_id, day=context.day, limit=context.limit,
        branch_timeout_seconds=context.branch_timeout_seconds, signature=signature, priority=fork.request.priority,
        attempt=fork.attempt, most_sessions=most_sessions,
        queues=sorted({branch.queue for branch in plan.branches.values()} | {fork.runner.queue}),
        open_branches=len(plan.branches), ready=[(name, plan.branches[name].queue) for name in plan.roots],
        results=[(PAYLOAD_FIELD, orjson.dumps(context.payload)), *fork.results.items(), *_trace_of(context)],
        settlements=[(plan.branches[settlement.claim.name].queue, settlement) for settlement in fork.settlements],
        item_results_cap=context.settings.max_item_results_bytes if fork.facts is None else 0,
        header=_header_of(context) if context.dispatch is Dispatch.CHORD else 0, weight=plan.limits.weight,
        key=fork.key, most_of_workflow=plan.limits.max_concurrent_branches_of_workflow or 0,
        most_of_key=plan.limits.max_concurrent_branches_per_key or 0,
        sessions_of_workflow=plan.limits.max_concurrent_sessions or 0,
        sessions_of_key=plan.limits.max_concurrent_sessions_per_key or 0,
        when_full=_when_full(fork),
        rebuilt=fork.facts is not None, sseq=fork.facts.sequence if fork.facts else 0,
        was_paused=fork.row.status is RunStatus.PAUSED,
        deadline_us=deadline_us, max_wait_us=int((plan.limits.max_wait_seconds or 0) * 1e6),
    )  # fmt: skip


def _when_full(fork: Fork) -> str:
    """What was let in once is not turned away, nor turns others away; a retry that is still queued was not let in."""
    is_new = fork.facts is None or (fork.row.retry_of is not None and fork.row.status is RunStatus.QUEUED)
    return fork.version.plan.limits.when_full if is_new else "queue"


def _trace_of(context: ProcessingContext) -> list[tuple[str, bytes]]:
    trace = context.span_factory.trace
    return [] if trace is None else [kept_trace(trace)]


def _header_of(context: ProcessingContext) -> int:
    """Runners that may be of use to the session at the same moment."""
    return most_ready(context.plan.branches, min(context.limit, MOST_IN_HEADER))
