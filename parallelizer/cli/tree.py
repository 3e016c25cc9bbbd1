"""How a graph is laid out as lines with `├─`: forks are indented, a join goes on where its fork began. Pure.

A line stands below the action that all ways to it lead through (its immediate dominator), so that the picture is right
for graphs that are not nested forks and joins too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

#: Above this many actions a tree is no picture any more, and every line would be walked for each frame.
MOST_ACTIONS_IN_A_TREE = 1000


@dataclass(frozen=True, slots=True)
class TreeLine:
    """One action's place in the tree."""

    name: str
    #: What is drawn before the name: blanks, `│`, `├─`, `└─`.
    prefix: str


def arrange(needs: Mapping[str, Sequence[str]]) -> tuple[TreeLine, ...]:
    """Lay a graph out as lines.

    Args: needs: each action's direct predecessors, actions in the order of the definition; without cycles.
    Returns: every action once. Large graphs come as a flat list in the order of the graph.
    """
    order = _topological(needs)
    if len(needs) > MOST_ACTIONS_IN_A_TREE:
        return tuple(TreeLine(name, "") for name in order)
    below = _dominated(needs, order)
    lines: list[TreeLine] = []
    # Each entry: an action, what stands before its own line, and before all lines that go on from it.
    pending = _opened(below.get("", []), "", is_fork=len(below.get("", [])) > 1)
    while pending:
        name, first, rest = pending.pop()
        lines.append(TreeLine(name, first))
        children = below.get(name, [])
        forks = [child for child in children if len(needs[child]) == 1]
        joins = [child for child in children if len(needs[child]) > 1]
        goes_on = len(forks) == 1 and not joins
        pending.extend((join, rest, rest) for join in reversed(joins))
        pending.extend(_opened(forks, rest, is_fork=not goes_on))
    return tuple(lines)


def _opened(names: Sequence[str], before: str, *, is_fork: bool) -> list[tuple[str, str, str]]:
    if not is_fork:
        return [(name, before, before) for name in reversed(names)]
    return [
        (name, before + ("└─ " if last else "├─ "), before + ("   " if last else "│  "))
        for name, last in ((name, name == names[-1]) for name in reversed(names))
    ]


def _topological(needs: Mapping[str, Sequence[str]]) -> list[str]:
    waiting = {name: len(set(before)) for name, before in needs.items()}
    successors: dict[str, list[str]] = {}
    for name, before in needs.items():
        for predecessor in set(before):
            successors.setdefault(predecessor, []).append(name)
    order = [name for name, count in waiting.items() if not count]
    for name in order:
        for successor in successors.get(name, ()):
            waiting[successor] -= 1
            if not waiting[successor]:
                order.append(successor)
    return order


def _dominated(needs: Mapping[str, Sequence[str]], order: Sequence[str]) -> dict[str, list[str]]:
    """Immediate dominator → actions, in the order of the definition; `""` stands before all roots."""
    depth, above = {"": 0}, {"": ""}
    for name in order:
        meeting: str | None = None
        for predecessor in needs[name]:
            other = predecessor
            if meeting is None:
                meeting = other
            while meeting != other:
                if depth[meeting] >= depth[other]:
                    meeting = above[meeting]
                else:
                    other = above[other]
        above[name] = meeting or ""
        depth[name] = depth[above[name]] + 1
    below: dict[str, list[str]] = {}
    for name in needs:
        below.setdefault(above[name], []).append(name)
    return below
