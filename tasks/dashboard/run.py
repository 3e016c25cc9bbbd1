"""The page of one run, `/flow/run/<id>`, and what its script asks for: a picture, changes, pages of tasks, one task."""

from __future__ import annotations

import asyncio
import gzip
import time
from typing import Any, Final

import orjson
from tornado.routing import URLSpec
from tornado.web import HTTPError, url

from orchestration.reports import inputs, picture
from orchestration.store.pictures import Choice, is_mark
from orchestration.vocabulary import NO_ITEM, TaskStatus
from tasks.dashboard.handlers import ALIVE_SECONDS, JsonHandler, PageHandler, StreamHandler
from tasks.dashboard.reads import Reads

#: Level 6 takes seven times as long for a tenth less (measured with 50,000 tasks).
GZIP_LEVEL: Final = 1
#: A picture is made once for all who ask within so many seconds.
PICTURE_SECONDS: Final = 1.0
#: Pictures that are kept that long; a large one has 0.3 MB.
KEPT_PICTURES: Final = 20
MOST_ROWS: Final = 1_000
LARGEST_NUMBER: Final = 10**18
LARGEST_ITEM: Final = 2**31 - 1


class Pictures:
    """Pictures of runs as compressed JSON, made in another thread, each once for all who ask at about the same time."""

    def __init__(self, reads: Reads) -> None:
        self._reads = reads
        self._made: dict[str, tuple[float, asyncio.Task[bytes]]] = {}

    async def of(self, flow_session_id: str) -> bytes:
        """The picture, compressed by gzip.

        Raises: UnknownRun. ServiceUnreachable.
        """
        made = self._made.get(flow_session_id)
        if made is None or time.monotonic() - made[0] > PICTURE_SECONDS:
            while len(self._made) >= KEPT_PICTURES:
                del self._made[next(iter(self._made))]
            self._made.pop(flow_session_id, None)
            made = (time.monotonic(), asyncio.create_task(self._reads.run_large(self._make, flow_session_id)))
            self._made[flow_session_id] = made
        # One who leaves does not take it from the others.
        return await asyncio.shield(made[1])

    def _make(self, flow_session_id: str) -> bytes:
        found = picture.picture(self._reads.database, self._reads.live, flow_session_id)
        return gzip.compress(orjson.dumps(found), GZIP_LEVEL)


class RunPage(PageHandler):
    """The page; whether there is such a run, its script finds out."""

    def get(self, *parts: str) -> None:
        self.render_page(run=parts[0])


class RunPicture(JsonHandler):
    """The run as a picture."""

    async def get(self, flow_session_id: str) -> None:
        content = await self.application.pictures.of(flow_session_id)
        if "gzip" in self.request.headers.get("Accept-Encoding", ""):
            self.set_header("Content-Encoding", "gzip")
        else:
            content = await self.read(gzip.decompress, content)
        self.set_header("Vary", "Accept-Encoding")
        self.send(content)


class RunEvents(StreamHandler):
    """What changes, from the mark on that the picture had, or the last frame that was seen."""

    async def get(self, flow_session_id: str, mark: str) -> None:
        seen = self.request.headers.get("Last-Event-ID") or self.plain_argument("last_event_id") or mark
        if not is_mark(seen):
            raise HTTPError(400, "the mark of a picture is expected")
        async with self.application.watches.look(flow_session_id, seen) as viewer:
            self.begin()
            while not self.closed:
                name, value, number = await viewer.next(ALIVE_SECONDS) or ("", b"", None)
                if not await self.event(name, value, number) or name == "end":
                    return


class RunTasks(JsonHandler):
    """A page of its tasks."""

    async def get(self, flow_session_id: str) -> None:
        try:
            statuses = tuple(TaskStatus(status) for status in self.get_query_arguments("status"))
            after = orjson.loads(self.plain_argument("after")) if self.plain_argument("after") else None
            limit = max(1, min(MOST_ROWS, int(self.plain_argument("limit", "200"))))
            if after is not None:
                after = [_bounded(after[0]), str(after[1]), _bounded(after[2])]
        except (ValueError, TypeError, IndexError, KeyError):
            raise HTTPError(400, "status, after or limit can't be understood") from None
        choice = Choice(statuses or None, self.plain_argument("action") or None, self.plain_argument("by") == "slowest")
        reads = self.application.reads
        self.send(await self.read(picture.page, reads.database, flow_session_id, choice, after, limit))


class RunTask(JsonHandler):
    """One of its tasks with all that is recorded."""

    async def get(self, flow_session_id: str) -> None:
        item = _item(self.plain_argument("item") or str(NO_ITEM))
        action = self.plain_argument("action")
        self.send(await self.read(picture.task, self.application.reads.database, flow_session_id, action, item))


class RunInputs(JsonHandler):
    """What one of its tasks was called with."""

    async def get(self, flow_session_id: str) -> None:
        item = _item(self.plain_argument("item") or str(NO_ITEM))
        action, reads = self.plain_argument("action"), self.application.reads
        self.send(await self.read(inputs.inputs_of, reads.database, flow_session_id, action, item, reads.masker))


class RunDensity(JsonHandler):
    """How many tasks of each action ran when; of runs that are too large for columns."""

    async def get(self, flow_session_id: str) -> None:
        given: list[Any] = [_number(self.plain_argument(name), name) for name in ("from", "to", "bins")]
        try:
            self.send(await self.read(picture.density, self.application.reads.database, flow_session_id, *given))
        except ValueError as error:
            raise HTTPError(400, str(error)) from None


class RunWhy(JsonHandler):
    """Why it, or one of its tasks, stands as it does."""

    async def get(self, flow_session_id: str) -> None:
        reads, action, item = self.application.reads, self.plain_argument("action") or None, self.plain_argument("item")
        # of the run as a whole all items are looked at
        read = reads.run_large if action is None else reads.run
        number = _item(item) if item else None
        self.send(await read(picture.why, reads.database, reads.live, flow_session_id, action, number))


def run_routes(base: str) -> list[URLSpec]:
    """The paths below `/flow` that are about one run."""
    # PostgreSQL takes no NUL in a text, so no run has one in its id.
    run = r"((?:(?!%00)[^/])+)"
    page = {"title": "Run", "script": "run", "tab": "flow"}
    return [
        url(rf"{base}/run/{run}", RunPage, page, name="flow-run"),
        url(rf"{base}/api/run/{run}", RunPicture),
        url(rf"{base}/api/run/{run}/events/{run}", RunEvents),
        url(rf"{base}/api/run/{run}/tasks", RunTasks),
        url(rf"{base}/api/run/{run}/task", RunTask),
        url(rf"{base}/api/run/{run}/inputs", RunInputs),
        url(rf"{base}/api/run/{run}/density", RunDensity),
        url(rf"{base}/api/run/{run}/why", RunWhy),
    ]


def _number(text: str, name: str) -> int:
    try:
        return _bounded(text)
    except ValueError:
        raise HTTPError(400, f"{name} is a whole number of no more than 18 digits") from None


def _item(text: str) -> int:
    item = _number(text, "item")
    if not NO_ITEM <= item <= LARGEST_ITEM:
        raise HTTPError(400, "there is no such item")
    return item


def _bounded(number: str | int) -> int:
    value = int(number)
    if abs(value) >= LARGEST_NUMBER:
        raise ValueError
    return value
