"""Which slot each task was in, as far as times tell: the lanes of a timeline. Pure.

Two tasks of one lane never overlap, and a worker has as few lanes as that allows: as many as it ran tasks at once. A
task goes to the free lane of its worker that became free last, so steps that follow one another stay together.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Final

#: The lane of what is in none: it has not begun, or is no work of its own.
NO_LANE: Final = -1


@dataclass(frozen=True, slots=True)
class Lanes:
    """Tasks in lanes."""

    #: The lane of each task, from 0, or NO_LANE.
    of: list[int]
    #: The worker of each lane; lanes of one worker stand together.
    workers: list[int]


def lanes_of(
    workers: Sequence[int], starts: Sequence[int | None], ends: Sequence[int | None], left_out: Iterable[int] = ()
) -> Lanes:
    """Put tasks into lanes; 50,000 take some 50 ms.

    Args: workers: numbers; each is a worker of its own. starts, ends: of each task, in any unit; no end: it runs.
        left_out: places of tasks that are in no lane.
    """
    of = [NO_LANE] * len(starts)
    without = set(left_out)
    begun: dict[int, list[int]] = {}
    for place, start in enumerate(starts):
        if start is not None and place not in without:
            begun.setdefault(workers[place], []).append(place)
    owners: list[int] = []
    for worker in sorted(begun):
        places = begun[worker]
        places.sort(key=starts.__getitem__)  # type: ignore[arg-type]
        busy: list[tuple[int, int]] = []
        free: list[int] = []
        for place in places:
            start, end = starts[place], ends[place]
            assert start is not None
            while busy and busy[0][0] <= start:
                free.append(heappop(busy)[1])
            if free:
                lane = free.pop()
            else:
                lane = len(owners)
                owners.append(worker)
            of[place] = lane
            if end is not None:
                heappush(busy, (max(end, start), lane))
    return Lanes(of, owners)
