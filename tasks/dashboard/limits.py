"""The page about limits: how all of them stand, a second apart."""

from __future__ import annotations

import orjson

from orchestration.reports.limits import LimitsView
from tasks.dashboard.handlers import StreamHandler

LOOK_SECONDS = 1.0


class LimitsStream(StreamHandler):
    """`/flow/stream/limits`: every limit, queue and rate limit. Query: open, the limit whose holders are shown too."""

    async def get(self) -> None:
        opened = self.plain_argument("open")[:400]
        view = LimitsView(self.application.reads.live, opened)
        async with self.application.feeds.watch(
            f"limits {opened}", lambda: orjson.dumps(view.read()), LOOK_SECONDS
        ) as feed:
            await self.follow(feed, "limits")
