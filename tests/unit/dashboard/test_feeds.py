"""What is watched is read once for all, and not at all when nobody watches."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from orchestration.errors import ServiceUnreachable
from tasks.dashboard.feeds import Feeds


class Reads:
    """Reads in the loop itself."""

    async def run(self, read: Callable[[], Any]) -> Any:
        return read()


class Counter:
    """A state that changes with each read."""

    def __init__(self) -> None:
        self.reads = 0
        self.error: Exception | None = None

    def read(self) -> int:
        self.reads += 1
        if self.error is not None:
            raise self.error
        return self.reads


def run(watch: Callable[[Feeds, Counter], Any]) -> None:
    asyncio.run(watch(Feeds(Reads()), Counter()))  # type: ignore[arg-type]


def test_several_watchers_share_a_reader_that_ends_with_the_last() -> None:
    async def watch(feeds: Feeds, counter: Counter) -> None:
        async with feeds.watch("one", counter.read, 0.001) as first:
            async with feeds.watch("one", counter.read, 0.001) as second:
                assert first is second
                assert await first.newer_than(0, 5)
            assert await first.newer_than(first.number, 5), "the other watcher has gone, this one goes on"
        after = counter.reads
        await asyncio.sleep(0.05)
        assert counter.reads == after
        assert [task for task in asyncio.all_tasks() if task.get_name().startswith("feed")] == []

    run(watch)


def test_who_is_slow_gets_the_newest_state_and_no_state_twice() -> None:
    async def watch(feeds: Feeds, counter: Counter) -> None:
        async with feeds.watch("one", lambda: min(counter.read(), 3), 0.001) as feed:
            seen = 0
            while feed.value != 3:
                assert await feed.newer_than(seen, 5)
                seen = feed.number
            assert not await feed.newer_than(feed.number, 0.05), "nothing has changed"

    run(watch)


@pytest.mark.parametrize(
    ("error", "told"),
    [(ServiceUnreachable("Redis is away"), "Redis is away"), (KeyError("secret"), "Flower's log says why")],
)
def test_what_cant_be_read_is_said_and_read_again(error: Exception, told: str) -> None:
    async def watch(feeds: Feeds, counter: Counter) -> None:
        async with feeds.watch("one", counter.read, 0.001) as feed:
            await feed.newer_than(0, 5)
            value, counter.error = feed.value, error
            while not feed.trouble:
                assert await feed.newer_than(feed.number, 5)
            assert told in feed.trouble
            assert "secret" not in feed.trouble
            assert feed.value >= value, "what was known last stays"
            counter.error = None
            while feed.trouble:
                assert await feed.newer_than(feed.number, 5)

    run(watch)


def test_what_takes_long_is_read_less_often() -> None:
    async def watch(feeds: Feeds, counter: Counter) -> None:
        pause = threading.Event()

        def slow() -> int:
            pause.wait(0.05)
            return counter.read()

        async with feeds.watch("one", slow, 0.001) as feed:
            await feed.newer_than(0, 5)
            began = asyncio.get_running_loop().time()
            await feed.newer_than(feed.number, 5)
            assert asyncio.get_running_loop().time() - began > 0.2

    run(watch)
