"""The time limit of a call: exact, only in user code, gone afterwards; what does not end is given up and then ended."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, TypeVar

import pytest
from billiard.exceptions import SoftTimeLimitExceeded
from billiard.pool import soft_timeout_sighandler

from orchestration.engine.invoke import Call, GivenUp
from orchestration.registry import ActionSpec
from tasks.canvas import ProcessorTask
from tasks.worker.limits import PoolTimeLimit, guard, unguard
from tasks.worker.limits.calls import ThreadCall
from tests.support.places import everywhere, in_thread, spin

T = TypeVar("T")

#: As in a pool's child, where no other thread takes the signal.
MAIN = threading.main_thread().ident or 0


def call_of(seconds: float) -> Call:
    """A call that may take so long."""

    def unused(_: Call) -> Any:
        raise AssertionError

    spec = ActionSpec("test.any", unused, is_async=False, takes_context=False, parameters={}, accepts_any=False)
    return Call(spec, {}, unused, seconds, "any", -1, 1)


def limited(seconds: float, function: Callable[[], T], limit: PoolTimeLimit | None = None) -> T:
    """Call the function under a limit, in this thread."""
    value: T = (limit or PoolTimeLimit()).call(call_of(seconds), function)
    return value


@everywhere
def test_user_code_is_ended_when_its_time_is_over(place: Callable[[Callable[[], int]], int]) -> None:
    began = time.monotonic()
    with pytest.raises(SoftTimeLimitExceeded):
        place(lambda: limited(0.05, lambda: spin(5)))
    assert 0.04 < time.monotonic() - began < 1


def test_a_signal_ends_a_call_that_waits() -> None:
    began = time.monotonic()
    with pytest.raises(SoftTimeLimitExceeded):
        limited(0.05, lambda: time.sleep(5))
    assert 0.04 < time.monotonic() - began < 1


@everywhere
def test_a_call_that_ends_in_time_leaves_no_limit_behind(place: Callable[[Callable[[], int]], int]) -> None:
    def work() -> int:
        value = limited(0.02, lambda: 7)
        spin(0.05)
        return value

    assert place(work) == 7
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


@everywhere
def test_no_limit_escapes_from_calls_that_end_around_their_time(place: Callable[[Callable[[], int]], int]) -> None:
    def work() -> int:
        limit, timed_out = PoolTimeLimit(), 0
        for round_number in range(2000):
            try:
                limited(0.0004, lambda: spin(0.0004 + (round_number % 7 - 3) * 0.00004), limit)  # noqa: B023
            except SoftTimeLimitExceeded:
                timed_out += 1
        return timed_out

    assert 0 < place(work) < 2000


@everywhere
def test_a_debugger_can_trace_what_runs_after_a_limit(place: Callable[[Callable[[], int]], int]) -> None:
    """CPython 3.11 traces no code while it looks for an exception that was thrown and taken back."""

    def end_late() -> int:
        with suppress(SoftTimeLimitExceeded):
            return spin(5)
        return 0

    def traced() -> None:
        sys.settrace(lambda *_: None)
        spin(0)
        sys.settrace(None)

    with pytest.raises(SoftTimeLimitExceeded):
        place(lambda: limited(0.01, end_late))
    thread = threading.Thread(target=traced, daemon=True)
    thread.start()
    thread.join(10)
    assert not thread.is_alive()


def test_no_time_left_is_a_timeout_at_once() -> None:
    with pytest.raises(SoftTimeLimitExceeded):
        limited(0.0, lambda: 1)


@everywhere
def test_what_a_call_gives_after_its_time_is_not_taken(place: Callable[[Callable[[], int]], int]) -> None:
    def clean_up() -> int:
        with suppress(SoftTimeLimitExceeded):
            spin(5)
        return 7

    with pytest.raises(SoftTimeLimitExceeded):
        place(lambda: limited(0.05, clean_up))


@everywhere
def test_a_call_that_does_not_end_is_given_up_and_ended_after_the_grace(
    place: Callable[[Callable[[], int]], int],
) -> None:
    told: list[tuple[float, threading.Thread]] = []
    began = time.monotonic()

    def late(call: Call, began_ns: int, blocks: bool) -> None:
        del call, began_ns, blocks
        told.append((time.monotonic() - began, threading.current_thread()))

    def swallow() -> int:
        while True:
            with suppress(Exception):
                spin(5)

    def work() -> int:
        value: int = PoolTimeLimit(grace_seconds=0.4).call(call_of(0.1), swallow, late)
        return value

    with pytest.raises(GivenUp):
        place(work)
    ended = time.monotonic() - began
    ((after, thread),) = told
    assert 0.19 < after < 0.1 + 0.75 * (ended - 0.1), "in good time, and before the grace is over"
    assert thread not in (threading.main_thread(), threading.current_thread())
    assert 0.45 < ended < 2


class Noted:
    """What was said of calls that can't be ended."""

    def __init__(self) -> None:
        self.stuck = threading.Event()
        self.back: list[ThreadCall] = []

    def report(self, call: ThreadCall) -> None:
        del call
        self.stuck.set()

    def came_back(self, call: ThreadCall) -> None:
        self.back.append(call)


def test_a_thread_that_waits_in_c_is_reported_and_may_come_back() -> None:
    noted = Noted()
    limit = PoolTimeLimit(grace_seconds=0.15, stuck=noted)

    def wait_in_c() -> bool:
        return noted.stuck.wait(20)

    with pytest.raises(GivenUp):
        in_thread(lambda: limit.call(call_of(0.05), wait_in_c, lambda *_: None))
    assert len(noted.back) == 1


@pytest.fixture
def soft_limit() -> Iterator[None]:
    """Celery's handler of SIGUSR1, in the middle of a task of ours."""
    before = signal.signal(signal.SIGUSR1, soft_timeout_sighandler)
    guard(task=ProcessorTask())
    yield
    unguard(task=ProcessorTask())
    signal.signal(signal.SIGUSR1, before)


def test_celerys_soft_limit_waits_for_user_code(soft_limit: None) -> None:
    signal.pthread_kill(MAIN, signal.SIGUSR1)
    spin(0.02)  # engine code: nothing is raised here
    with pytest.raises(SoftTimeLimitExceeded):
        limited(5, lambda: spin(1))
    spin(0.02)


def test_celerys_soft_limit_ends_user_code(soft_limit: None) -> None:
    timer = threading.Timer(0.05, signal.pthread_kill, (MAIN, signal.SIGUSR1))
    timer.start()
    with pytest.raises(SoftTimeLimitExceeded):
        limited(5, lambda: spin(2))
    timer.join()
    assert limited(5, lambda: 3) == 3


def test_celerys_soft_limit_ends_a_task_that_is_not_ours(soft_limit: None) -> None:
    unguard(task=ProcessorTask())
    timer = threading.Timer(0.05, signal.pthread_kill, (MAIN, signal.SIGUSR1))
    timer.start()
    with pytest.raises(SoftTimeLimitExceeded):
        spin(2)
    timer.join()


def test_another_handler_of_the_signal_is_left_alone() -> None:
    seen: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, _: seen.append(number))
    try:
        guard(task=ProcessorTask())
        signal.pthread_kill(MAIN, signal.SIGUSR1)
        assert limited(5, lambda: 3) == 3
        unguard(task=ProcessorTask())
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert seen == [signal.SIGUSR1]


def test_a_soft_limit_that_comes_too_late_is_not_the_next_tasks(soft_limit: None) -> None:
    signal.pthread_kill(MAIN, signal.SIGUSR1)
    unguard(task=ProcessorTask())
    spin(0.02)
    guard(task=ProcessorTask())
    assert limited(5, lambda: 3) == 3
