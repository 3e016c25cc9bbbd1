"""How long a recording takes on so many slots, at best and first come, first served. Pure, and without overhead."""

from __future__ import annotations

import heapq
from typing import Final

from parallelizer.wfformat.recording import Recording
from parallelizer.wfformat.shape import Shape

#: The slots that `validate --wfformat` tells about.
TABLE_SLOTS: Final = (2, 4, 10, 50, 100)


def lower_bound_seconds(shape: Shape, slots: int) -> float:
    """No schedule is shorter: neither than the critical path, nor than the work shared evenly."""
    return max(shape.critical_path_seconds, shape.total_seconds / slots)


def first_come_first_served_seconds(recording: Recording, slots: int) -> float:
    """The time from the first start to the last end when a free slot takes the task that has been ready longest.

    Of tasks that became ready at the same moment the first in the file is taken. Another order can be shorter or
    longer; this one is what a processor without overhead comes to that knows nothing about run times.
    """
    waits_for = [len(before) for before in recording.parents]
    ready = [(0.0, place) for place, count in enumerate(waits_for) if count == 0]
    running: list[tuple[float, int]] = []
    now = 0.0
    while ready or running:
        while ready and len(running) < slots:
            _, place = heapq.heappop(ready)
            heapq.heappush(running, (now + recording.tasks[place].seconds, place))
        now = running[0][0]
        while running and running[0][0] == now:
            _, place = heapq.heappop(running)
            for child in recording.children[place]:
                waits_for[child] -= 1
                if waits_for[child] == 0:
                    heapq.heappush(ready, (now, child))
    return now
