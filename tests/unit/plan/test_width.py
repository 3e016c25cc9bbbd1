"""How many units can be ready at once: never less than that, and exact where forks and joins are nested."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration.definition import load_definition
from orchestration.plan import Branch, compile_plan, most_ready
from tests.unit.definition import sample_actions  # noqa: F401 - registers the actions
from tests.unit.definition.graphs import graphs

MOST = 50
ITEMS: dict[str, Any] = {"for_each": "${{ payload.items }}"}


def branches_of(graph: Mapping[str, list[str]], **options: dict[str, Any]) -> Mapping[str, Branch]:
    """The branches of a graph; `options` are more keys of single actions."""
    actions = {
        name: {"uses": "sample.anything", "needs": needs, **options.get(name, {})} for name, needs in graph.items()
    }
    return compile_plan(load_definition({"name": "w", "actions": actions})).branches


@pytest.mark.parametrize(
    ("graph", "options", "width"),
    [
        ({"a": []}, {}, 1),
        ({"a": [], "b": ["a"], "c": ["b"]}, {}, 1),
        ({"a": [], "b": []}, {}, 2),
        ({"a": [], "b": ["a"], "c": ["a"], "d": ["a"], "e": ["b", "c", "d"]}, {}, 3),
        ({"a": [], "b": ["a"], "c": ["a"], "d": ["b", "c"], "e": ["d"], "f": ["d"], "g": ["d"]}, {}, 3),
        ({"a": [], "each": ["a"], "z": ["each"]}, {"each": {"for_each": {"range": 7}}}, 7),
        ({"a": [], "each": ["a"], "z": ["each"]}, {"each": {"for_each": [1, 2, 3]}}, 3),
        ({"a": [], "each": ["a"], "z": ["each"]}, {"each": {"for_each": []}}, 1),
        ({"each": []}, {"each": {"for_each": {"range": 1_000_000}}}, MOST),
        ({"each": []}, {"each": ITEMS}, MOST),
        ({"each": [], "z": []}, {"each": {**ITEMS, "max_concurrent": 4}}, 5),
        ({"one": [], "two": ["one"]}, {"one": {"for_each": {"range": 3}}, "two": {"for_each": {"range": 5}}}, 5),
    ],
)
def test_the_width_of_small_graphs(graph: dict[str, list[str]], options: dict[str, Any], width: int) -> None:
    assert most_ready(branches_of(graph, **options), MOST) == width


def after(branches: Mapping[str, Branch], name: str) -> set[str]:
    """All branches that come after one."""
    found: set[str] = set()
    todo = [name]
    while todo:
        for successor in branches[todo.pop()].successors:
            if successor.branch not in found:
                found.add(successor.branch)
                todo.append(successor.branch)
    return found


@given(graph=graphs(8), sizes=st.dictionaries(st.sampled_from([f"n{n}" for n in range(8)]), st.integers(0, 3)))
def test_no_more_units_can_be_ready_than_it_says(graph: dict[str, list[str]], sizes: dict[str, int]) -> None:
    options = {name: {"for_each": {"range": size}} for name, size in sizes.items() if name in graph}
    branches = branches_of(graph, **options)
    units = {name: max(1, sizes.get(name, 1)) if branches[name].is_for_each else 1 for name in branches}
    later = {name: after(branches, name) for name in branches}
    widest = max(
        sum(units[name] for name in chosen)
        for number in range(1, len(branches) + 1)
        for chosen in combinations(branches, number)
        if not any(other in later[name] for name in chosen for other in chosen)
    )
    assert widest <= most_ready(branches, MOST) <= sum(units.values())
    assert most_ready(branches, 2) == min(2, most_ready(branches, MOST))
