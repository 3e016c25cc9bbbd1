"""Threads in which user code runs: the main thread of a process, or another one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

import pytest

T = TypeVar("T")


def spin(seconds: float) -> int:
    """Compute for so long; returns the turns."""
    end, turns = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        turns += 1
    return turns


def in_main(work: Callable[[], T]) -> T:
    """Do it in this thread, the main one."""
    return work()


def in_thread(work: Callable[[], T]) -> T:
    """Do it in a thread of its own, and give or raise what it does."""
    done: list[T] = []
    raised: list[BaseException] = []

    def run() -> None:
        try:
            done.append(work())
        except BaseException as error:  # noqa: BLE001 - raised below
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if raised:
        raise raised[0]
    return done[0]


everywhere = pytest.mark.parametrize("place", [in_main, in_thread])
