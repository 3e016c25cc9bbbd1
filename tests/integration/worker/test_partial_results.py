"""A large result comes whole, though the event loop is set up anew while it comes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from inspect import isgenerator
from types import SimpleNamespace
from typing import Any

import pytest
from celery.concurrency.asynpool import AsynPool
from kombu.asynchronous import Hub

from tasks.worker.partial_results import keep_partial_results
from tests.support.waiting import wait_until

#: Many times what a pipe holds: it comes in many parts.
SIZE_BYTES = 8_000_000


def large(size_bytes: int) -> bytes:
    return b"\1" * size_bytes


class Loop:
    """The worker's event loop, in turns that the test makes."""

    def __init__(self) -> None:
        self.hub = Hub()
        self._turns: Any = None

    def connect(self, pool: AsynPool) -> None:
        """As after a loss of the broker (celery.worker.loops.asynloop)."""
        if self._turns is not None:
            self._turns.close()
            self.hub.reset()
        pool.register_with_event_loop(self.hub)
        self._turns = self.hub.create_loop()

    def turn(self) -> bool:
        next(self._turns)
        return True

    def close(self) -> None:
        self._turns.close()
        self.hub.close()


@pytest.fixture
def pool() -> Iterator[AsynPool]:
    pool = AsynPool(1, threads=False)
    yield pool
    pool.terminate()
    pool.join()


@pytest.fixture
def loop() -> Iterator[Loop]:
    with closing(Loop()) as loop:
        yield loop


def test_a_result_that_has_come_in_part_is_read_to_its_end(pool: AsynPool, loop: Loop) -> None:
    keep_partial_results(SimpleNamespace(_pool=pool))
    results = list[bytes]()
    loop.connect(pool)
    pool.apply_async(large, (SIZE_BYTES,), callback=results.append)
    connections = 0

    def has_come() -> bool:
        nonlocal connections
        loop.turn()
        if any(isgenerator(callback) for callback, _ in loop.hub.readers.values()):
            loop.connect(pool)
            connections += 1
        return bool(results)

    wait_until(has_come, "the result comes")
    assert results == [large(SIZE_BYTES)]
    assert connections
    pool.apply_async(large, (3,), callback=results.append)
    wait_until(lambda: loop.turn() and len(results) > 1, "the next one comes")
    assert results[1:] == [large(3)]
