"""The figures of a recording's graph. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from parallelizer.wfformat.recording import Recording


@dataclass(frozen=True, slots=True)
class Shape:
    """How large a recording is, and how long it must take."""

    tasks: int
    edges: int
    #: Tasks without parents, and without children.
    roots: int
    leaves: int
    #: Tasks on the longest path.
    depth: int
    #: Most tasks on one level, where a task's level is one more than the highest of its parents.
    width: int
    #: Maximal linear stretches, the processor's unit of scheduling.
    branches: int
    longest_task_seconds: float
    #: The heaviest branch.
    longest_branch_seconds: float
    total_seconds: float
    #: The heaviest path: no number of slots makes a run shorter.
    critical_path_seconds: float


def shape_of(recording: Recording) -> Shape:
    """Measure a recording; time and memory grow with tasks and edges."""
    seconds = [task.seconds for task in recording.tasks]
    levels, ends, stretches = [0] * len(seconds), list(seconds), list(seconds)
    branches, total = 0, 0.0
    for each in seconds:  # as a schedule on one slot adds them; `sum` rounds differently from Python 3.12 on
        total += each
    for place in recording.in_order():
        before = recording.parents[place]
        levels[place] = 1 + max((levels[parent] for parent in before), default=0)
        ends[place] += max((ends[parent] for parent in before), default=0.0)
        if len(before) == 1 and len(recording.children[before[0]]) == 1:
            stretches[place] += stretches[before[0]]
        else:
            branches += 1
    return Shape(
        tasks=len(seconds),
        edges=sum(map(len, recording.parents)),
        roots=recording.parents.count(()),
        leaves=recording.children.count(()),
        depth=max(levels),
        width=max(Counter(levels).values()),
        branches=branches,
        longest_task_seconds=max(seconds),
        longest_branch_seconds=max(stretches),
        total_seconds=total,
        critical_path_seconds=max(ends),
    )
