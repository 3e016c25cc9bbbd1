"""The end of a session that was stopped before its branches had settled: what never ran is counted, and recorded
action by action.

A `for_each` of a million items that never began is one row and a number: only items that had begun have rows of their
own. So the work grows with the actions of the definition, and with what had begun.
"""

from __future__ import annotations

from collections.abc import Mapping

import orjson

from orchestration.engine.context import ProcessingContext
from orchestration.engine.finish import RunResult, branches_of, ensure_open
from orchestration.engine.results import counts_of
from orchestration.engine.traced import rows_of_end, tell_unsettled, time_of_end
from orchestration.plan import Branch
from orchestration.state.records import ItemProgress, Stopped, Unsettled
from orchestration.state.rows import branch_row, encode_rows, end_sequence_of, sequence_of, task_row
from orchestration.store import sessions
from orchestration.vocabulary import NO_ITEM, ItemCounts, RunStatus, TaskStatus

#: In one entry of the status channel.
ROWS = 500
Row = list[object]


#: Why a session gave way: what its record says.
_GAVE_WAY = {
    "place": "it gave way to the newer run {by} at the limit {level} (when_full: cancel_running)",
    "newer": "the newer run {by} is queued in its place at the limit {level} (when_full: keep_newest)",
}  # fmt: skip


def end_stopped(
    context: ProcessingContext, row: sessions.SessionRow, counts: Mapping[str, int], stopped: Stopped
) -> tuple[RunResult, bytes]:
    """Commit the end of a session that was stopped; of several callers one wins, and all get what it wrote.

    Args: counts: tasks of branches that have settled, by status.
    Returns: the result, and what is to be told in the status channel.
    Raises: SessionClosed: its live state was lost meanwhile.
    """
    live, session = context.stores.live, context.flow_session_id
    left = live.unsettled(session)
    total = dict(counts)
    rows: list[Row] = []
    for branch in context.plan.branches.values():
        if _is_unsettled(branch, left):
            own: list[Row] = []
            ended = _cancel_items(branch, left.items.get(branch.name), own) or _cancel_steps(context, branch, own)
            tell_unsettled(context, rows, branch, own)
            for status, number in ended.items():
                total[status] = total.get(status, 0) + number
    for action, item, attempt, retry in live.begun_items(session, left.items):
        queue = context.plan.actions[action].queue
        sequence = sequence_of(attempt, retry)
        rows.append(task_row(action, TaskStatus.CANCELLED, attempt + retry, sequence, queue, item=item))
    ensure_open(context)
    for start in range(0, len(rows), ROWS):
        live.record_rows(session, context.day, context.worker, encode_rows(rows[start : start + ROWS]))
    status, error = _end_of(context, stopped)
    settled_us = time_of_end(context)
    won, written = sessions.finish_session(
        context.stores.database, session, row.session_day, status, None, error, total,
        workflow=row.workflow, branches=branches_of(context.plan, total),
    )  # fmt: skip
    return RunResult.of_row(written, recorded_before=not won), rows_of_end(context, written, settled_us)


def _end_of(context: ProcessingContext, stopped: Stopped) -> tuple[RunStatus, bytes | None]:
    """The status, and what the record says of it; nothing where somebody cancelled it."""
    if stopped.why == "deadline":
        seconds = context.plan.limits.deadline_seconds or 0.0
        error = {"type": "DeadlinePassed", "message": f"it took longer than {seconds:g} s (deadline_seconds)"}
        return RunStatus.TIMED_OUT, orjson.dumps(error)
    if stopped.why == "wait":
        seconds = context.plan.limits.max_wait_seconds or 0.0
        message = f"it was queued longer than {seconds:g} s (max_wait_seconds) at the limit {stopped.level}"
        return RunStatus.TIMED_OUT, orjson.dumps({"type": "WaitedTooLong", "message": message})
    if stopped.why not in _GAVE_WAY:
        return RunStatus.CANCELLED, None
    message = _GAVE_WAY[stopped.why].format(by=stopped.by, level=stopped.level)
    return RunStatus.CANCELLED, orjson.dumps({"type": "GaveWay", "message": message})


def _is_unsettled(branch: Branch, left: Unsettled) -> bool:
    """Nothing is claimed: a branch waits for its predecessors, or for a runner or a time, or has items left."""
    if branch.name in left.waiting or left.joined.get(branch.name, 0) < branch.predecessors:
        return True
    items = left.items.get(branch.name)
    return items is not None and items.settled < items.size


def _cancel_steps(context: ProcessingContext, branch: Branch, rows: list[Row]) -> dict[str, int]:
    """The steps of a branch that has not settled; those with a checkpoint have ended before."""
    done = context.settled_steps(branch.actions)[0] if len(branch.actions) > 1 else {}
    statuses = [str(done[action.name]["status"]) if action.name in done else None for action in branch.actions]
    counts: dict[str, int] = {}
    for action, status in zip(branch.actions, statuses, strict=True):
        if status is None:
            rows.append(task_row(action.name, TaskStatus.CANCELLED, 1, end_sequence_of(1), action.queue))
        ended = status or TaskStatus.CANCELLED.value
        counts[ended] = counts.get(ended, 0) + 1
    rows.append(branch_row(branch.name, TaskStatus.CANCELLED, 1, end_sequence_of(1), branch.queue))
    return counts


def _cancel_items(branch: Branch, items: ItemProgress | None, rows: list[Row]) -> dict[str, int] | None:
    """A `for_each` whose items are known: those that have not ended are counted as cancelled; None for any other."""
    if items is None:
        return None
    counts = dict(items.counts)
    counts["cancelled"] = counts.get("cancelled", 0) + items.size - items.settled
    known = ItemCounts(
        items.size, counts.get("succeeded", 0), counts.get("failed", 0), counts.get("timed_out", 0),
        counts.get("skipped", 0), counts["cancelled"],
    )  # fmt: skip
    action = branch.actions[0]
    rows.append(
        task_row(
            action.name, TaskStatus.CANCELLED, 1, end_sequence_of(1), action.queue, item=NO_ITEM,
            result=orjson.dumps(counts_of(known)),
        )
    )  # fmt: skip
    rows.append(branch_row(branch.name, TaskStatus.CANCELLED, 1, end_sequence_of(1), branch.queue))
    return {status: number for status, number in counts.items() if number}
