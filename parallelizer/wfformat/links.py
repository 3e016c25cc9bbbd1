"""Reads the edges of a recording: `parents`, checked against `children`, without cycles. Pure; called by `parse.py`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from orchestration.definition.check_graph import Graph, find_graph_mistakes
from orchestration.definition.places import DocumentPath
from orchestration.definition.scope import kind_of
from parallelizer.wfformat.dialects import Dialect
from parallelizer.wfformat.mistakes import Mistakes, shown


def read_parents(
    tasks: Sequence[Any], places: Mapping[str, int], dialect: Dialect, mistakes: Mistakes
) -> dict[str, tuple[str, ...]]:
    """The parents of each task, each once; what is wrong is noted and left out.

    Args: places: what a task is known by → its place in `tasks`.
    """
    parents = {identity: _parents(identity, tasks, places, dialect, mistakes) for identity in places}
    _check_children(tasks, places, parents, dialect, mistakes)
    for finding in find_graph_mistakes(Graph({}, parents)):
        first = places[str(finding.path[1])]
        mistakes.note((*dialect.tasks, first, "parents"), finding.message, "each waits for the one before it")
    return parents


def _parents(
    identity: str, tasks: Sequence[Any], places: Mapping[str, int], dialect: Dialect, mistakes: Mistakes
) -> tuple[str, ...]:
    place = places[identity]
    path = (*dialect.tasks, place, "parents")
    found: dict[str, None] = {}
    for index, parent in _names(tasks[place], path, mistakes, required=dialect.parents_required):
        if parent == identity:
            mistakes.note((*path, index), f"{shown(identity)} can't be its own parent")
        elif parent in places:
            found[parent] = None
        else:
            hint = _other_identity(parent, tasks, dialect) or mistakes.guess(parent, places)
            mistakes.note((*path, index), f"there is no task with the {dialect.identity} {shown(parent)}", hint)
    return tuple(found)


def _check_children(
    tasks: Sequence[Any],
    places: Mapping[str, int],
    parents: Mapping[str, tuple[str, ...]],
    dialect: Dialect,
    mistakes: Mistakes,
) -> None:
    """An edge that only `children` have would be lost without a word."""
    before = {identity: frozenset(names) for identity, names in parents.items()}
    for identity, place in places.items():
        path = (*dialect.tasks, place, "children")
        for index, child in _names(tasks[place], path, mistakes, required=False):
            if child not in places:
                hint = _other_identity(child, tasks, dialect)
                mistakes.note((*path, index), f"there is no task with the {dialect.identity} {shown(child)}", hint)
            elif identity not in before[child]:
                message = f"{shown(child)} does not have {shown(identity)} among its parents"
                mistakes.note((*path, index), message, "an edge stands in both lists, or it is lost")


def _names(task: Mapping[str, Any], path: DocumentPath, mistakes: Mistakes, *, required: bool) -> list[tuple[int, str]]:
    """The other tasks that a field of a task names, with their places in it."""
    field = str(path[-1])
    if field not in task:
        if required:
            mistakes.note(path[:-1], f"{field} is missing; a task that waits for nothing has []")
        return []
    names = task[field]
    if not isinstance(names, list):
        mistakes.note(path, f"must be a list; it is {kind_of(names)}")
        return []
    for index, name in enumerate(names):
        if not isinstance(name, str):
            mistakes.note((*path, index), f"must be a text; it is {kind_of(name)}")
    return [(index, name) for index, name in enumerate(names) if isinstance(name, str)]


def _other_identity(meant: str, tasks: Sequence[Any], dialect: Dialect) -> str:
    """A hint where a task is named by its `id` instead of its `name`, or the other way round."""
    other = "id" if dialect.identity == "name" else "name"
    for task in tasks:
        if isinstance(task, Mapping) and task.get(other) == meant:
            known = shown(task.get(dialect.identity))
            return f"version {dialect.version} has {dialect.identity}s there; this is the {other} of {known}"
    return ""
