"""Redis's clock as a process knows it: within the bounds of what Redis has said, and in order within a claim."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from orchestration.state.clock import FRESH_NS, RedisClock, Timeline

NS = st.integers(0, 10**15)


@given(
    st.lists(st.tuples(NS, st.integers(0, 10**9), st.integers(0, 10**9), st.integers(-(10**12), 10**12)), min_size=1)
)
def test_the_clock_keeps_within_what_redis_said_last(calls: list[tuple[int, int, int, int]]) -> None:
    clock = RedisClock()
    for before_ns, until_redis_ns, back_ns, difference_us in calls:
        redis_ns = before_ns + until_redis_ns
        after_ns = redis_ns + back_ns
        redis_us = redis_ns // 1000 + difference_us
        clock.observe(redis_us, before_ns, after_ns)
        assert clock.us(before_ns) <= redis_us <= clock.us(after_ns) + 1
        assert clock.is_fresh(after_ns)
        assert not clock.is_fresh(after_ns + FRESH_NS)


def test_a_difference_that_still_fits_is_kept() -> None:
    clock = RedisClock()
    clock.observe(1_000_000, 0, 2_000)
    before = clock.us(5_000)
    clock.observe(1_000_003, 0, 10_000)
    assert clock.us(5_000) == before


@given(since_us=st.integers(0, 10**9), moments=st.lists(st.integers(0, 10**12), min_size=2))
def test_what_a_claim_runs_never_overlaps_and_never_begins_before_it(since_us: int, moments: list[int]) -> None:
    clock = RedisClock()
    clock.observe(500_000, 0, 1_000_000_000)
    timeline = Timeline(clock, since_us)
    ended_us = since_us
    moments.sort()
    for began_ns, over_ns in zip(moments[::2], moments[1::2], strict=False):
        started_us, finished_us = timeline.span_us(began_ns, over_ns)
        assert ended_us <= started_us <= finished_us
        ended_us = finished_us


def test_nothing_ends_before_it_began_when_the_clock_is_corrected_meanwhile() -> None:
    clock = RedisClock()
    clock.observe(500_000, 0, 1_000_000_000)  # half a second either way
    timeline = Timeline(clock, 0)
    began_us = timeline.start_us(2_000_000_000)
    clock.observe(1_600_000, 1_999_999_000, 2_000_001_000)  # it is 0.4 s earlier than was thought
    assert timeline.start_us(2_100_000_000) >= began_us
    assert timeline.span_us(2_100_000_000, 2_200_000_000)[0] >= began_us


def test_what_was_seen_to_begin_did_not_begin_earlier_when_the_clock_is_corrected() -> None:
    clock = RedisClock()
    clock.observe(500_000, 0, 1_000_000_000)
    timeline = Timeline(clock, 0)
    seen_us = timeline.seen_us(2_000_000_000)
    clock.observe(1_600_000, 1_999_999_000, 2_000_001_000)
    assert timeline.span_us(2_000_000_000, 2_100_000_000)[0] == seen_us


@given(
    difference_ns=st.integers(-(10**9), 10**9),
    calls=st.lists(st.tuples(NS, st.integers(0, 10**9), st.integers(0, 10**9)), min_size=1),
    at_ns=NS,
)
def test_redis_shows_no_later_time_than_the_latest(
    difference_ns: int, calls: list[tuple[int, int, int]], at_ns: int
) -> None:
    clock = RedisClock()
    for before_ns, until_redis_ns, back_ns in calls:
        redis_ns = before_ns + until_redis_ns
        clock.observe((redis_ns + difference_ns) // 1000, before_ns, redis_ns + back_ns)
    assert clock.us(at_ns) <= clock.latest_us(at_ns)
    assert (at_ns + difference_ns) // 1000 <= clock.latest_us(at_ns)


def test_who_looks_on_late_tells_when_it_began_not_what_has_ended_since() -> None:
    clock = RedisClock()
    clock.observe(1_000_000, 1_000_000_000, 1_000_000_000)
    timeline = Timeline(clock, 1_000_000)
    _, ended_us = timeline.span_us(2_000_000_000, 2_040_000_000)
    timeline.start_us(2_080_000_000)
    assert timeline.seen_us(2_000_000_000) == 2_000_000 < ended_us
    assert timeline.seen_us(0) == 1_000_000
