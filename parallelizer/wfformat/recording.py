"""A recorded execution of a workflow, whichever version of WfFormat it was read from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class RecordedTask:
    """One task: how long it ran, and which others had to end before it."""

    #: What `parents` name it by: the task's `id` from version 1.5 on, its `name` before.
    id: str
    #: Its run time, at least 0.
    seconds: float
    #: Ids of its direct predecessors, each once.
    parents: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Recording:
    """A recorded execution; its graph has no cycle, and every parent is one of its tasks."""

    name: str
    schema_version: str
    #: In the order of the file.
    tasks: tuple[RecordedTask, ...]
    #: From start to end as it was recorded, with the original system's queues and transfers; None if it was not.
    makespan_seconds: float | None
    #: For each task, by place, the places of those that it waits for, and of those that wait for it.
    parents: tuple[tuple[int, ...], ...] = field(init=False, repr=False, compare=False)
    children: tuple[tuple[int, ...], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        places = {task.id: place for place, task in enumerate(self.tasks)}
        parents = tuple(tuple(places[parent] for parent in task.parents) for task in self.tasks)
        children: list[list[int]] = [[] for _ in self.tasks]
        for place, before in enumerate(parents):
            for parent in before:
                children[parent].append(place)
        object.__setattr__(self, "parents", parents)
        object.__setattr__(self, "children", tuple(map(tuple, children)))

    @property
    def edges(self) -> Iterator[tuple[str, str]]:
        """Every edge as the ids of its two tasks: the one before and the one after."""
        return ((parent, task.id) for task in self.tasks for parent in task.parents)

    def in_order(self) -> list[int]:
        """The places of all tasks, each after those that it waits for."""
        missing = [len(before) for before in self.parents]
        order = [place for place, count in enumerate(missing) if count == 0]
        for place in order:  # grows as it goes
            for child in self.children[place]:
                missing[child] -= 1
                if missing[child] == 0:
                    order.append(child)
        return order
