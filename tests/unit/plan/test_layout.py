"""Layouts: levels follow the needs, nothing stands on something else, few edges cross, large graphs take no time."""

from __future__ import annotations

import itertools
import random
import time

from hypothesis import given

from orchestration.plan.layout import Layout, lay_out, levels_of
from tests.unit.definition.graphs import graphs

Graph = dict[str, list[str]]


def successors_of(needs: Graph) -> Graph:
    return {name: [after for after, before in needs.items() if name in before] for name in needs}


def random_graph(size: int, seed: int = 7) -> Graph:
    """Successors in a graph of some twenty levels, most edges short."""
    draw = random.Random(seed)
    graph: Graph = {f"a{number}": [] for number in range(size)}
    for number in range(1, size):
        for _ in range(draw.choice([1, 1, 2])):
            start = draw.randrange(max(0, number - max(size // 20, 1)), number)
            if f"a{number}" not in graph[f"a{start}"]:
                graph[f"a{start}"].append(f"a{number}")
    return graph


def crossings(layout: Layout) -> int:
    """Pairs of edge parts that cross between two neighbouring levels, counted one by one."""
    parts: dict[int, list[tuple[float, float]]] = {}
    for level, start, end in layout_parts(layout):
        parts.setdefault(level, []).append((start, end))
    return sum(
        (one[0] - other[0]) * (one[1] - other[1]) < 0
        for within in parts.values()
        for one, other in itertools.combinations(within, 2)
    )


def layout_parts(layout: Layout) -> list[tuple[int, float, float]]:
    found = []
    for (start, end), passages in layout.passages.items():
        points = [layout.positions[start], *passages, layout.positions[end]]
        found += [(one[0], one[1], other[1]) for one, other in itertools.pairwise(points)]
    return found


@given(graphs())
def test_actions_stand_behind_what_they_need_and_nowhere_twice(needs: Graph) -> None:
    graph = successors_of(needs)
    levels = levels_of(graph)
    assert all(levels[name] > levels[need] for name, before in needs.items() for need in before)
    layout = lay_out(graph)
    assert {name: level for name, (level, _) in layout.positions.items()} == levels
    places = [*layout.positions.values(), *(place for passage in layout.passages.values() for place in passage)]
    for one, other in itertools.combinations(places, 2):
        assert one[0] != other[0] or abs(one[1] - other[1]) > 1 - 1e-9
    assert all(-1e-9 <= row <= layout.rows - 1 + 1e-9 for _, row in places)


@given(graphs())
def test_a_long_edge_passes_each_level_between(needs: Graph) -> None:
    layout = lay_out(successors_of(needs))
    for name, before in needs.items():
        for need in before:
            passed = [level for level, _ in layout.passages.get((need, name), ())]
            assert passed == list(range(layout.positions[need][0] + 1, layout.positions[name][0]))


def test_a_chain_is_a_straight_line() -> None:
    layout = lay_out({"a": ["b"], "b": ["c"], "c": []})
    assert layout.positions == {"a": (0, 0.0), "b": (1, 0.0), "c": (2, 0.0)}


def test_the_middle_of_a_fork_is_where_it_began() -> None:
    layout = lay_out({"start": ["a", "b", "c"], "a": ["end"], "b": ["end"], "c": ["end"], "end": []})
    assert layout.positions["start"] == (0, 1.0)
    assert layout.positions["end"] == (2, 1.0)


def test_edges_that_need_not_cross_do_not() -> None:
    graph = {"a": ["z"], "b": ["y"], "c": ["x"], "x": ["e"], "y": ["e"], "z": ["e"], "e": [], "s": ["a", "b", "c"]}
    layout = lay_out(graph)
    order = sorted("abc", key=lambda name: layout.positions[name][1])
    then = sorted("xyz", key=lambda name: layout.positions[name][1])
    assert [graph[name][0] for name in order] == then
    assert crossings(layout) == 0


def test_a_thousand_actions_are_laid_out_in_a_blink() -> None:
    graph = random_graph(1000)
    started = time.perf_counter()
    lay_out(graph)
    # Some 60 ms on a quiet machine.
    assert time.perf_counter() - started < 2
