"""A plan as a tree of its branches, for a terminal. Plain text; one line for each branch.

A join stands under the predecessor that comes last and names the others, so every branch is there once.
"""

from __future__ import annotations

from orchestration.plan import Branch, Plan, PlannedAction
from orchestration.plan.layout import levels_of
from parallelizer.rendering.notes import common_queue, notes_on

#: Actions of one branch that are named; of a longer one, the first ones and the last.
MAX_NAMED = 8
#: Predecessors of a join that are named.
MAX_PREDECESSORS = 4
#: Deeper lines are not indented further; a chain of forks can be thousands deep.
MAX_INDENTS = 40


def to_text(plan: Plan) -> str:
    """Draw the plan as a tree.

    Returns: lines, each ended by a newline. A line is `name (what it calls; notes) → name …`.
    """
    queue = common_queue(plan)
    children, roots = _tree(plan)
    lines = [_heading(plan)]
    stack = [(name, "", "", "") for name in reversed(roots)]
    while stack:
        name, indent, sign, parent = stack.pop()
        lines.append(indent + sign + _line(plan, plan.branches[name], queue, parent))
        inner = indent + {"": "", "├─ ": "│  ", "└─ ": "   "}[sign]
        if len(inner) > 3 * MAX_INDENTS:
            inner = indent
        following = children.get(name, [])
        for position in range(len(following) - 1, -1, -1):
            last = position == len(following) - 1
            stack.append((following[position], inner, "└─ " if last else "├─ ", name))
    return "\n".join(lines) + "\n"


def _heading(plan: Plan) -> str:
    actions, branches = len(plan.actions), len(plan.branches)
    return (
        f"{plan.workflow}: {actions} action{'s' * (actions != 1)} in {branches} branch{'es' * (branches != 1)}, "
        f"version {plan.version_id[:12]}"
    )


def _tree(plan: Plan) -> tuple[dict[str, list[str]], list[str]]:
    """Under which branch each branch is drawn: the predecessor on the highest level."""
    levels = levels_of(plan.successors)
    branch_of = {action.name: branch.name for branch in plan.branches.values() for action in branch.actions}
    children: dict[str, list[str]] = {}
    roots = []
    for branch in plan.branches.values():
        needs = branch.actions[0].needs
        if needs:
            last = max(needs, key=levels.__getitem__)
            children.setdefault(branch_of[last], []).append(branch.name)
        else:
            roots.append(branch.name)
    return children, roots


def _line(plan: Plan, branch: Branch, queue: str, parent: str) -> str:
    actions = branch.actions
    if len(actions) <= MAX_NAMED:
        text = " → ".join(_label(action, queue) for action in actions)
    else:
        left_out = f"… {len(actions) - MAX_NAMED + 1} more …"
        named = [_label(action, queue) for action in actions[: MAX_NAMED - 2]]
        text = " → ".join([*named, left_out, _label(actions[-1], queue)])
    others = [need for need in actions[0].needs if not parent or need != plan.branches[parent].actions[-1].name]
    if others:
        more = f" and {len(others) - MAX_PREDECESSORS} more" if len(others) > MAX_PREDECESSORS else ""
        text += f"  [also after {', '.join(others[:MAX_PREDECESSORS])}{more}]"
    return text


def _label(action: PlannedAction, queue: str) -> str:
    return f"{action.name} ({'; '.join([action.uses, *notes_on(action, queue)])})"
