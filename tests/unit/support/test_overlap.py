"""The checker of limits itself: it must see a breach, and must not see one where there is none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.overlap import Span, Spell, breaches

SPANS = st.lists(
    st.tuples(st.integers(0, 30), st.integers(1, 10)).map(lambda pair: Span(pair[0], pair[0] + pair[1])), max_size=20
)


@given(SPANS, st.integers(1, 5))
def test_it_finds_a_breach_exactly_where_counting_each_moment_does(spans: list[Span], limit: int) -> None:
    most = max((sum(span.begin <= at < span.end for span in spans) for at in range(41)), default=0)
    assert bool(breaches(spans, [Spell(limit)])) == (most > limit)


def test_one_that_starts_when_another_ends_is_not_beside_it() -> None:
    assert not breaches([Span(0, 5), Span(5, 9)], [Spell(1)])


@pytest.mark.parametrize(("start", "broken"), [(9, False), (10, False), (12, False), (13, True)])
def test_a_lowered_limit_lets_run_what_runs_and_holds_from_its_answer_on(start: int, broken: bool) -> None:
    spells = [Spell(2, 0, 12), Spell(1, 10)]
    assert bool(breaches([Span(0, 20), Span(start, 20)], spells)) is broken


def test_no_limit_allows_everything() -> None:
    assert not breaches([Span(0, 5)] * 50, [Spell(None)])
