"""What changes on its own, read once for all who watch it.

One reader for each thing that is watched, however many watch it, and none when nobody does. Who is slow sees the newest
state, not each state.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from orchestration.errors import ServiceUnreachable

if TYPE_CHECKING:
    from tasks.dashboard.reads import Reads

_log = logging.getLogger(__name__)

#: What takes long is read less often: it rests so many times as long as it took.
REST = 4
_UNFORESEEN = "this can't be read; Flower's log says why"


class Feed:
    """The newest state of one thing; `value` is None until it has been read."""

    def __init__(self) -> None:
        self.value: Any = None
        #: Rises with each change of `value` and `trouble`.
        self.number = 0
        #: Why the newest state is not known, for people; empty: it is.
        self.trouble = ""
        self._changed = asyncio.Condition()

    async def newer_than(self, number: int, seconds: float) -> bool:
        """Return when there is something newer; False: there is not within `seconds`."""
        async with self._changed:
            try:
                await asyncio.wait_for(self._changed.wait_for(lambda: self.number > number), seconds)
            except TimeoutError:
                return False
        return True

    async def put(self, value: Any, trouble: str = "") -> None:
        """The newest state, for all who wait for it; nothing happens when it is what it was."""
        if self.number and value == self.value and trouble == self.trouble:
            return
        async with self._changed:
            self.value, self.trouble = value, trouble
            self.number += 1
            self._changed.notify_all()


class Feeds:
    """All that is watched in this process."""

    def __init__(self, reads: Reads) -> None:
        self._reads = reads
        self._feeds: dict[str, tuple[Feed, asyncio.Task[None]]] = {}
        self._watchers: dict[str, int] = {}

    @asynccontextmanager
    async def watch(self, name: str, read: Callable[[], Any], seconds: float) -> AsyncIterator[Feed]:
        """The feed of this name, which is read for as long as anybody is in such a block.

        Args: read: gives the state; called in a thread. seconds: from the end of a read to the next.
        """
        if name not in self._feeds:
            feed = Feed()
            self._feeds[name] = (feed, asyncio.create_task(self._keep(feed, read, seconds), name=f"feed {name}"))
        self._watchers[name] = self._watchers.get(name, 0) + 1
        try:
            yield self._feeds[name][0]
        finally:
            self._watchers[name] -= 1
            if not self._watchers[name]:
                del self._watchers[name]
                self._feeds.pop(name)[1].cancel()

    def close(self) -> None:
        """Nothing is read any more."""
        for _, task in self._feeds.values():
            task.cancel()

    async def _keep(self, feed: Feed, read: Callable[[], Any], seconds: float) -> None:
        while True:
            began = time.monotonic()
            try:
                await feed.put(await self._reads.run(read))
            except ServiceUnreachable as error:
                await feed.put(feed.value, str(error))
            except Exception:  # noqa: BLE001 - the page says so, and the next read may do
                if feed.trouble != _UNFORESEEN:
                    _log.exception("a page can't be kept up to date")
                await feed.put(feed.value, _UNFORESEEN)
            await asyncio.sleep(max(seconds, REST * (time.monotonic() - began)))
