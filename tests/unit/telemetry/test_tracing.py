"""Ids, `traceparent` and bounds of a session's spans."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration.telemetry.tracing import (
    FIRST_ITEMS,
    MOST_ITEMS,
    SLOW_US,
    SessionTrace,
    chunk_has_span,
    has_own_span,
    own_trace_id,
    parse_traceparent,
    session_trace,
)

SESSION = "0f0e0d0c-0b0a-4908-8706-050403020100"
TRACE, SPAN = "5b8aa5a2d2c872e8321cf37308d69df2", "051581bf3cb55c13"


def trace_of(session: str = SESSION, caller: int | None = None, *, is_sampled: bool = True) -> SessionTrace:
    return SessionTrace(session, own_trace_id(session), caller, is_sampled, 1)


def test_ids_are_the_same_in_every_process() -> None:
    trace = trace_of()
    assert f"{own_trace_id(SESSION):032x}" == "6e7dbf328ffc4520e2f2c76b3369adce"
    assert f"{trace.lifecycle_id:016x}" == "772801ee60dd1a1d"
    assert trace.branch_id("a") == trace_of().branch_id("a")


def test_no_two_spans_of_a_session_have_one_id() -> None:
    trace = trace_of()
    names = ["a", "b", "a/1", "1", "lifecycle"]
    ids = [trace.lifecycle_id, trace.execution_id, *(trace.branch_id(name) for name in names)]
    ids += [trace.task_id(name, item, attempt) for name in names for item in (-1, 0, 1) for attempt in (1, 2)]
    ids += [trace.chunk_id(name, start, 1) for name in names for start in (0, 1, 256)]
    assert len(set(ids)) == len(ids)
    assert not set(ids) & {trace_of("another").lifecycle_id, trace_of("another").branch_id("a")}


@given(st.one_of(st.none(), st.integers(1, 2**64 - 1)), st.booleans())
def test_a_trace_is_the_same_after_it_was_recorded(caller: int | None, is_sampled: bool) -> None:
    trace = trace_of(caller=caller, is_sampled=is_sampled)
    assert session_trace(SESSION, trace.traceparent, 1) == trace


def test_a_traceparent_is_understood() -> None:
    assert parse_traceparent(f"00-{TRACE}-{SPAN}-01") == (int(TRACE, 16), int(SPAN, 16), True)
    assert parse_traceparent(f"00-{TRACE}-{SPAN}-02") == (int(TRACE, 16), int(SPAN, 16), False)
    assert parse_traceparent(f"cc-{TRACE}-{SPAN}-01-what-comes-later") == (int(TRACE, 16), int(SPAN, 16), True)


@pytest.mark.parametrize(
    "text",
    [
        None, 1, b"", "", "00", f"00-{TRACE}-{SPAN}", f"ff-{TRACE}-{SPAN}-01", f"00-{TRACE}-{SPAN}-01-more",
        f"00-{'0' * 32}-{SPAN}-01", f"00-{TRACE}-{'0' * 16}-01", f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-1", f" 00-{TRACE}-{SPAN}-01", f"00-{TRACE}-{SPAN}-01\n",
    ],
)  # fmt: skip
def test_what_is_no_traceparent_begins_no_trace(text: object) -> None:
    assert parse_traceparent(text) is None
    assert session_trace(SESSION, text, 1) is None


def test_the_first_have_spans_further_ones_if_slow_and_what_failed_in_any_case() -> None:
    assert has_own_span(FIRST_ITEMS - 1, 0, failed=False)
    assert not has_own_span(FIRST_ITEMS, SLOW_US - 1, failed=False)
    assert has_own_span(FIRST_ITEMS, SLOW_US, failed=False)
    assert not has_own_span(MOST_ITEMS, 10**9, failed=False)
    assert has_own_span(MOST_ITEMS, 0, failed=True)


@given(st.integers(1, 3_000_000), st.integers(1, 256))
def test_chunks_that_have_a_span_are_bounded_whatever_their_size(size: int, count: int) -> None:
    count = max(count, size // 20_000)  # so that the test itself is quick
    shown = sum(chunk_has_span(start, min(count, size - start), size) for start in range(0, size, count))
    assert shown <= MOST_ITEMS
    if size > FIRST_ITEMS:
        assert shown >= min(MOST_ITEMS, (size - FIRST_ITEMS) // count) // 2
