"""A plan in the DOT language of Graphviz. Pure; Graphviz itself is not needed to write it."""

from __future__ import annotations

from orchestration.plan import Plan, PlannedAction
from parallelizer.rendering.notes import common_queue, notes_on


def to_dot(plan: Plan) -> str:
    """Draw the plan; the actions of one branch stand in a dashed frame, a `for_each` has a double border."""
    queue = common_queue(plan)
    lines = [
        f"digraph {_quote(plan.workflow)} {{",
        "    rankdir=LR;",
        '    node [shape=box, style=rounded, fontname="sans-serif"];',
    ]
    for number, branch in enumerate(plan.branches.values()):
        nodes = [_node(action, queue) for action in branch.actions]
        if len(nodes) == 1:
            lines += [f"    {node}" for node in nodes]
            continue
        lines += [f"    subgraph cluster_{number} {{", "        style=dashed;"]
        lines += [f"        {node}" for node in nodes]
        lines.append("    }")
    for name, action in plan.actions.items():
        lines += [f"    {_quote(name)} -> {_quote(successor)};" for successor in action.successors]
    lines.append("}")
    return "\n".join(lines) + "\n"


def _node(action: PlannedAction, queue: str) -> str:
    label = "\\n".join(_escape(part) for part in [action.name, action.uses, *notes_on(action, queue)])
    border = ", peripheries=2" if action.items is not None else ""
    return f'{_quote(action.name)} [label="{label}"{border}];'


def _quote(text: str) -> str:
    return f'"{_escape(text)}"'


def _escape(text: str) -> str:
    printable = "".join(character for character in text if character.isprintable())
    return printable.replace("\\", "\\\\").replace('"', '\\"')
