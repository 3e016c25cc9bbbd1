"""What a process tells of a flow session's trace: notes beside its rows, and the span that an action runs in.

Off is a context without a trace: then a claim asks once, and nothing here costs an item or a step anything.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import orjson
from opentelemetry.context import Context, attach, detach

from orchestration.plan import Branch, Plan, PlannedAction
from orchestration.state.records import TRACE_FIELD
from orchestration.state.rows import encode_rows
from orchestration.store.sessions import SessionRow
from orchestration.telemetry.tracing import FIRST_ITEMS, NOTE, SessionTrace, has_own_span, session_trace
from orchestration.telemetry.tracing_sdk import context_of
from orchestration.vocabulary import NO_ITEM, Claim, Settlement, UnitKind

if TYPE_CHECKING:
    from orchestration.engine.context import ProcessingContext
    from orchestration.state.live import LiveState

Row = list[object]
_FAILED: Final = ("failed", "timed_out", "pending")


class SpanFactory:
    """The spans of one flow session, as far as this process has to do with them."""

    __slots__ = ("_began", "_contexts", "_plan", "is_told", "trace")

    def __init__(self, plan: Plan, trace: SessionTrace | None = None) -> None:
        self.trace = trace
        self._plan = plan
        #: Whether spans are made of what runs.
        self.is_told = trace is not None and trace.is_sampled
        #: By the branch, or "" for the whole of it.
        self._contexts: dict[str, Context] = {}
        #: When each `for_each` that was expanded here began.
        self._began: dict[str, int] = {}

    def call_context(self, action: str, item: int, attempt: int) -> Context | None:
        """In which this attempt of a task calls its action: spans made there are below the task's.

        Of steps and items beyond the first they are below the branch's, since theirs may have no span.
        """
        if not self.is_told:
            return None
        assert self.trace is not None
        branch, place = self._plan.places[action]
        if (place if item == NO_ITEM else item) < FIRST_ITEMS:
            return context_of(self.trace.trace_id, self.trace.task_id(action, item, attempt), is_sampled=True)
        kept = self._contexts.get(branch)
        if kept is None:
            kept = context_of(self.trace.trace_id, self.trace.branch_id(branch), is_sampled=True)
            self._contexts[branch] = kept
        return kept

    @contextmanager
    def execution(self) -> Iterator[None]:
        """What is done in the block, such as sending messages, belongs to `workflow_execution`."""
        if self.trace is None:
            yield
            return
        kept = self._contexts.get("")
        if kept is None:
            kept = context_of(self.trace.trace_id, self.trace.execution_id, is_sampled=self.trace.is_sampled)
            self._contexts[""] = kept
        token = attach(kept)
        try:
            yield
        finally:
            detach(token)

    def of_claim(self, context: ProcessingContext, claim: Claim) -> ClaimTrace | None:
        """What is told of a claim; None: nothing."""
        return ClaimTrace(context, claim, self.trace, self._began) if self.is_told and self.trace else None


class ClaimTrace:
    """What is told of one claim of a session that is sampled.

    In a note: n rows that follow it are its own; b the branch; a when it began, if not with this attempt; p the
    branches before it; i the place of the first step; f the rows are the end of a `for_each`; c a chunk: start, items
    that have ended, size of the `for_each`, attempt, counts; l the attempt before this one, by action; d lost attempts.
    """

    def __init__(self, context: ProcessingContext, claim: Claim, trace: SessionTrace, began: dict[str, int]) -> None:
        self._context = context
        self._claim = claim
        self._trace = trace
        self._began_here = began
        self._branch = context.plan.branches[claim.name]
        #: When it began, if not with this claim.
        self._began_us = 0
        self._former: dict[str, int] = {}
        self._lost: list[Row] = []

    def resume(self, done: Mapping[str, object], retries: Mapping[str, int]) -> None:
        """A branch goes on where a former attempt has left it: with these steps done, and others tried before."""
        context, claim = self._context, self._claim
        began = _number(context.stores.live, context.flow_session_id, _began_field(claim.name))
        root_us = self._trace.accepted_us if not self._branch.predecessors else claim.ready_us
        self._began_us = began or root_us
        self._former = {name: claim.attempt + tried - 1 for name, tried in retries.items()}
        if claim.attempt > 1:
            first = next((action.name for action in self._branch.actions if action.name not in done), None)
            if first is not None:
                self._lose(first, NO_ITEM, claim.attempt - 1 + retries.get(first, 0))

    def resume_items(self) -> None:
        """A chunk begins; it may have been tried before."""
        claim = self._claim
        if claim.retry:
            self._former[claim.name] = claim.attempt + claim.retry - 1
        if claim.attempt > 1:
            self._lose(claim.name, claim.start, claim.attempt + claim.retry - 1)

    def checkpoint(self, row: Row, place: int) -> list[Row]:
        """The row of a step, as it is to be sent."""
        duration_us = (row[8] or 0) - (row[7] or 0)  # type: ignore[operator]  # both are numbers or None
        if not has_own_span(place, duration_us, failed=row[3] in _FAILED):
            return [row]
        return [self._note([row], i=place), row]

    def settlement(self, settlement: Settlement) -> Settlement:
        """The settlement, with what is told of it."""
        claim, branch, rows = settlement.claim, self._branch, settlement.rows
        if rows and rows[0][0] == NOTE:
            return settlement  # a call that is repeated
        told: dict[str, object] = {}
        if settlement.verb == "expand":
            self._begin_items(settlement)
        elif settlement.verb == "defer" and claim.kind is UnitKind.BRANCH:
            settlement.results = [*(settlement.results or ()), self._began_note()]
        if claim.kind is UnitKind.CHUNK:
            size = len(self._context.items(branch.actions[0]))
            told["c"] = [claim.start, settlement.settled, size, claim.attempt, dict(settlement.counts or {})]
        elif settlement.verb == "done":
            told |= {"a": self._begin_of(claim), "p": _before(self._context.plan, branch)}
            steps = sum(row[0] == "t" for row in rows)
            told |= {"f": 1} if branch.is_for_each else {"i": len(branch.actions) - steps}
        if rows or self._lost:
            settlement.rows = [self._note(rows, **told), *rows]
        return settlement

    def _begin_items(self, settlement: Settlement) -> None:
        context, claim = self._context, self._claim
        clock = context.stores.live.clock
        self._began_us = self._began_us or claim.since_us or max(context.accepted_us, clock.us(time.monotonic_ns()))
        self._began_here[self._branch.name] = self._began_us
        settlement.results = [*(settlement.results or ()), self._began_note()]

    def _begin_of(self, claim: Claim) -> int:
        if claim.kind is not UnitKind.FINISH:
            # with this attempt: as its row says; that of a `for_each` has no start
            return self._began_us or (claim.since_us if self._branch.is_for_each else 0)
        context, name = self._context, self._branch.name
        began_us = self._began_here.get(name)
        return began_us or _number(context.stores.live, context.flow_session_id, _began_field(name)) or claim.since_us

    def _began_note(self) -> tuple[str, bytes]:
        return _began_field(self._branch.name), str(self._began_us or self._claim.since_us).encode()

    def _lose(self, action: str, item: int, attempt: int) -> None:
        context, claim = self._context, self._claim
        lost = context.stores.live.lost_claim(context.flow_session_id, claim.unit)
        self._former[action] = attempt
        if lost is None:  # its session was not open then, or the live state of that time is gone
            self._lost = [[action, item, attempt, self._began_us or claim.since_us, claim.since_us, "", ""]]
            return
        self._lost = [[action, item, attempt, lost.since_us, lost.until_us, lost.worker, lost.death]]

    def _note(self, rows: Sequence[Row], **told: object) -> Row:
        lost, self._lost = self._lost, []
        return [
            NOTE, self._trace.traceparent, self._trace.accepted_us,
            {
                "n": len(rows), "b": self._branch.name, **told, **({"d": lost} if lost else {}),
                **({"l": self._former} if self._former else {}),
            },
        ]  # fmt: skip


def trace_of_row(row: SessionRow) -> SessionTrace | None:
    """The trace of a session by its record; None: it is not traced."""
    if row.traceparent is None:
        return None
    return session_trace(row.flow_session_id, row.traceparent, row.created_us)


def trace_of_retry(row: SessionRow, retry: str) -> str | None:
    """`traceparent` of a retry of a session: its spans are below those of that one; None: it was not traced."""
    trace = trace_of_row(row)
    if trace is None:
        return None
    return SessionTrace(retry, trace.trace_id, trace.lifecycle_id, trace.is_sampled, 0).traceparent


def kept_trace(trace: SessionTrace) -> tuple[str, bytes]:
    """What live state keeps of a trace, beside the results."""
    return TRACE_FIELD, f"{trace.traceparent} {trace.accepted_us}".encode()


def trace_of_kept(flow_session_id: str, kept: bytes | None) -> SessionTrace | None:
    """The trace of which `kept_trace` made this."""
    if kept is None:
        return None
    traceparent, _, accepted_us = kept.decode().partition(" ")
    return session_trace(flow_session_id, traceparent, int(accepted_us))


def tell_unsettled(context: ProcessingContext, rows: list[Row], branch: Branch, own: Sequence[Row]) -> None:
    """Rows of a branch that was stopped, with a note if it had begun.

    Args: rows: to which `own` are added.
    """
    trace = context.span_factory.trace
    if trace is not None and trace.is_sampled:
        began_us = _number(context.stores.live, context.flow_session_id, _began_field(branch.name))
        if began_us is not None:
            told = {"n": len(own), "b": branch.name, "a": began_us, "p": _before(context.plan, branch), "f": 1}
            rows.append([NOTE, trace.traceparent, trace.accepted_us, told])
    rows += own


def time_of_end(context: ProcessingContext) -> int:
    """When the completion of a session begins, by Redis itself: not before its branches have ended by it.

    Returns: µs since the epoch; 0 where it is not traced.
    """
    return 0 if context.span_factory.trace is None else context.stores.live.now_us()


def tell_end(context: ProcessingContext, row: SessionRow) -> None:
    """Tell that a session has ended, once its end is committed; of one that was opened, `close_session` does."""
    rows = rows_of_end(context, row)
    if rows:
        context.stores.live.send_rows(row.flow_session_id, context.day, context.worker, rows)


def rows_of_end(context: ProcessingContext, row: SessionRow, settled_us: int = 0) -> bytes:
    """What tells in the status channel that a session has ended, once its end is committed; empty: nothing.

    Args: settled_us: when its completion began (`time_of_end`); 0: that is not known, or it had none.
    """
    trace = context.span_factory.trace
    if trace is None or not row.status.is_final or row.finished_at is None:
        return b""
    if not trace.is_sampled and row.status.value not in _FAILED:
        return b""
    told = {
        "status": row.status.value, "finished_us": round(row.finished_at.timestamp() * 1e6), "settled_us": settled_us,
        "workflow": row.workflow, "version": row.version, "priority": row.priority, "counts": dict(row.counts),
        "error": None if row.error is None else orjson.loads(row.error),
    }  # fmt: skip
    if not trace.is_sampled:
        # nothing was told of it; of what failed there will be spans, made of its record
        told["branches"] = {action: branch for action, (branch, _) in context.plan.places.items()}
    note: Row = [NOTE, trace.traceparent, trace.accepted_us, {"n": 0, "s": told}]
    return encode_rows([note])


def _before(plan: Plan, branch: Branch) -> list[str]:
    first: PlannedAction = branch.actions[0]
    return [plan.places[need][0] for need in first.needs]


def _began_field(branch: str) -> str:
    """Where it is kept when a branch began, beside the results; no action has such a name."""
    return f"@began:{branch}"


def _number(live: LiveState, flow_session_id: str, field: str) -> int | None:
    kept: Any = live.results(flow_session_id, [field])[0]
    return None if kept is None else int(kept)
