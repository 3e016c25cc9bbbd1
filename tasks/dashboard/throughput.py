"""The page about throughput: the last minutes, hour or day."""

from __future__ import annotations

import orjson
from tornado.web import HTTPError

from orchestration.reports.throughput import SPANS, throughput
from tasks.dashboard.handlers import StreamHandler

#: Span → from one look to the next, s.
LOOK_SECONDS = {300: 2.0, 3600: 10.0, 86_400: 30.0}


class ThroughputStream(StreamHandler):
    """`/flow/stream/throughput`. Query: span, in seconds, one of SPANS."""

    async def get(self) -> None:
        text = self.plain_argument("span", "300")
        if not text.isdecimal() or int(text) not in SPANS:
            raise HTTPError(400, f"`span` is one of {', '.join(map(str, SPANS))}")
        span, reads = int(text), self.application.reads

        def look() -> bytes:
            return orjson.dumps(throughput(reads.database, reads.live, span))

        async with self.application.feeds.watch(f"throughput {span}", look, LOOK_SECONDS[span]) as feed:
            await self.follow(feed, "throughput")
