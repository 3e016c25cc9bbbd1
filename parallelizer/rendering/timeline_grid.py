"""A timeline as a grid: for each lane and each column of time the worst that happened there. Pure.

So a picture of 100,000 items costs as much as its width, and nothing that failed disappears in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import groupby

from orchestration.reports.timeline import Lane, Timeline
from orchestration.vocabulary import TaskStatus

_FAILURES = (TaskStatus.FAILED, TaskStatus.TIMED_OUT, TaskStatus.CANCELLED)


class Cell(IntEnum):
    """What a column of a lane shows; the larger one hides the smaller."""

    IDLE = 0
    WAIT = 1
    DONE = 2
    RUNNING = 3
    FAILED = 4


@dataclass(frozen=True, slots=True)
class Scale:
    """Time to columns."""

    start_us: int
    end_us: int
    columns: int

    @property
    def us_per_column(self) -> float:
        return max(1, self.end_us - self.start_us) / self.columns

    def column(self, moment_us: int) -> int:
        return min(self.columns - 1, max(0, int((moment_us - self.start_us) / self.us_per_column)))


def cell_of(status: TaskStatus) -> Cell:
    """How a task is drawn."""
    if status in _FAILURES:
        return Cell.FAILED
    return Cell.DONE if status.is_final else Cell.RUNNING


def draw_lane(lane: Lane, scale: Scale) -> bytearray:
    """The cells of one lane. A wait is drawn where the slot was free meanwhile."""
    cells = bytearray(scale.columns)
    free_us = scale.start_us
    for block in lane.blocks:
        waits_from = max(block.ready_us, free_us)
        if waits_from < block.start_us:
            _mark(cells, scale.column(waits_from), scale.column(block.start_us), Cell.WAIT)
        for bar in block.bars:
            _mark(cells, scale.column(bar.start_us), scale.column(bar.end_us) + 1, cell_of(bar.status))
        free_us = max(free_us, block.end_us)
    return cells


def runs_of(cells: Sequence[int]) -> Iterator[tuple[int, int, Cell]]:
    """Equal cells side by side: first column, how many, which; without those that are idle."""
    at = 0
    for cell, same in groupby(cells):
        length = len(list(same))
        if cell != Cell.IDLE:
            yield at, length, Cell(cell)
        at += length


def waiting_by_column(timeline: Timeline, scale: Scale) -> list[int]:
    """The most that waited in each column."""
    most = [0] * scale.columns
    steps = timeline.waiting
    for place, (moment, number) in enumerate(steps):
        until = steps[place + 1][0] if place + 1 < len(steps) else moment
        for column in range(scale.column(moment), scale.column(max(moment, until - 1)) + 1):
            most[column] = max(most[column], number)
    return most


def _mark(cells: bytearray, first: int, stop: int, cell: Cell) -> None:
    for column in range(first, min(stop, len(cells))):
        cells[column] = max(cells[column], cell)
