"""Recording → definition of a workflow that repeats it: the same graph, each task a sleep. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from orchestration.definition.schema import WEEK_SECONDS, is_name
from orchestration.errors import DefinitionError, Problem
from parallelizer.wfformat.recording import Recording
from parallelizer.wfformat.shape import Shape

#: Characters kept of an id that can't be a name as it is; a hash follows, and names have 128 at most.
KEPT_CHARACTERS: Final = 96
#: A branch may take so many times its scaled run time, and so many seconds, before it is taken for stuck: on a machine
#: with too much to do a sleep ends late.
TIMEOUT_FACTOR, TIMEOUT_SECONDS = 2.0, 60.0


@dataclass(frozen=True, slots=True)
class Replay:
    """How a recording is repeated."""

    #: Real seconds for one recorded second.
    time_scale: float
    #: Most branches at once.
    slots: int


def to_definition(recording: Recording, shape: Shape, replay: Replay, names: Mapping[str, str]) -> dict[str, Any]:
    """The definition, for `load_definition`.

    Args: names: from `action_names`.
    Raises: DefinitionError: a branch would take longer than any branch may.
    """
    timeout = TIMEOUT_SECONDS + TIMEOUT_FACTOR * shape.longest_branch_seconds * replay.time_scale
    if timeout > WEEK_SECONDS:
        longest = shape.longest_branch_seconds * replay.time_scale
        message = f"the longest branch takes {longest:,.0f} s at the time scale {replay.time_scale:g}"
        most = (WEEK_SECONDS - TIMEOUT_SECONDS) / TIMEOUT_FACTOR
        raise DefinitionError([Problem(f"{message}; at most {most:,.0f} s are allowed", hint="choose a smaller one")])
    return {
        "name": safe_name(recording.name),
        "description": f"Repeats a recording of {len(recording.tasks):,} tasks, 1 s as {replay.time_scale:g} s.",
        "limits": {"max_concurrent_branches": replay.slots, "branch_timeout_seconds": round(timeout, 3)},
        # without it the results of all last tasks would be the output: nothing, many times
        "output": {},
        "actions": {
            names[task.id]: {
                "uses": "core.sleep",
                "with": {"seconds": round(task.seconds * replay.time_scale, 6)},
                **({"needs": [names[parent] for parent in task.parents]} if task.parents else {}),
            }
            for task in recording.tasks
        },
    }


def action_names(recording: Recording) -> dict[str, str]:
    """The id of each task → the name of its action: the same wherever the id can be a name, and unique."""
    names = {task.id: task.id for task in recording.tasks if is_name(task.id)}
    taken = set(names)
    for task in recording.tasks:
        if task.id not in names:
            name, count = safe_name(task.id), 1
            while name in taken:  # somebody's id looks like a name of ours
                count += 1
                name = f"{safe_name(task.id)}-{count}"
            names[task.id] = name
            taken.add(name)
    return names


def safe_name(text: str) -> str:
    """The text if it can be a name, else one made of it that no other text gives (but by a chance of 1 to 2⁶⁴)."""
    if is_name(text):
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    readable = re.sub(r"[^A-Za-z0-9_.-]+", "_", text)[:KEPT_CHARACTERS].lstrip(".-")
    return f"{readable}-{digest}" if readable else digest
