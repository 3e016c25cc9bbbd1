"""Who joins those that look at a run sees it no older than they do."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

from orchestration.reports import picture
from tasks.dashboard import run_watch
from tasks.dashboard.run_watch import RunWatches, Viewer


class Reads:
    """A run whose progress the test says; one read of somebody who joins takes long."""

    database = live = None

    def __init__(self) -> None:
        self.progress = 1
        self.is_slow = False
        self.asked, self.may_answer = asyncio.Event(), asyncio.Event()

    async def run(self, question: Any, _database: object, _live: object, _run: str, *given: Any) -> Any:
        if question is not picture.changes:
            return []
        run = {"finished_at": None}
        found = {"now": 0, "run": run, "progress": [self.progress], "rows": [], "mark": str(self.progress)}
        if self.is_slow and len(given) == 1:
            self.is_slow = False
            self.asked.set()
            await self.may_answer.wait()
        return found


async def progress_of(viewer: Viewer) -> int:
    frame = await viewer.next(30)
    assert frame is not None
    return int(orjson.loads(frame[1])["progress"]["0"])


def test_who_joins_is_not_told_what_was_before_what_others_have_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_watch, "FRAME_SECONDS", 0.001)

    async def look() -> None:
        reads = Reads()
        watches = RunWatches(reads)  # type: ignore[arg-type]  # all that is asked of it

        async def join() -> int:
            async with watches.look("run", "1") as second:
                progress = await progress_of(second)
                while second.has_frames:
                    progress = await progress_of(second)
                return progress

        async with watches.look("run", "1") as first:
            assert await progress_of(first) == 1
            reads.is_slow = True
            joining = asyncio.create_task(join())
            await reads.asked.wait()
            reads.progress = 2
            while await progress_of(first) != 2:
                pass
            reads.may_answer.set()
            assert await joining == 2

    asyncio.run(look())
