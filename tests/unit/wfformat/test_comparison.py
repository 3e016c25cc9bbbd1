"""A run beside what its recording allows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from parallelizer.wfformat.comparison import Comparison, Interval, compare
from parallelizer.wfformat.conversion import Replay
from parallelizer.wfformat.recording import RecordedTask, Recording
from parallelizer.wfformat.shape import shape_of

START = datetime(2026, 1, 1, tzinfo=UTC)
#: a, then b and c: 10 recorded seconds at best.
FORK = Recording(
    "fork",
    "1.5",
    (RecordedTask("a", 4, ()), RecordedTask("b", 6, ("a",)), RecordedTask("c", 2, ("a",))),
    None,
)


def between(start: float, end: float) -> Interval:
    return Interval(START + timedelta(seconds=start), START + timedelta(seconds=end))


def comparison_of(recording: Recording = FORK, **intervals: Interval) -> Comparison:
    return compare(recording, shape_of(recording), Replay(0.1, 2), intervals)


def test_the_makespan_stands_beside_the_bound_and_the_schedule() -> None:
    compared = comparison_of(a=between(3, 3.4), b=between(3.5, 4.1), c=between(3.4, 3.6))
    assert compared.respects_every_edge
    told = compared.to_json()
    assert told.pop("violated_edges") == []
    assert told == {
        "tasks": 3, "edges": 2, "slots": 2, "time_scale": 0.1, "makespan_seconds": 1.1, "bound_seconds": 1.0,
        "makespan_to_bound": 1.1, "first_come_first_served_seconds": 1.0, "makespan_to_first_come_first_served": 1.1,
        "most_at_once": 2, "unrecorded": 0, "violations": 0,
    }  # fmt: skip


def test_a_task_that_started_too_early_is_a_violation() -> None:
    compared = comparison_of(a=between(0, 0.4), b=between(0.399999, 1), c=between(0.4, 0.6))
    assert not compared.respects_every_edge
    assert compared.to_json()["violations"] == 1
    assert compared.to_json()["violated_edges"] == [{"before": "a", "after": "b", "seconds": 0.000001}]


def test_a_task_without_recorded_times_is_told_and_spoils_the_verdict() -> None:
    compared = comparison_of(a=between(0, 0.4))
    assert (compared.unrecorded, compared.respects_every_edge) == (2, False)
    assert comparison_of().to_json()["makespan_seconds"] is None


def test_one_task_after_another_is_never_two_at_once() -> None:
    assert comparison_of(a=between(0, 1), b=between(1, 2), c=between(2, 3)).most_at_once == 1


def test_a_recording_that_took_no_time_has_no_ratio() -> None:
    nothing = Recording("nothing", "1.5", (RecordedTask("a", 0, ()),), None)
    compared = comparison_of(nothing, a=between(0, 0.001))
    assert compared.to_json()["makespan_to_bound"] is None
    assert compared.respects_every_edge
