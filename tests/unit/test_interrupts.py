"""Cancelled in user code: raised once, in the calls of its session only, and never when a call has ended."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import pytest
from billiard.exceptions import SoftTimeLimitExceeded

from orchestration.engine.cancellation import Cancellation
from orchestration.engine.invoke import Invocation, invoke, invoke_async
from orchestration.errors import Cancelled
from orchestration.vocabulary import TaskStatus
from tasks.worker.limits import PoolTimeLimit
from tests.support.calls import call_of
from tests.support.places import everywhere, in_thread, spin

LIMIT = PoolTimeLimit()


def cancel(cancellation: Cancellation) -> None:
    """As the flushing thread does."""
    cancellation.set(time.monotonic_ns())
    LIMIT.interrupt()


class Interrupted:
    """A call that another thread cancels when it has begun."""

    def __init__(self, cancellation: Cancellation, cancelled: Cancellation | None = None) -> None:
        self.cancellation = cancellation
        self.begun, self._ended = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._cancel, args=(cancelled or cancellation,))
        self._thread.start()

    def _cancel(self, cancelled: Cancellation) -> None:
        assert self.begun.wait(10)
        cancel(cancelled)
        while not self._ended.wait(0.02):
            LIMIT.interrupt()

    def run(self, function: Callable[[], Any], seconds: float = 5.0) -> Invocation:
        def begin() -> Any:
            self.begun.set()
            return function()

        ended = invoke(call_of(begin, self.cancellation, seconds), LIMIT)
        self._ended.set()
        self._thread.join()
        return ended


@everywhere
def test_an_action_whose_session_is_cancelled_gets_cancelled(place: Callable[[Callable[[], Any]], Any]) -> None:
    ended = place(lambda: Interrupted(Cancellation()).run(lambda: spin(5)))
    assert ended.status is TaskStatus.CANCELLED
    assert (type(ended.error), str(ended.error)) == (Cancelled, "the flow session was cancelled")
    assert ended.finished_ns - ended.started_ns < 2e9


def test_a_call_that_waits_in_the_main_thread_is_ended_by_it() -> None:
    ended = Interrupted(Cancellation()).run(lambda: time.sleep(5))
    assert ended.status is TaskStatus.CANCELLED
    assert ended.finished_ns - ended.started_ns < 2e9


@everywhere
def test_what_an_action_makes_of_it_is_taken(place: Callable[[Callable[[], Any]], Any]) -> None:
    def clean_up() -> int:
        with suppress(Cancelled):
            spin(5)
        return 7

    ended = place(lambda: Interrupted(Cancellation()).run(clean_up))
    assert (ended.status, ended.value) == (TaskStatus.SUCCEEDED, 7)


@everywhere
def test_its_time_limit_stays_in_force(place: Callable[[Callable[[], Any]], Any]) -> None:
    def go_on() -> None:
        with suppress(Cancelled):
            spin(5)
        spin(5)

    ended = place(lambda: Interrupted(Cancellation()).run(go_on, seconds=0.4))
    assert ended.status is TaskStatus.TIMED_OUT
    assert isinstance(ended.error, SoftTimeLimitExceeded)
    assert ended.finished_ns - ended.started_ns < 2e9


@everywhere
def test_an_action_of_another_session_goes_on(place: Callable[[Callable[[], Any]], Any]) -> None:
    ended = place(lambda: Interrupted(Cancellation(), Cancellation()).run(lambda: spin(0.2)))
    assert ended.status is TaskStatus.SUCCEEDED


@everywhere
def test_an_action_of_a_session_that_was_cancelled_does_not_begin(place: Callable[[Callable[[], Any]], Any]) -> None:
    cancellation = Cancellation()
    cancel(cancellation)
    began: list[int] = []
    assert place(lambda: invoke(call_of(lambda: began.append(1), cancellation), LIMIT)).status is TaskStatus.CANCELLED
    assert not began


@everywhere
def test_nothing_is_raised_outside_of_calls_that_end_around_the_moment(
    place: Callable[[Callable[[], Any]], Any],
) -> None:
    turns: list[tuple[threading.Event, Cancellation]] = [(threading.Event(), Cancellation()) for _ in range(1000)]

    def cancel_each() -> None:
        for number, (begun, cancellation) in enumerate(turns):
            begun.wait()
            spin(0.0001 * (number % 7))
            cancel(cancellation)

    def work() -> set[TaskStatus]:
        found = set()
        for begun, cancellation in turns:

            def act(begun: threading.Event = begun) -> None:
                begun.set()
                spin(0.0003)

            found.add(invoke(call_of(act, cancellation), LIMIT).status)
            spin(0.0003)  # engine code
        return found

    canceller = threading.Thread(target=cancel_each)
    canceller.start()
    found = place(work)
    canceller.join()
    assert found == {TaskStatus.SUCCEEDED, TaskStatus.CANCELLED}


async def _waits() -> None:
    await asyncio.sleep(5)


async def _cleans_up() -> int:
    with suppress(asyncio.CancelledError):
        await asyncio.sleep(5)
    return 7


ASYNC = pytest.mark.parametrize(
    ("function", "expected"), [(_waits, (TaskStatus.CANCELLED, None)), (_cleans_up, (TaskStatus.SUCCEEDED, 7))]
)


@ASYNC
def test_an_async_action_beside_others_is_cancelled_by_its_loop(
    function: Callable[[], Coroutine[Any, Any, Any]], expected: tuple[TaskStatus, int | None]
) -> None:
    cancellation = Cancellation()

    async def run() -> tuple[Invocation, Invocation]:
        both = asyncio.gather(
            invoke_async(call_of(function, cancellation), LIMIT),
            invoke_async(call_of(_waits, Cancellation(), 0.3), LIMIT),
        )
        await asyncio.sleep(0.05)
        await asyncio.to_thread(cancel, cancellation)
        return await both

    ended, beside = asyncio.run(run())
    assert (ended.status, ended.value) == expected
    assert beside.status is TaskStatus.TIMED_OUT, "of another session: its own time limit has ended it"


@ASYNC
def test_an_async_action_alone_is_cancelled_by_its_loop(
    function: Callable[[], Coroutine[Any, Any, Any]], expected: tuple[TaskStatus, int | None]
) -> None:
    cancellation, begun = Cancellation(), threading.Event()

    async def begin() -> Any:
        begun.set()
        return await function()

    def cancel_it() -> None:
        assert begun.wait(10)
        cancel(cancellation)

    canceller = threading.Thread(target=cancel_it)
    canceller.start()
    ended = in_thread(lambda: invoke(call_of(begin, cancellation), LIMIT))
    canceller.join()
    assert (ended.status, ended.value) == expected


def test_an_async_action_of_a_session_that_was_cancelled_does_not_begin() -> None:
    cancellation = Cancellation()
    cancel(cancellation)
    began: list[int] = []

    async def note() -> None:
        began.append(1)

    assert asyncio.run(invoke_async(call_of(note, cancellation), LIMIT)).status is TaskStatus.CANCELLED
    assert invoke(call_of(note, cancellation), LIMIT).status is TaskStatus.CANCELLED
    assert not began
