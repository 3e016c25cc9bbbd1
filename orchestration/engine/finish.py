"""The end of a flow session: its status, its output, committed once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import orjson

from orchestration.engine.context import ProcessingContext
from orchestration.engine.invoke import describe_error
from orchestration.engine.results import encode_result
from orchestration.engine.traced import rows_of_end, time_of_end
from orchestration.errors import ActionError, ExpressionError, SessionClosed
from orchestration.plan import Plan
from orchestration.store import sessions
from orchestration.vocabulary import RunStatus


@dataclass(frozen=True, slots=True)
class RunResult:
    """What `run_workflow` gives: the fields are an interface."""

    flow_session_id: str
    workflow: str
    version: int
    status: str
    output: object
    counts: Mapping[str, int]
    duration_seconds: float
    #: It was there already when this process came to it.
    recorded_before: bool = field(default=False, compare=False)
    #: Another process that has completed it at the same moment is to deliver it, unless it dies.
    delivered_by_another: bool = field(default=False, compare=False)

    @classmethod
    def of_row(cls, row: sessions.SessionRow, *, recorded_before: bool = False) -> RunResult:
        """The result as it was recorded."""
        return cls(
            row.flow_session_id, row.workflow, row.version, row.status.value,
            None if row.output is None else orjson.loads(row.output), row.counts,
            round(row.duration_seconds or 0.0, 6), recorded_before,
        )  # fmt: skip

    def to_json(self) -> dict[str, object]:
        """The result as JSON, with its stable field names."""
        return {
            "flow_session_id": self.flow_session_id, "workflow": self.workflow, "version": self.version,
            "status": self.status, "output": self.output, "counts": dict(self.counts),
            "duration_seconds": self.duration_seconds,
        }  # fmt: skip


def end_session(
    context: ProcessingContext,
    row: sessions.SessionRow,
    counts: Mapping[str, int],
    *,
    failed: bool,
    is_open: bool = False,
) -> tuple[RunResult, bytes]:
    """Commit the end of a session; of several callers one wins, and all get what it wrote.

    Args: is_open: it has a completion, and its results are in Redis, where they may be lost while they are read.
    Returns: the result, and what is to be told in the status channel.
    Raises: SessionClosed: they were.
    """
    output, error = None, None
    settled_us = time_of_end(context) if is_open else 0
    try:
        output = encode_result(_output(context), most_bytes=context.settings.max_stored_result_bytes)
    except (ExpressionError, ActionError) as wrong:
        if is_open:
            ensure_open(context)
        if not failed:
            failed, error = True, orjson.dumps({**describe_error(wrong, 1), "field": "output"})
    status = RunStatus.FAILED if failed else RunStatus.SUCCEEDED
    won, written = sessions.finish_session(
        context.stores.database, context.flow_session_id, row.session_day, status, output, error, counts,
        workflow=row.workflow, branches=branches_of(context.plan, counts),
    )  # fmt: skip
    return RunResult.of_row(written, recorded_before=not won), rows_of_end(context, written, settled_us)


def branches_of(plan: Plan, counts: Mapping[str, int]) -> int:
    """Of how many branches a session was, each item of a `for_each` being one.

    Args: counts: its tasks by status, items in place of their `for_each`.
    """
    plain = [branch for branch in plan.branches.values() if not branch.is_for_each]
    others = sum(counts.values()) - sum(len(branch.actions) for branch in plain)
    return len(plain) + max(0, others)


def ensure_open(context: ProcessingContext) -> None:
    """What was read of the session's live state was there.

    Raises: SessionClosed: it is gone.
    """
    if not context.stores.live.is_open(context.flow_session_id):
        raise SessionClosed(f"flow session {context.flow_session_id} has lost its live state")


def _output(context: ProcessingContext) -> object:
    """The definition's `output`; without one, the results of the leaves that succeeded and are not a `for_each`."""
    plan = context.plan
    if plan.output is not None:
        return plan.output.render(context.scope())
    views = {leaf.name: context.task(leaf.name) for leaf in plan.leaves if leaf.items is None}
    return {name: view["result"] for name, view in views.items() if view["status"] == "succeeded"}
