"""Runs that are looked at: each is read once for all who look, and none when nobody does.

A reader tells **frames**: what has changed since the frame before. Who joins brings the mark of the picture that it
has, and gets what has changed since then first; after a break too, also from another process. So nothing is kept for
those who may come back.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from orchestration.errors import ServiceUnreachable, UnknownRun
from orchestration.reports import picture
from orchestration.reports.explain import waits_of
from tasks.dashboard.reads import Reads

_log = logging.getLogger(__name__)

#: Most frames a second are four.
FRAME_SECONDS: Final = 0.25
#: Above so many changes a second only counts are told.
MOST_CHANGES_A_SECOND: Final = 2_000
LONGEST_FRAME_SECONDS: Final = 2.0
#: A read that takes long is not repeated at once: PostgreSQL is idle for at least this many times as long.
REST: Final = 4.0
#: How often it is asked why a run does not go on, which takes longer than to ask how far it is.
WAITS_SECONDS: Final = 2.0
#: A run that has ended and been recorded changes no more after so long.
SETTLED_SECONDS: Final = 5.0
#: How often a viewer that joins looks again, while others are told of changes.
MOST_LOOKS: Final = 5
#: Frames that wait for a slow viewer; then it is told to begin anew.
MOST_WAITING: Final = 40

#: Name of the event, its JSON, the mark behind it. `gap`: get a new picture; `end`: nothing more will come.
Frame = tuple[str, bytes, str | None]


class Viewer:
    """One who looks at a run."""

    def __init__(self) -> None:
        self._frames: asyncio.Queue[Frame] = asyncio.Queue(MOST_WAITING)

    def tell(self, frame: Frame) -> None:
        if self._frames.full():
            self.forget()
            frame = ("gap", b"{}", None)
        self._frames.put_nowait(frame)

    def forget(self) -> None:
        """Frames that wait are not told."""
        while self.has_frames:
            self._frames.get_nowait()

    @property
    def has_frames(self) -> bool:
        """Whether some wait."""
        return not self._frames.empty()

    async def next(self, seconds: float) -> Frame | None:
        """The next frame, None when there is none within `seconds`."""
        try:
            return await asyncio.wait_for(self._frames.get(), seconds)
        except TimeoutError:
            return None


class RunWatches:
    """All runs that are looked at in this process."""

    def __init__(self, reads: Reads) -> None:
        self._reads = reads
        self._viewers: dict[str, set[Viewer]] = {}
        self._readers: dict[str, asyncio.Task[None]] = {}

    @asynccontextmanager
    async def look(self, flow_session_id: str, mark: str) -> AsyncIterator[Viewer]:
        """Look at a run from a mark on.

        Raises: UnknownRun. ServiceUnreachable. ValueError: the mark is none.
        """
        viewer = Viewer()
        viewers = self._viewers.setdefault(flow_session_id, set())
        viewers.add(viewer)
        try:
            missed = await self._missed(viewer, flow_session_id, mark)
            viewer.tell(_frame(missed, None))
            reader = self._readers.get(flow_session_id)
            if reader is None or reader.done():
                self._readers[flow_session_id] = asyncio.create_task(self._read(flow_session_id, missed["mark"]))
            yield viewer
        finally:
            viewers.discard(viewer)
            if not viewers and self._viewers.get(flow_session_id) is viewers:
                del self._viewers[flow_session_id]
                reader = self._readers.pop(flow_session_id, None)
                if reader is not None:
                    reader.cancel()

    def close(self) -> None:
        """Nothing is read any more."""
        for reader in self._readers.values():
            reader.cancel()

    async def _missed(self, viewer: Viewer, flow_session_id: str, mark: str) -> dict[str, Any]:
        """What has changed since a mark, no older than what the viewer was told meanwhile, which it need not hear."""
        for _ in range(MOST_LOOKS):
            viewer.forget()
            missed: dict[str, Any] = await self._ask(picture.changes, flow_session_id, mark)
            if not viewer.has_frames:
                break
        return missed

    async def _read(self, flow_session_id: str, mark: str) -> None:
        before: dict[str, Any] | None = None
        changed_at, trouble = time.monotonic(), ""
        waits = _Waits()
        began = time.monotonic()
        while True:
            since, began = began, time.monotonic()
            most = round(MOST_CHANGES_A_SECOND * min(max(began - since, FRAME_SECONDS), LONGEST_FRAME_SECONDS))
            try:
                found = await self._ask(picture.changes, flow_session_id, mark, most)
                if found["run"]["finished_at"] is None and waits.are_due(began):
                    waits.value, waits.read_at = list(await self._ask(waits_of, flow_session_id)), began
                found["run"]["waits_for"] = waits.value if found["run"]["finished_at"] is None else []
                mark = found["mark"]
                if _differs(found, before) or trouble:
                    changed_at, trouble = time.monotonic(), ""
                    self._tell(flow_session_id, _frame(found, before))
                before = found
                is_over = found["run"]["finished_at"] is not None
                if is_over and time.monotonic() - changed_at > SETTLED_SECONDS:
                    self._tell(flow_session_id, ("end", b"{}", mark))
                    return
            except UnknownRun:  # too old: it has been dropped
                self._tell(flow_session_id, ("end", b"{}", mark))
                return
            except Exception as error:  # noqa: BLE001 - the page says so, and the next read may do
                if not isinstance(error, ServiceUnreachable):
                    _log.exception("run %s can't be watched", flow_session_id)
                known = str(error) if isinstance(error, ServiceUnreachable) else "can't be read; Flower's log says why"
                if known != trouble:
                    trouble = known
                    self._tell(flow_session_id, ("trouble", orjson.dumps({"message": trouble}), None))
            await asyncio.sleep(max(FRAME_SECONDS, REST * (time.monotonic() - began)))

    async def _ask(self, question: Callable[..., Any], *given: Any) -> Any:
        return await self._reads.run(question, self._reads.database, self._reads.live, *given)

    def _tell(self, flow_session_id: str, frame: Frame) -> None:
        for viewer in self._viewers.get(flow_session_id, ()):
            viewer.tell(frame)


@dataclass
class _Waits:
    """Why a run does not go on, as it was last read."""

    value: list[str] = field(default_factory=list)
    read_at: float = float("-inf")

    def are_due(self, now: float) -> bool:
        return now - self.read_at > WAITS_SECONDS


def _differs(found: dict[str, Any], before: dict[str, Any] | None) -> bool:
    return (
        before is None
        or found["rows"] != []
        or found["run"] != before["run"]
        or found["progress"] != before["progress"]
    )


def _frame(found: dict[str, Any], before: dict[str, Any] | None) -> Frame:
    """What has changed, rows as columns; `rows` is null when there are too many to tell."""
    known = before["progress"] if before is not None else []
    progress = {
        str(place): value
        for place, value in enumerate(found["progress"])
        if place >= len(known) or known[place] != value
    }
    rows = found["rows"]
    names = ("action", "item", "status", "attempt", "worker", "start", "end")
    columns = None if rows is None else dict(zip(names, zip(*rows, strict=True), strict=False))
    value = {"now": found["now"], "run": found["run"], "progress": progress, "rows": columns}
    return "frame", orjson.dumps(value), found["mark"]
