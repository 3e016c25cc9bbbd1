"""The layout of a graph as lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hypothesis import given
from hypothesis import strategies as st

from parallelizer.cli.tree import MOST_ACTIONS_IN_A_TREE, arrange


def drawn(needs: Mapping[str, Sequence[str]]) -> list[str]:
    return [line.prefix + line.name for line in arrange(needs)]


def test_a_linear_workflow_has_no_indentation() -> None:
    assert drawn({"a": [], "b": ["a"], "c": ["b"]}) == ["a", "b", "c"]


def test_forks_are_indented_and_the_join_goes_on_below() -> None:
    needs = {"a": [], "left": ["a"], "more": ["left"], "right": ["a"], "join": ["more", "right"], "end": ["join"]}
    assert drawn(needs) == ["a", "├─ left", "│  more", "└─ right", "join", "end"]


def test_several_roots_are_forks_of_the_trigger() -> None:
    assert drawn({"a": [], "b": [], "c": ["a", "b"]}) == ["├─ a", "├─ b", "└─ c"]


def test_a_graph_that_is_not_nested_keeps_every_action_once() -> None:
    needs = {"a": [], "b": ["a"], "c": ["a"], "d": ["b"], "e": ["b", "c"], "f": ["d", "e"]}
    assert sorted(line.name for line in arrange(needs)) == sorted(needs)
    assert drawn(needs) == ["a", "├─ b", "│  d", "└─ c", "e", "f"]


def test_a_large_graph_is_a_flat_list_and_a_deep_one_no_trouble() -> None:
    size = MOST_ACTIONS_IN_A_TREE
    deep = {str(n): [str(n - 1)] if n else [] for n in range(size)}
    assert drawn(deep) == [str(n) for n in range(size)]
    large: dict[str, list[str]] = {str(n): [] for n in range(size + 1)}
    assert drawn(large) == [str(n) for n in range(size + 1)]


@given(st.data())
def test_every_action_has_one_line_below_all_it_needs(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 30))
    needs = {
        f"n{n}": [f"n{p}" for p in data.draw(st.sets(st.integers(0, n - 1), max_size=4))] if n else []
        for n in range(size)
    }
    names = [line.name for line in arrange(needs)]
    assert sorted(names) == sorted(needs)
