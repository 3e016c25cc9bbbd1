"""Why something failed or never ran: facts of tasks that have ended → causes. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from orchestration.plan import decide
from orchestration.reports.explain.facts import Facts
from orchestration.reports.explain.model import MOST_TASKS, Cause, CauseCode, some, task_name
from orchestration.reports.explain.waiting import error_in_words
from orchestration.reports.shape import ActionShape, Shape
from orchestration.store import json_text
from orchestration.store.retries import TAKEN_OVER_ATTEMPT
from orchestration.store.tasks import TaskRow
from orchestration.vocabulary import NO_ITEM, OUTCOME_OF_STATUS, JoinCounts, Outcome, RunStatus, TaskStatus, TriggerRule

_FAILURES = (TaskStatus.FAILED, TaskStatus.TIMED_OUT)
#: `type` of a run's own error → what it is.
_RUN_ERRORS = {
    "DeadlinePassed": CauseCode.DEADLINE,
    "WaitedTooLong": CauseCode.MAX_WAIT,
    "GaveWay": CauseCode.GAVE_WAY,
    "LimitReached": CauseCode.REJECTED,
}
_RUN_REMEDIES = {
    CauseCode.DEADLINE: "raise deadline_seconds, or see below where the time went",
    CauseCode.MAX_WAIT: "raise max_wait_seconds, or the limit that it waited at",
    CauseCode.REJECTED: "raise the limit, or set when_full: queue",
}
_RULES = frozenset(rule.value for rule in TriggerRule)


def why_run_failed(facts: Facts) -> list[Cause]:
    """The causes of the end of a run that did not succeed, or in which something failed; the first one first."""
    causes = _of_the_run(facts)
    causes += [
        why_task_failed(facts, row)
        for row in sorted(_first_failures(facts), key=_by_end)[:MOST_TASKS]
    ]  # fmt: skip
    return causes


def why_task_ended(facts: Facts, row: TaskRow) -> Cause:
    """Why a task ended as it did."""
    if row.status in _FAILURES:
        return why_task_failed(facts, row)
    if row.status is TaskStatus.CANCELLED:
        return _cancelled(facts, task_name(row.action, row.item))
    if row.status is TaskStatus.UPSTREAM_FAILED:
        return _upstream_failed(facts, row)
    if row.status is TaskStatus.SKIPPED:
        return _skipped(facts, row)
    name = task_name(row.action, row.item)
    if row.attempt == TAKEN_OVER_ATTEMPT and facts.row is not None and facts.row.retry_of is not None:
        said = f"{name} succeeded in {facts.row.retry_of}, of which this run is a retry, and was taken over"
        return Cause(CauseCode.SUCCEEDED, said, "", (name,), 1, {"taken_over_from": facts.row.retry_of})
    attempts = f" in attempt {row.attempt}" if row.attempt > 1 else ""
    return Cause(CauseCode.SUCCEEDED, f"{name} succeeded{attempts}", "", (name,), 1, {"attempt": row.attempt})


def why_task_failed(facts: Facts, row: TaskRow) -> Cause:
    """The cause of a failure, and what it made skip."""
    first = _first_item(facts, row) if _is_of_items(row) else row
    name = task_name(first.action, first.item)
    cause = _of_error(facts, first, name)
    details = dict(cause.details)
    said = cause.sentence
    if first is not row:
        said += f"; {(row.error or {}).get('message', 'items of it did not succeed')}"
        details["items"] = (row.error or {}).get("message")
    skipped = _made_skip(facts, row.action) if row.item == NO_ITEM or first is not row else []
    if skipped:
        verb = "was" if len(skipped) == 1 else "were"
        said += f"; because of it {some(skipped)} {verb} not run"
    details["made_skip"] = skipped[:MOST_TASKS]
    return Cause(cause.code, said, cause.remedy, (name,), 1, {**details, "made_skip_total": len(skipped)})


def root_failures(shape: Shape, tasks: Mapping[str, TaskRow], action: str) -> list[str]:
    """The failed actions that an `upstream_failed` one goes back to, the first that ended first."""
    seen, stack, found = {action}, [action], list[TaskRow]()
    while stack:
        for need in shape.needs.get(stack.pop(), ()):
            row = tasks.get(need)
            if need in seen or row is None:
                continue
            seen.add(need)
            if row.status in _FAILURES or row.status is TaskStatus.CANCELLED:
                found.append(row)
            elif row.status in (TaskStatus.UPSTREAM_FAILED, TaskStatus.SKIPPED):
                stack.append(need)
    return [row.action for row in sorted(found, key=_by_end)]


def _made_skip(facts: Facts, action: str) -> list[str]:
    """What did not run because of a failure, at any distance, in the order of the graph."""
    shape = facts.shape
    if shape is None:
        return []
    seen, stack, found = {action}, [action], set[str]()
    while stack:
        for after in shape.successors.get(stack.pop(), ()):
            row = facts.tasks.get(after)
            if after not in seen and row is not None and row.status is TaskStatus.UPSTREAM_FAILED:
                seen.add(after)
                found.add(after)
                stack.append(after)
    return [name for name in shape.actions if name in found]


def _of_the_run(facts: Facts) -> list[Cause]:
    row = facts.row
    if row is None:
        return []
    error = json_text.load(row.error) if row.error else None
    if not isinstance(error, dict):
        return [_cancelled(facts, "the run")] if row.status is RunStatus.CANCELLED else []
    code = _RUN_ERRORS.get(str(error.get("type")))
    said = str(error.get("message") or error.get("type"))
    if code is None:
        code = CauseCode.OUTPUT if error.get("field") == "output" else CauseCode.UNUSABLE
        said = f"its output could not be made: {said}" if code is CauseCode.OUTPUT else error_in_words(error)
    return [Cause(code, said, _RUN_REMEDIES.get(code, ""), details={"error": error})]


def _first_failures(facts: Facts) -> Iterable[TaskRow]:
    """Tasks that failed by themselves; not the `for_each` of which only items did, where these are known."""
    return [row for row in facts.tasks.values() if row.status in _FAILURES]


def _is_of_items(row: TaskRow) -> bool:
    return isinstance(row.error, dict) and row.error.get("type") == "ItemsFailed"


def _first_item(facts: Facts, row: TaskRow) -> TaskRow:
    items = [item for (action, _), item in facts.items.items() if action == row.action and item.status in _FAILURES]
    return min(items, key=_by_end, default=row)


def _by_end(row: TaskRow) -> tuple[float, str, int]:
    return (row.finished_at.timestamp() if row.finished_at else float("inf"), row.action, row.item)


def _of_error(facts: Facts, row: TaskRow, name: str) -> Cause:
    error: Mapping[str, Any] = row.error if isinstance(row.error, dict) else {}
    kind, message = str(error.get("type") or ""), str(error.get("message") or "")
    details: dict[str, Any] = {"error": dict(error), "attempt": row.attempt, "worker": row.worker}
    if "died" in error:
        said = f"{name} failed: {message}"
        details |= {"died": error["died"], "how": error.get("how", "")}
        return Cause(CauseCode.POISON, said, "its own log, and memory; then MAX_BRANCH_CRASHES", details=details)
    if kind == "WaitedTooLong":
        said = f"{name} never began: {message}"
        return Cause(CauseCode.MAX_WAIT, said, _RUN_REMEDIES[CauseCode.MAX_WAIT], details=details)
    if row.status is TaskStatus.TIMED_OUT:
        details |= {"limit": error.get("limit"), "limit_seconds": error.get("seconds")}
        limit = error.get("limit") or "its time limit"
        return Cause(CauseCode.TIMED_OUT, f"{name} timed out: {message}", f"raise {limit}", details=details)
    if kind.endswith("ExpressionError"):
        return Cause(CauseCode.EXPRESSION, f"{name} failed by an expression: {message}", "correct the definition",
                     details=details)  # fmt: skip
    if kind.endswith("ActionError"):
        return Cause(CauseCode.UNUSABLE, f"{name} failed: {message}", details=details)
    if kind == "ItemsFailed":
        return Cause(CauseCode.ITEMS_FAILED, f"{name} failed: {message}", details=details)
    shape = facts.shape.actions.get(row.action) if facts.shape else None
    most = shape.max_attempts if shape else 1
    attempts = f" in attempt {row.attempt} of {most}" if most > 1 else ""
    return Cause(CauseCode.RAISED, f"{name} failed{attempts}: {error_in_words(error)}", details=details)


def _cancelled(facts: Facts, name: str) -> Cause:
    at = facts.cancelled_at
    when = f" at {at:%Y-%m-%d %H:%M:%S} UTC" if at else ""
    details = {"at": at.strftime("%Y-%m-%dT%H:%M:%S.%fZ") if at else None}
    ended = facts.row.error if facts.row else None
    error = json_text.load(ended) if ended else None
    why = f", because the run ended: {error_in_words(error)}" if error else ""
    who = "" if why else ": somebody cancelled the run"
    return Cause(CauseCode.CANCELLED, f"{name} was cancelled{who}{when}{why}", details=details)


def _upstream_failed(facts: Facts, row: TaskRow) -> Cause:
    name = task_name(row.action, row.item)
    roots = root_failures(facts.shape, facts.tasks, row.action) if facts.shape else []
    because = ""
    details: dict[str, Any] = {"roots": roots[:MOST_TASKS]}
    if roots:
        first = why_task_failed(facts, facts.tasks[roots[0]])
        because = f", because {_of_error(facts, _cause_row(facts, roots[0]), first.tasks[0]).sentence}"
        details |= {"root": roots[0], "root_code": first.code.value}
    rule = facts.shape.actions[row.action].rule if facts.shape else ""
    said = f"{name} did not run{because} (trigger rule {rule})"
    return Cause(CauseCode.UPSTREAM_FAILED, said, "", (name,), 1, details)


def _cause_row(facts: Facts, action: str) -> TaskRow:
    row = facts.tasks[action]
    return _first_item(facts, row) if _is_of_items(row) else row


def _skipped(facts: Facts, row: TaskRow) -> Cause:
    name = task_name(row.action, row.item)
    shape = facts.shape.actions.get(row.action) if facts.shape else None
    if shape is None:
        return Cause(CauseCode.CONDITION, f"{name} was skipped", "", (name,), 1)
    ended = {need: facts.tasks[need].status for need in shape.needs if need in facts.tasks}
    if row.item == NO_ITEM and _is_by_rule(shape, _counts(facts, list(ended))):
        stand = ", ".join(f"{need} {status}" for need, status in list(ended.items())[:5])
        said = f"{name} was skipped by its trigger rule {shape.rule}: {stand}"
        details = {"rule": shape.rule, "needs": {need: status.value for need, status in ended.items()}}
        return Cause(CauseCode.TRIGGER_RULE, said, "", (name,), 1, details)
    said = f"{name} was skipped: its condition was false: if: {shape.condition}"
    return Cause(CauseCode.CONDITION, said, "", (name,), 1, {"condition": shape.condition})


def _is_by_rule(shape: ActionShape, counts: JoinCounts) -> bool:
    """Whether its rule has made it skipped, rather than its condition."""
    if shape.rule not in _RULES:
        return not shape.condition
    return decide(TriggerRule(shape.rule), counts) is not None


def _counts(facts: Facts, needs: Sequence[str]) -> JoinCounts:
    outcomes = [_outcome(facts, need) for need in needs]
    return JoinCounts(*(outcomes.count(one) for one in (
        Outcome.SUCCESS, Outcome.FAILED, Outcome.SKIPPED, Outcome.UPSTREAM_FAILED
    )))  # fmt: skip


def _outcome(facts: Facts, need: str) -> Outcome:
    outcome = OUTCOME_OF_STATUS[facts.tasks[need].status]
    assert facts.shape is not None
    forgiven = outcome is Outcome.FAILED and facts.shape.actions[need].continue_on_failure
    return Outcome.SUCCESS if forgiven else outcome
