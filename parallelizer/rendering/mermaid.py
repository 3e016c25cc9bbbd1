"""A plan as a Mermaid flowchart, for Markdown files and issue trackers. Pure."""

from __future__ import annotations

from orchestration.plan import Plan, PlannedAction
from parallelizer.rendering.notes import common_queue, notes_on


def to_mermaid(plan: Plan) -> str:
    """Draw the plan; a `for_each` has a double frame, a condition makes the corners round."""
    queue = common_queue(plan)
    ids = {name: f"n{number}" for number, name in enumerate(plan.actions)}
    lines = ["flowchart LR"]
    lines += [f"    {ids[name]}{_shape(action, queue)}" for name, action in plan.actions.items()]
    for name, action in plan.actions.items():
        lines += [f"    {ids[name]} --> {ids[successor]}" for successor in action.successors]
    return "\n".join(lines) + "\n"


def _shape(action: PlannedAction, queue: str) -> str:
    parts = [f"<b>{_escape(action.name)}</b>", _escape(action.uses), *map(_escape, notes_on(action, queue))]
    label = f'"{"<br>".join(parts)}"'
    if action.items is not None:
        return f"[[{label}]]"
    return f"({label})" if action.condition is not None else f"[{label}]"


def _escape(text: str) -> str:
    # Mermaid's own entities: a quote would end the label, < and & are HTML, # begins an entity, ` begins Markdown.
    return "".join(
        character if character.isalnum() or character in " _.,-:/" else f"#{ord(character)};"
        for character in text
        if character.isprintable()
    )
