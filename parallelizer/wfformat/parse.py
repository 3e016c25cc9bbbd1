"""A WfFormat document → Recording, with every mistake in it reported at once. Pure; called by `reader.py`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from orchestration.definition.places import Document, DocumentPath, field_text, value_at
from orchestration.definition.scope import kind_of
from parallelizer.wfformat.dialects import DIALECTS, Dialect
from parallelizer.wfformat.links import read_parents
from parallelizer.wfformat.mistakes import Mistakes, shown
from parallelizer.wfformat.recording import RecordedTask, Recording

#: No task runs for thirty years; and sums of such times are still exact to the microsecond.
MAX_SECONDS: Final = 1e9


def parse_recording(document: Document, max_tasks: int) -> Recording:
    """Read a document in WfFormat.

    Args: max_tasks: the setting MAX_ACTIONS.
    Raises: DefinitionError: with every mistake; a document that is no WfFormat has one.
    """
    mistakes = Mistakes(document)
    top = document.value
    if not isinstance(top, Mapping):
        mistakes.fail((), f"not WfFormat: a recording is an object, but this is {kind_of(top)}")
    if "schemaVersion" not in top or "workflow" not in top:
        hint = "this looks like a definition; leave --wfformat out" if "actions" in top else ""
        mistakes.fail((), "not WfFormat: it has no schemaVersion and workflow", hint)
    dialect = _dialect(top["schemaVersion"], mistakes)
    tasks = _tasks(top, dialect, max_tasks, mistakes)
    places = _places(tasks, dialect, mistakes)
    seconds = _seconds(top, dialect, tasks, places, mistakes)
    parents = read_parents(tasks, places, dialect, mistakes)
    name = top.get("name")
    if not isinstance(name, str) or not name:
        mistakes.note((), "name is missing, a text" if name is None else "name must be a text")
    mistakes.raise_if_any()
    recorded = tuple(RecordedTask(identity, seconds[identity], parents[identity]) for identity in places)
    makespan: Any = value_at(top, dialect.makespan)
    return Recording(str(name), dialect.version, recorded, None if _why_no_seconds(makespan) else float(makespan))


def _dialect(version: object, mistakes: Mistakes) -> Dialect:
    dialect = DIALECTS.get(version) if isinstance(version, str) else None
    if dialect is None:
        given = shown(version) if isinstance(version, (str, int, float)) else kind_of(version)
        known = f'known are "{min(DIALECTS)}" to "{max(DIALECTS)}", as texts'
        mistakes.fail(("schemaVersion",), f"version {given} of WfFormat is not known", known)
    return dialect


def _tasks(top: object, dialect: Dialect, max_tasks: int, mistakes: Mistakes) -> list[Any]:
    tasks = _list(top, dialect.tasks, dialect, mistakes)
    if not tasks:
        mistakes.fail(dialect.tasks, "there is no task in it")
    if len(tasks) > max_tasks:
        message = f"{len(tasks):,} tasks; at most {max_tasks:,} are allowed (MAX_ACTIONS)"
        mistakes.fail(dialect.tasks, message, "each becomes an action; raise MAX_ACTIONS, for the workers too")
    return tasks


def _list(top: object, path: DocumentPath, dialect: Dialect, mistakes: Mistakes) -> list[Any]:
    value = value_at(top, path)
    if not isinstance(value, list):
        what = "it is not there" if value is None else f"it is {kind_of(value)}"
        mistakes.fail(path, f"must be a list; {what}", f"that is its place in version {dialect.version}")
    return value


def _places(tasks: list[Any], dialect: Dialect, mistakes: Mistakes) -> dict[str, int]:
    """What each task is known by → its place in the list."""
    places: dict[str, int] = {}
    for place, task in enumerate(tasks):
        path = (*dialect.tasks, place)
        identity = _identity(task, path, dialect, mistakes)
        if identity is None:
            continue
        if identity in places:
            first = f"{dialect.tasks[-1]}[{places[identity]}]"
            mistakes.note((*path, dialect.identity), f"{shown(identity)} is the {dialect.identity} of {first} as well")
        places.setdefault(identity, place)
    return places


def _identity(task: object, path: DocumentPath, dialect: Dialect, mistakes: Mistakes) -> str | None:
    field = dialect.identity
    if not isinstance(task, Mapping):
        mistakes.note(path, f"must be an object; it is {kind_of(task)}")
        return None
    text = task.get(field)
    if field not in task:
        mistakes.note(path, f"{field} is missing")
    elif not isinstance(text, str):
        mistakes.note((*path, field), f"must be a text; it is {kind_of(text)}")
    elif not text or not _is_storable(text):
        mistakes.note((*path, field), "holds what is no character" if text else "is empty")
    else:
        return text
    return None


def _seconds(
    top: object, dialect: Dialect, tasks: list[Any], places: Mapping[str, int], mistakes: Mistakes
) -> dict[str, float]:
    """The run time of each task; 0 where it is wrong, which has been noted."""
    if dialect.runs == dialect.tasks:
        runs = {identity: (place, tasks[place]) for identity, place in places.items()}
    else:
        runs = _runs(_list(top, dialect.runs, dialect, mistakes), dialect, places, mistakes)
    seconds = dict.fromkeys(places, 0.0)
    for identity, task_place in places.items():
        if identity not in runs:
            where = field_text(dialect.runs)
            mistakes.note((*dialect.tasks, task_place), f"{shown(identity)} has no run time: it is not in {where}")
            continue
        place, run = runs[identity]
        path = (*dialect.runs, place)
        reason = _why_no_seconds(run.get(dialect.seconds))
        if dialect.seconds not in run:
            mistakes.note(path, f"{dialect.seconds} is missing, the run time of {shown(identity)}")
        elif reason:
            mistakes.note((*path, dialect.seconds), f"{reason}; it is the run time of {shown(identity)}")
        else:
            seconds[identity] = float(run[dialect.seconds])
    return seconds


def _runs(
    runs: list[Any], dialect: Dialect, places: Mapping[str, int], mistakes: Mistakes
) -> dict[str, tuple[int, Mapping[str, Any]]]:
    """Where run times stand apart: each task's, with its place in their list."""
    found: dict[str, tuple[int, Mapping[str, Any]]] = {}
    for place, run in enumerate(runs):
        path = (*dialect.runs, place)
        identity = _identity(run, path, dialect, mistakes)
        if identity is None:
            continue
        if identity not in places:
            mistakes.note((*path, "id"), f"there is no task {shown(identity)}", mistakes.guess(identity, places))
        elif identity in found:
            first = f"{dialect.runs[-1]}[{found[identity][0]}]"
            mistakes.note((*path, "id"), f"{shown(identity)} has a run time in {first} as well")
        else:
            found[identity] = (place, run)
    return found


def _why_no_seconds(value: object) -> str:
    """Why a value is no time in seconds; empty when it is one."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return f"must be a number of seconds; it is {kind_of(value)}"
    if not math.isfinite(value):
        return f"{value} is no number of seconds"
    if value < 0:
        return f"{value} s is less than nothing"
    return "" if value <= MAX_SECONDS else f"{value:g} s is more than {MAX_SECONDS:g} s, the most that is read"


def _is_storable(text: str) -> bool:
    """Whether it can be shown and stored: no half of a surrogate pair, no NUL."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\x00" not in text
