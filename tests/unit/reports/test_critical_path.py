"""The critical path, and the longest chain, against all paths of small graphs."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence

from hypothesis import given
from hypothesis import strategies as st

from orchestration.reports.explain.critical_path import Span, critical_path, longest_chain
from orchestration.reports.explain.spent import Profile

Needs = Mapping[str, Sequence[str]]


@st.composite
def runs(draw: st.DrawFn) -> tuple[dict[str, Span], dict[str, list[str]]]:
    """A graph with times as a run has them: nothing begins before all that it needs have ended."""
    names = [f"t{number}" for number in range(draw(st.integers(1, 7)))]
    spans: dict[str, Span] = {}
    needs: dict[str, list[str]] = {}
    for place, name in enumerate(names):
        needs[name] = draw(st.lists(st.sampled_from(names[:place]), unique=True)) if place else []
        ready = max((spans[need].end for need in needs[name]), default=0)
        start = ready + draw(st.integers(0, 3))
        spans[name] = Span(start, start + draw(st.integers(0, 5)))
    return spans, needs


def all_paths(name: str, needs: Needs) -> Iterator[list[str]]:
    """Every path from an action without predecessors to this one."""
    if not needs[name]:
        yield [name]
    for need in needs[name]:
        for path in all_paths(need, needs):
            yield [*path, name]


@given(runs())
def test_of_all_paths_it_is_the_one_whose_ends_are_the_latest(
    run: tuple[dict[str, Span], dict[str, list[str]]],
) -> None:
    spans, needs = run
    paths = [path for name in spans for path in all_paths(name, needs)]
    # the last end decides, then that of the one before it, and so on; of equals the first by name
    latest = min(paths, key=lambda path: [(-spans[name].end, name) for name in reversed(path)])
    assert critical_path(spans, needs) == latest


@given(runs())
def test_what_is_on_it_does_not_overlap_and_ends_with_the_run(
    run: tuple[dict[str, Span], dict[str, list[str]]],
) -> None:
    spans, needs = run
    path = critical_path(spans, needs)
    assert spans[path[-1]].end == max(span.end for span in spans.values())
    for before, after in itertools.pairwise(path):
        assert spans[before].end <= spans[after].start
        assert before in needs[after]


@given(runs())
def test_the_longest_chain_is_that_of_all_paths_and_no_longer_than_the_run(
    run: tuple[dict[str, Span], dict[str, list[str]]],
) -> None:
    spans, needs = run
    lengths = {name: span.length for name, span in spans.items()}
    chains = [sum(lengths[name] for name in path) for name in spans for path in all_paths(name, needs)]
    found = longest_chain(lengths, needs)
    assert found == max(chains)
    assert found <= max(span.end for span in spans.values())


def test_what_has_no_times_is_left_out() -> None:
    assert critical_path({}, {"a": []}) == []
    spans = {"a": Span(0, 1), "c": Span(5, 6)}
    assert critical_path(spans, {"a": [], "b": ["a"], "c": ["b"]}) == ["c"]
    assert longest_chain({"a": 1, "c": 2}, {"a": [], "b": ["a"], "c": ["b"]}) == 3


def test_a_graph_as_deep_as_it_is_large_is_no_matter() -> None:
    names = [f"t{number}" for number in range(20_000)]
    needs = {name: names[place - 1 : place] if place else [] for place, name in enumerate(names)}
    spans = {name: Span(place, place + 1) for place, name in enumerate(names)}
    assert critical_path(spans, needs) == names
    assert longest_chain(dict.fromkeys(names, 1), needs) == 20_000


@given(
    st.lists(st.tuples(st.integers(0, 20), st.integers(0, 10)).map(lambda pair: Span(pair[0], sum(pair))), max_size=8),
    st.integers(1, 4), st.integers(0, 25), st.integers(0, 10),
)  # fmt: skip
def test_a_profile_tells_how_long_so_many_were_at_work(spans: list[Span], number: int, start: int, length: int) -> None:
    by_hand = sum(
        sum(span.start <= moment < span.end for span in spans) >= number for moment in range(start, start + length)
    )
    assert Profile(spans).time_at_least(number, start, start + length) == by_hand
