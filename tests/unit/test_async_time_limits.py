"""The time of an async action does not go on while another one keeps their event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from orchestration.engine.cancellation import Cancellation
from orchestration.engine.invoke import Call, Invocation, invoke_async
from orchestration.vocabulary import TaskStatus
from tasks.worker.limits import PoolTimeLimit
from tests.support.calls import call_of
from tests.support.places import spin

LIMIT = PoolTimeLimit()
#: Of each action, seconds.
TIME = 0.6


async def _keeps_at_once() -> int:
    return spin(5)


async def _keeps_when_others_have_begun() -> int:
    await asyncio.sleep(0.01)
    return spin(5)


async def _keeps_within_its_time() -> int:
    await asyncio.sleep(0.01)
    return spin(0.7 * TIME)


async def _waits_twice() -> int:
    await asyncio.sleep(0.2 * TIME)
    await asyncio.sleep(0.2 * TIME)
    return 7


async def _waits_for_ever() -> None:
    await asyncio.Event().wait()


def _beside(
    *functions: Callable[[], Coroutine[Any, Any, Any]], latest_ns: int | None = None
) -> list[tuple[Call, Invocation]]:
    """What becomes of them on one event loop."""
    calls = [call_of(function, Cancellation(), TIME) for function in functions]
    for call in calls:
        call.latest_ns = latest_ns

    async def run() -> list[Invocation]:
        return await asyncio.gather(*(invoke_async(call, LIMIT) for call in calls))

    return list(zip(calls, asyncio.run(run()), strict=True))


@pytest.mark.parametrize("keeps", [_keeps_at_once, _keeps_when_others_have_begun])
def test_who_keeps_the_loop_over_its_time_takes_nothing_of_the_time_of_others(
    keeps: Callable[[], Coroutine[Any, Any, int]],
) -> None:
    (_, over), (_, beside) = _beside(keeps, _waits_twice)
    assert over.status is TaskStatus.TIMED_OUT
    assert (beside.status, beside.value) == (TaskStatus.SUCCEEDED, 7)


def test_who_keeps_the_loop_within_its_time_takes_nothing_of_the_time_of_others() -> None:
    (_, slow), (_, beside) = _beside(_keeps_within_its_time, _waits_twice)
    assert (slow.status, beside.status) == (TaskStatus.SUCCEEDED, TaskStatus.SUCCEEDED)


def test_what_was_taken_is_known_to_the_branch() -> None:
    (keeps, _), (kept, _) = _beside(_keeps_at_once, _waits_twice)
    assert keeps.kept_ns == 0, "its own step is its own time"
    assert kept.kept_ns >= TIME * 1e9


def test_who_never_ends_is_ended_after_its_own_time_and_what_was_taken_of_it() -> None:
    (_, _), (kept, beside) = _beside(_keeps_when_others_have_begun, _waits_for_ever)
    assert beside.status is TaskStatus.TIMED_OUT
    assert beside.finished_ns - beside.started_ns >= TIME * 1e9 + kept.kept_ns


def test_what_was_taken_is_not_given_back_behind_the_deadline_of_the_run() -> None:
    deadline_ns = time.monotonic_ns() + int(1.2 * TIME * 1e9)
    (_, _), (kept, beside) = _beside(_keeps_when_others_have_begun, _waits_for_ever, latest_ns=deadline_ns)
    assert beside.status is TaskStatus.TIMED_OUT
    assert deadline_ns <= beside.finished_ns < beside.started_ns + TIME * 1e9 + kept.kept_ns


def test_all_who_keep_the_loop_have_their_own_time() -> None:
    """Those that come later must not begin over their time, when nothing ends them but the grace (5 s)."""
    for _, ended in _beside(_keeps_at_once, _keeps_at_once, _keeps_at_once):
        assert ended.status is TaskStatus.TIMED_OUT
        assert ended.finished_ns - ended.started_ns < 3 * TIME * 1e9 + 2e9
