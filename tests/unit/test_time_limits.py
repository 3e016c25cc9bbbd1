"""The timer of a branch: exact, only around user code, off afterwards."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

import pytest
from billiard.exceptions import SoftTimeLimitExceeded

from tasks.canvas import ProcessorTask
from tasks.worker.limits import PoolTimeLimit, guard, unguard

#: As in a pool's child, where no other thread takes the signal.
MAIN = threading.main_thread().ident or 0


def spin(seconds: float) -> int:
    end, turns = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        turns += 1
    return turns


@pytest.mark.parametrize("wait", [time.sleep, spin], ids=["asleep", "computing"])
def test_user_code_is_ended_when_its_time_is_over(wait: object) -> None:
    began = time.monotonic()
    with pytest.raises(SoftTimeLimitExceeded):
        PoolTimeLimit().call(0.05, lambda: wait(5))  # type: ignore[operator]
    assert 0.04 < time.monotonic() - began < 1


def test_a_call_that_ends_in_time_leaves_no_timer_behind() -> None:
    limit = PoolTimeLimit()
    assert limit.call(0.02, lambda: 7) == 7
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    spin(0.05)


def test_no_alarm_escapes_from_calls_that_end_around_their_limit() -> None:
    limit = PoolTimeLimit()
    ended = timed_out = 0
    for round_number in range(3000):
        try:
            limit.call(0.0002, lambda: spin(0.0002 + (round_number % 7 - 3) * 0.00001))  # noqa: B023
            ended += 1
        except SoftTimeLimitExceeded:
            timed_out += 1
    assert ended + timed_out == 3000
    assert ended
    assert timed_out


def test_no_time_left_is_a_timeout_at_once() -> None:
    with pytest.raises(SoftTimeLimitExceeded):
        PoolTimeLimit().call(0.0, lambda: 1)


def test_other_threads_are_called_without_a_timer() -> None:
    results: list[int] = []
    thread = threading.Thread(target=lambda: results.append(PoolTimeLimit().call(0.001, lambda: spin(0.01) and 1)))
    thread.start()
    thread.join()
    assert results == [1]


@pytest.fixture
def soft_limit() -> Iterator[None]:
    """Celery's handler of SIGUSR1, in the middle of a task of ours."""

    def expire(_number: int, _frame: FrameType | None) -> None:
        raise SoftTimeLimitExceeded

    before = signal.signal(signal.SIGUSR1, expire)
    guard(task=ProcessorTask())
    yield
    unguard(task=ProcessorTask())
    signal.signal(signal.SIGUSR1, before)


def test_celerys_soft_limit_waits_for_user_code(soft_limit: None) -> None:
    signal.pthread_kill(MAIN, signal.SIGUSR1)
    spin(0.02)  # engine code: nothing is raised here
    with pytest.raises(SoftTimeLimitExceeded):
        PoolTimeLimit().call(5, lambda: spin(1))
    spin(0.02)


def test_celerys_soft_limit_ends_user_code(soft_limit: None) -> None:
    limit = PoolTimeLimit()
    timer = threading.Timer(0.05, signal.pthread_kill, (MAIN, signal.SIGUSR1))
    timer.start()
    with pytest.raises(SoftTimeLimitExceeded):
        limit.call(5, lambda: spin(2))
    timer.join()
    assert limit.call(5, lambda: 3) == 3


def test_a_soft_limit_that_comes_too_late_is_not_the_next_tasks(soft_limit: None) -> None:
    signal.pthread_kill(MAIN, signal.SIGUSR1)
    unguard(task=ProcessorTask())
    spin(0.02)
    guard(task=ProcessorTask())
    assert PoolTimeLimit().call(5, lambda: 3) == 3
