"""A run that repeated a recording, beside what the recording allows. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from parallelizer.wfformat.conversion import Replay
from parallelizer.wfformat.recording import Recording
from parallelizer.wfformat.schedule import first_come_first_served_seconds, lower_bound_seconds
from parallelizer.wfformat.shape import Shape

#: Violations that are spelled out in JSON; their number is always told.
MOST_SHOWN: Final = 20


@dataclass(frozen=True, slots=True)
class Interval:
    """When a task ran."""

    started_at: datetime
    finished_at: datetime


@dataclass(frozen=True, slots=True)
class Violation:
    """A task that started before one it had to wait for had ended."""

    before: str
    after: str
    #: How much too early.
    seconds: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """How long a run took, and how long it had to take."""

    shape: Shape
    replay: Replay
    #: From the first start of a task to the last end; None when no task ran.
    makespan_seconds: float | None
    #: No schedule on so many slots is shorter.
    bound_seconds: float
    first_come_first_served_seconds: float
    #: Tasks that ran at the same moment, at most: less than the slots where the workers had no place for more.
    most_at_once: int
    #: Tasks without a recorded start and end.
    unrecorded: int
    violations: tuple[Violation, ...]

    @property
    def respects_every_edge(self) -> bool:
        """Every task is recorded, and none started before those it waits for had ended."""
        return not self.unrecorded and not self.violations

    def to_json(self) -> dict[str, Any]:
        """The fields that scripts rely on."""
        return {
            "tasks": self.shape.tasks, "edges": self.shape.edges, "slots": self.replay.slots,
            "time_scale": self.replay.time_scale, "makespan_seconds": self.makespan_seconds,
            "bound_seconds": self.bound_seconds, "makespan_to_bound": self.ratio_to(self.bound_seconds),
            "first_come_first_served_seconds": self.first_come_first_served_seconds,
            "makespan_to_first_come_first_served": self.ratio_to(self.first_come_first_served_seconds),
            "most_at_once": self.most_at_once, "unrecorded": self.unrecorded, "violations": len(self.violations),
            "violated_edges": [
                {"before": each.before, "after": each.after, "seconds": each.seconds}
                for each in self.violations[:MOST_SHOWN]
            ],
        }  # fmt: skip

    def ratio_to(self, seconds: float) -> float | None:
        """The makespan as a multiple of `seconds`; None where there is none."""
        return round(self.makespan_seconds / seconds, 4) if self.makespan_seconds is not None and seconds > 0 else None


def compare(recording: Recording, shape: Shape, replay: Replay, intervals: Mapping[str, Interval]) -> Comparison:
    """Compare what was measured with what is possible.

    Args: intervals: by the id of the task, for those that ran.
    """
    starts = [each.started_at for each in intervals.values()]
    ends = [each.finished_at for each in intervals.values()]
    return Comparison(
        shape=shape,
        replay=replay,
        makespan_seconds=(max(ends) - min(starts)).total_seconds() if intervals else None,
        bound_seconds=lower_bound_seconds(shape, replay.slots) * replay.time_scale,
        first_come_first_served_seconds=first_come_first_served_seconds(recording, replay.slots) * replay.time_scale,
        most_at_once=_most_at_once(intervals.values()),
        unrecorded=len(recording.tasks) - len(intervals),
        violations=tuple(_violations(recording, intervals)),
    )


def _violations(recording: Recording, intervals: Mapping[str, Interval]) -> list[Violation]:
    found = []
    for before, after in recording.edges:
        if before in intervals and after in intervals:
            early = (intervals[before].finished_at - intervals[after].started_at).total_seconds()
            if early > 0:
                found.append(Violation(before, after, early))
    return found


def _most_at_once(intervals: Collection[Interval]) -> int:
    # An end sorts before a start at the same moment: the one made room for the other.
    changes = sorted([(each.started_at, 1) for each in intervals] + [(each.finished_at, -1) for each in intervals])
    running = most = 0
    for _, change in changes:
        running += change
        most = max(most, running)
    return most
