"""What a drawing says about an action besides its name and what it calls. Pure."""

from __future__ import annotations

from collections import Counter

from orchestration.plan import Plan, PlannedAction
from orchestration.vocabulary import TriggerRule


def notes_on(action: PlannedAction, common_queue: str) -> list[str]:
    """Short remarks: what makes this action different from a plain one.

    Args: common_queue: the queue that needs no mention.
    """
    notes = []
    if action.items is not None:
        notes.append("for each" if action.max_concurrent is None else f"for each, {action.max_concurrent} at once")
    if action.condition is not None:
        notes.append("if")
    if action.rule is not TriggerRule.ALL_SUCCESS:
        notes.append(action.rule.value)
    if action.retry.max_attempts > 1:
        notes.append(f"{action.retry.max_attempts} attempts")
    if action.continue_on_failure:
        notes.append("may fail")
    if action.queue != common_queue:
        notes.append(f"queue {action.queue}")
    return notes


def common_queue(plan: Plan) -> str:
    """The queue of most actions."""
    return Counter(action.queue for action in plan.actions.values()).most_common(1)[0][0]
