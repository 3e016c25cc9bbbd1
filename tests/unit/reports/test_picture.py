"""A run as columns, and how many of its tasks ran when: pure, against the same counted one by one."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from orchestration.reports.picture import Graph, columns, density_of, graph_of
from orchestration.store.pictures import STATUSES, Bucket, TaskColumns
from orchestration.vocabulary import TaskStatus

PENDING, RUNNING, SUCCEEDED, FAILED = (
    STATUSES.index(status)
    for status in (TaskStatus.PENDING, TaskStatus.RUNNING, TaskStatus.SUCCEEDED, TaskStatus.FAILED)
)
DEFINITION: dict[str, Any] = {
    "name": "w",
    "actions": {
        "first": {"uses": "core.noop"},
        "each": {"uses": "core.noop", "needs": ["first"], "for_each": {"range": 3}},
        "last": {"uses": "core.noop", "needs": ["each", "first"]},
    },
}
GRAPH = graph_of(DEFINITION)


def test_a_graph_has_its_actions_in_the_order_of_the_definition_and_each_edge_once() -> None:
    assert [action["name"] for action in GRAPH.actions] == ["first", "each", "last"]
    assert [action["for_each"] for action in GRAPH.actions] == [False, True, False]
    assert sorted(edge[:2] for edge in GRAPH.edges) == [(0, 1), (0, 2), (1, 2)]
    (long,) = (edge for edge in GRAPH.edges if edge[:2] == (0, 2))
    assert [level for level, _ in long[2]] == [1]


def test_what_is_not_recorded_is_pending_and_a_for_each_is_in_no_lane() -> None:
    statuses, workers = [RUNNING, SUCCEEDED, RUNNING], [None, "a", "b"]
    each = TaskColumns([-1, 0, 1], statuses, [1, 1, 2], workers, [25, 30, 31], [None, 40, None])
    found = columns({"first": TaskColumns([-1], [SUCCEEDED], [1], ["b"], [10], [20]), "each": each}, GRAPH)
    assert found["workers"] == ["a", "b"]
    shown = found["columns"]
    assert shown["action"] == [0, 1, 1, 1, 2]
    assert shown["item"] == [-1, -1, 0, 1, -1]
    assert shown["status"] == [SUCCEEDED, RUNNING, SUCCEEDED, RUNNING, PENDING]
    assert shown["worker"] == [1, -1, 0, 1, -1]
    assert shown["start"] == [10, 25, 30, 31, None]
    assert shown["end"] == [20, None, 40, None, None]
    assert [lane >= 0 for lane in shown["slot"]] == [True, False, True, True, False]
    assert found["lanes"] == [0, 1]


def test_items_without_a_row_of_their_for_each_get_one() -> None:
    found = columns({"each": TaskColumns([0], [SUCCEEDED], [1], ["a"], [1], [2])}, GRAPH)["columns"]
    assert list(zip(found["action"], found["item"], strict=True)) == [(0, -1), (1, -1), (1, 0), (2, -1)]


def test_a_long_run_is_told_in_milliseconds() -> None:
    found = columns({"first": TaskColumns([-1], [SUCCEEDED], [1], ["a"], [1_234_567], [40_000_999])}, GRAPH)
    assert found["unit_us"] == 1000
    assert (found["columns"]["start"][0], found["columns"]["end"][0]) == (1234, 40_000)


COLUMNS = st.integers(0, 30).flatmap(
    lambda size: st.builds(
        TaskColumns,
        st.just(list(range(size))),
        *(
            st.lists(values, min_size=size, max_size=size)
            for values in (
                st.integers(0, len(STATUSES) - 1), st.integers(1, 9), st.sampled_from(["a", "b", None]),
                st.integers(0, 10**9) | st.none(), st.integers(0, 10**9) | st.none(),
            )
        ),
    )
)  # fmt: skip


@given(COLUMNS, COLUMNS)
def test_columns_are_of_one_length_and_no_task_is_twice(each: TaskColumns, last: TaskColumns) -> None:
    found = columns({"each": each, "last": last}, GRAPH)
    shown = found["columns"]
    assert len({len(column) for column in shown.values()}) == 1
    keys = list(zip(shown["action"], shown["item"], strict=True))
    assert len(keys) == len(set(keys))
    assert keys == sorted(keys)
    assert set(keys) >= {(1, item) for item in each.item} | {(0, -1), (1, -1), (2, -1)}
    assert all(-1 <= lane < len(found["lanes"]) for lane in shown["slot"])


SPANS = st.lists(st.tuples(st.integers(-50, 150), st.integers(0, 100), st.booleans()), max_size=30)


@given(SPANS, st.integers(1, 12))
def test_a_density_is_the_mean_number_of_tasks_at_once(spans: list[tuple[int, int, bool]], bins: int) -> None:
    window = (0, 100)
    length = 100 / bins
    found = density_of(buckets_of(spans, window, bins), GRAPH, window, bins)
    running = found["1"]["running"] if found else [0.0] * bins
    for one in range(bins):
        low, high = one * length, (one + 1) * length
        busy = sum(max(0.0, min(high, start + lasted) - max(low, start)) for start, lasted, _ in spans)
        assert abs(running[one] - busy / length) < 0.011


@given(SPANS)
def test_a_density_counts_each_failure_in_the_window_once(spans: list[tuple[int, int, bool]]) -> None:
    found = density_of(buckets_of(spans, (0, 100), 10), GRAPH, (0, 100), 10)
    failed = sum(found["1"]["failed"]) if found else 0
    assert failed == sum(bad and 0 <= start + lasted < 100 for start, lasted, bad in spans)


def buckets_of(spans: list[tuple[int, int, bool]], window: tuple[int, int], bins: int) -> list[Bucket]:
    """What PostgreSQL's width_bucket and GROUP BY give."""
    sums: dict[tuple[int, int | None], tuple[int, float]] = {}
    length = (window[1] - window[0]) / bins

    def add(moment: int, ended: int | None) -> None:
        at = 0 if moment < window[0] else bins + 1 if moment >= window[1] else int((moment - window[0]) / length) + 1
        tasks, total = sums.get((at, ended), (0, 0.0))
        sums[at, ended] = (tasks + 1, total + moment)

    for start, lasted, bad in spans:
        add(start, None)
        add(start + lasted, FAILED if bad else SUCCEEDED)
    return [Bucket("each", at, ended, tasks, total) for (at, ended), (tasks, total) in sums.items()]


def test_an_action_that_the_graph_does_not_have_is_left_out() -> None:
    assert density_of([Bucket("other", 1, None, 1, 5.0)], Graph((), {}, (), 0, 0), (0, 10), 2) == {}
