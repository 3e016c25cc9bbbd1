"""Lanes: what shares one never overlaps, and there are no more than were busy at once."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from orchestration.reports.lanes import NO_LANE, lanes_of

TASKS = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 60) | st.none(), st.integers(0, 20) | st.none(), st.booleans()),
    max_size=40,
)


def ends_of(tasks: list[tuple[int, int | None, int | None, bool]]) -> list[int | None]:
    return [None if start is None or lasted is None else start + lasted for _, start, lasted, _ in tasks]


@given(TASKS)
def test_tasks_of_a_lane_never_overlap_and_a_worker_has_no_more_lanes_than_it_ran_at_once(
    tasks: list[tuple[int, int | None, int | None, bool]],
) -> None:
    workers, starts, ends = [task[0] for task in tasks], [task[1] for task in tasks], ends_of(tasks)
    left_out = {place for place, task in enumerate(tasks) if task[3]}
    lanes = lanes_of(workers, starts, ends, left_out)
    shown = [place for place, start in enumerate(starts) if start is not None and place not in left_out]
    assert {place for place, lane in enumerate(lanes.of) if lane != NO_LANE} == set(shown)
    spans: dict[int, list[tuple[float, float]]] = {}
    for place in shown:
        start, end = starts[place], ends[place]
        assert start is not None
        assert lanes.workers[lanes.of[place]] == workers[place]
        spans.setdefault(lanes.of[place], []).append((start, float("inf") if end is None else end))
    for within in spans.values():
        for one, other in itertools.pairwise(sorted(within)):
            assert one[1] <= other[0]
    for worker in set(workers):
        own = [place for place in shown if workers[place] == worker]
        # At each start, those that run: the lanes that are needed. What takes no time needs one at its start too.
        busy = max(
            (at_once(own, starts, ends, start) for start in (starts[place] for place in own) if start is not None),
            default=0,
        )
        assert lanes.workers.count(worker) <= max(busy, 1 if own else 0)


def at_once(own: list[int], starts: list[int | None], ends: list[int | None], moment: int) -> int:
    return sum(
        start <= moment and (end is None or end > moment or start == end == moment)
        for start, end in ((starts[place], ends[place]) for place in own)
        if start is not None
    )


def test_steps_that_follow_one_another_stay_in_one_lane() -> None:
    lanes = lanes_of([0, 0, 0, 0], [0, 0, 10, 8], [10, 8, 20, 20])
    assert lanes.of == [0, 1, 0, 1]


def test_lanes_of_one_worker_stand_together() -> None:
    lanes = lanes_of([1, 0, 1, 0], [0, 0, 1, 1], [5, 5, 5, 5])
    assert lanes.workers == [0, 0, 1, 1]
