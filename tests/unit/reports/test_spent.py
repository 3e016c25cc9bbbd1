"""What a wait of a `for_each` was for: permits as long as all were in use, also from one item of a slot to the next."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration.reports.explain.critical_path import Span
from orchestration.reports.explain.model import TimeSpent
from orchestration.reports.explain.spent import HANDOVER_US, Item, held_spans, time_spent
from orchestration.reports.shape import shape_of
from orchestration.store.sessions import SessionRow
from orchestration.store.tasks import TaskRow
from orchestration.vocabulary import NO_ITEM, RunStatus, TaskStatus

NOON = datetime(2026, 11, 2, 12, tzinfo=UTC)
ITEM_MS = 10


def spent_by(slots: int, items: int, gap_ms: float, limit: int, max_concurrent: int = 0, beside: int = 0) -> TimeSpent:
    """A run whose only `for_each` had so many items in so many slots, each `gap_ms` after the one before it.

    Args: beside: plain tasks that run all the time.
    """
    each = {
        "uses": "core.noop",
        "for_each": {"range": items},
        **({"max_concurrent": max_concurrent} if max_concurrent else {}),
    }
    others = {f"beside-{number}": {"uses": "core.noop"} for number in range(beside)}
    shape = shape_of({"name": "w", "actions": {"each": each, **others}})
    first = round(NOON.timestamp() * 1e6)
    starts = [first + round((item // slots) * (ITEM_MS + gap_ms) * 1000) for item in range(items)]
    rows = [Item(item, Span(start, start + ITEM_MS * 1000), "worker") for item, start in enumerate(starts)]
    end = NOON + timedelta(microseconds=rows[-1].span.end - first)
    tasks = {"each": _row("each", NOON, end)} | {name: _row(name, NOON, end) for name in others}
    session = SessionRow("s", NOON.date(), "w", "v", 1, RunStatus.SUCCEEDED, 5, NOON, NOON, end, None, {})
    found = time_spent(session, shape, tasks, {}, {"each": rows}, limit)
    assert found is not None
    return found


def _row(action: str, start: datetime, end: datetime) -> TaskRow:
    return TaskRow(action, NO_ITEM, TaskStatus.SUCCEEDED, 1, "branches", "worker", start, end, None)


@pytest.mark.parametrize("gap_ms", [0.0, 1.0, 30.0])
def test_the_last_of_many_items_waited_for_the_permits_that_the_others_had(gap_ms: float) -> None:
    spent = spent_by(slots=2, items=100, gap_ms=gap_ms, limit=2)
    assert spent.seconds("queueing") == 0
    assert spent.shares()["permits"] == pytest.approx(1 - spent.shares()["running"])


def test_with_fewer_slots_than_permits_it_was_queueing() -> None:
    spent = spent_by(slots=2, items=100, gap_ms=1, limit=3)
    assert spent.seconds("permits") == 0
    assert spent.shares()["queueing"] > 0.9


def test_where_a_slot_was_given_up_between_items_permits_were_free() -> None:
    gap_ms = HANDOVER_US / 1000 + 1
    spent = spent_by(slots=2, items=100, gap_ms=gap_ms, limit=2)
    assert spent.seconds("permits") == pytest.approx(0.049 * ITEM_MS)
    assert spent.seconds("queueing") == pytest.approx(0.049 * gap_ms)


def test_the_limit_of_a_for_each_counts_its_own_items_only() -> None:
    assert spent_by(2, 100, 1, limit=9, max_concurrent=2).seconds("queueing") == 0
    assert spent_by(2, 100, 1, limit=9, max_concurrent=4, beside=2).seconds("permits") == 0


@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 10**5), st.sampled_from("ab")), max_size=30))
def test_who_was_at_work_held_a_permit_and_nobody_held_one_for_longer_than_a_hand_over(
    given_: list[tuple[int, int, str]],
) -> None:
    items = [Item(place, Span(start, start + length), worker) for place, (start, length, worker) in enumerate(given_)]
    held = held_spans(items)
    for moment in {at for item in items for at in (item.span.start, item.span.end - 1)}:
        at_work = sum(item.span.start <= moment < item.span.end for item in items)
        assert at_work <= sum(span.start <= moment < span.end for span in held) <= len(items)
    idle = sum(span.length for span in held) - sum(item.span.length for item in items)
    assert 0 <= idle <= HANDOVER_US * (len(items) - len(held))
