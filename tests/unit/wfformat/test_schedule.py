"""How long a recording must take, and takes first come, first served."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallelizer.wfformat.reader import read_recording
from parallelizer.wfformat.recording import RecordedTask, Recording
from parallelizer.wfformat.schedule import first_come_first_served_seconds, lower_bound_seconds
from parallelizer.wfformat.shape import Shape, shape_of
from tests.support.recordings import LOAVES
from tests.unit.wfformat.graphs import recordings


def recording_of(**tasks: tuple[float, list[str]]) -> Recording:
    return Recording("r", "1.5", tuple(RecordedTask(name, t, tuple(p)) for name, (t, p) in tasks.items()), None)


def test_the_figures_of_a_graph_worked_out_by_hand() -> None:
    assert shape_of(read_recording(LOAVES["1.5"])) == Shape(
        tasks=13, edges=14, roots=3, leaves=2, depth=6, width=3, branches=10, longest_task_seconds=8.25,
        longest_branch_seconds=14.5, total_seconds=56.0, critical_path_seconds=25.5,
    )  # fmt: skip


@pytest.mark.parametrize(("slots", "bound", "first_come"), [(1, 56.0, 56.0), (2, 28.0, 32.75), (3, 25.5, 25.5)])
def test_a_schedule_worked_out_by_hand(slots: int, bound: float, first_come: float) -> None:
    recording = read_recording(LOAVES["1.5"])
    assert lower_bound_seconds(shape_of(recording), slots) == bound
    assert first_come_first_served_seconds(recording, slots) == first_come


def test_of_tasks_that_become_ready_together_the_first_in_the_file_is_taken() -> None:
    short_first = recording_of(a=(1, []), b=(1, []), long=(2, []))
    long_first = recording_of(long=(2, []), a=(1, []), b=(1, []))
    assert first_come_first_served_seconds(short_first, 2) == 3
    assert first_come_first_served_seconds(long_first, 2) == 2


def test_the_task_that_has_been_ready_longest_is_taken_not_the_first_in_the_file() -> None:
    recording = recording_of(late=(5, ["b"]), a=(3, []), b=(2, []), c=(2, []))
    assert first_come_first_served_seconds(recording, 2) == 3 + 5  # c at 2, and late at 3


@given(recordings(), st.integers(1, 6))
def test_a_schedule_is_never_shorter_than_the_bound_nor_longer_than_one_after_another(
    recording: Recording, slots: int
) -> None:
    shape = shape_of(recording)
    takes = first_come_first_served_seconds(recording, slots)
    assert lower_bound_seconds(shape, slots) <= takes <= shape.total_seconds
    # a list schedule is at most this long, whatever its order (Graham, 1969)
    assert takes <= shape.total_seconds / slots + shape.critical_path_seconds * (slots - 1) / slots + 1e-9


@given(recordings())
def test_with_a_slot_for_each_task_it_takes_as_long_as_the_critical_path(recording: Recording) -> None:
    shape = shape_of(recording)
    assert first_come_first_served_seconds(recording, len(recording.tasks)) == shape.critical_path_seconds
    assert first_come_first_served_seconds(recording, 1) == shape.total_seconds
