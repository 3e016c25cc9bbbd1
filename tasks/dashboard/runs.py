"""The list of runs: pages of it, what changes while it is looked at, and what may be done to runs."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

import orjson
from tornado.web import HTTPError

from orchestration.engine import control
from orchestration.errors import UnknownRun
from orchestration.reports import lists
from orchestration.store import run_lists
from orchestration.store.run_lists import Place, RunFilter
from orchestration.vocabulary import RunStatus
from tasks import canvas
from tasks.dashboard.handlers import JsonHandler, OurHandler, StreamHandler
from tasks.dashboard.reads import Reads
from tasks.retries import retry_with
from tasks.workflow import flow_session_id_of

_log = logging.getLogger(__name__)

PAGE = 50
#: From one look at runs that somebody watches to the next.
LOOK_SECONDS = 1.5
#: Runs in one call of an action.
MOST_AT_ONCE = 100
MOST_NAMES = 1000


class RunsApi(JsonHandler):
    """`/flow/api/runs`: a page of runs.

    Query: status (repeated), workflow, since and until (ms since the epoch), search (the beginning of an id, or a
    run_id), before (the place of the last row of the page before, `<µs>,<id>`).
    """

    async def get(self) -> None:
        wanted, before = filter_of(self), place_of(self.plain_argument("before"))
        reads = self.application.reads
        page, more = await self.read(lists.page_of_runs, reads.database, reads.live, wanted, PAGE, before)
        self.send(
            {
                "runs": [_with_place(line) for line in page],
                "more": more,
                "now": round(time.time() * 1000),
            }
        )


class RunsStream(StreamHandler):
    """`/flow/stream/runs`: counts by status, how many are newer, and the state of the runs that are shown.

    Query: as of RunsApi, and `ids` (comma-separated), `top` (the place of the newest that is shown).
    """

    async def get(self) -> None:
        wanted, top = filter_of(self), place_of(self.plain_argument("top"))
        ids = tuple(filter(_is_id, self.plain_argument("ids").split(",")))[: 2 * PAGE]
        name = f"runs {wanted} {top} {ids}"
        look = partial(_look, self.application.reads, wanted, top, ids)
        async with self.application.feeds.watch(name, look, LOOK_SECONDS) as feed:
            await self.follow(feed, "runs")


class WorkflowNamesApi(JsonHandler):
    """`/flow/api/workflows`: their names, for the filter."""

    async def get(self) -> None:
        self.send({"names": await self.read(run_lists.workflow_names, self.application.reads.database, MOST_NAMES)})


class ActApi(JsonHandler):
    """`/flow/api/act`: cancel, pause, resume or retry runs. Body: `action`, and `ids`, at most MOST_AT_ONCE."""

    async def post(self) -> None:
        body = self.body()
        action, ids = body.get("action"), body.get("ids")
        if not (isinstance(ids, list) and 0 < len(ids) <= MOST_AT_ONCE and all(map(_is_id, ids))):
            raise HTTPError(400, f"`ids` is a list of 1 to {MOST_AT_ONCE} ids of runs")
        if not isinstance(action, str) or action not in ACTIONS:
            raise HTTPError(400, f"`action` is one of {', '.join(ACTIONS)}")
        acts = [self.read(_act, self.application.reads, action, flow_session_id) for flow_session_id in ids]
        answers = await asyncio.gather(*acts)
        for answer in answers:
            _log.info("%s asked to %s a run: %s", self.user, action, answer["message"])
        self.send({"answers": answers})


def _cancel(reads: Reads, flow_session_id: str) -> control.Answer:
    return control.cancel_session(reads.database, reads.live, canvas.publish_runners, flow_session_id)


def _pause(reads: Reads, flow_session_id: str) -> control.Answer:
    return control.pause_session(reads.database, reads.live, flow_session_id)


def _resume(reads: Reads, flow_session_id: str) -> control.Answer:
    return control.resume_session(reads.database, reads.live, canvas.publish_runners, flow_session_id)


def _retry(reads: Reads, flow_session_id: str) -> control.Answer:
    return retry_with(reads.settings, reads.database, reads.live, flow_session_id)


ACTIONS: dict[str, Callable[[Reads, str], control.Answer]] = {
    "cancel": _cancel, "pause": _pause, "resume": _resume, "retry": _retry,
}  # fmt: skip


def _act(reads: Reads, action: str, flow_session_id: str) -> dict[str, Any]:
    try:
        return ACTIONS[action](reads, flow_session_id).to_json()
    except UnknownRun as error:
        return {"flow_session_id": flow_session_id, "found": "unknown", "message": str(error)}


def _look(reads: Reads, wanted: RunFilter, top: Place | None, ids: tuple[str, ...]) -> bytes:
    return orjson.dumps(
        {
            "counts": lists.counts_of_runs(reads.database, wanted),
            "newer": 0 if top is None else lists.count_newer(reads.database, wanted, top),
            "runs": [_with_place(line) for line in lists.lines_of(reads.database, reads.live, ids)],
            "most_counted": lists.MOST_COUNTED,
            "most_newer": lists.MOST_NEWER,
        }
    )


def _with_place(line: lists.RunLine) -> dict[str, Any]:
    at, flow_session_id = line.place
    return line.to_json() | {"place": f"{round(at.timestamp() * 1_000_000)},{flow_session_id}"}


def _is_id(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[0-9a-f-]{36}", value) is not None


def place_of(text: str) -> Place | None:
    """The place that a row came with.

    Raises: HTTPError: 400.
    """
    if not text:
        return None
    at, _, flow_session_id = text.partition(",")
    return _moment(at, 1_000_000), flow_session_id


def filter_of(handler: OurHandler) -> RunFilter:
    """What the query asks for.

    Raises: HTTPError: 400, with what is wrong.
    """
    try:
        statuses = frozenset(RunStatus(status) for status in handler.get_arguments("status"))
    except ValueError:
        raise HTTPError(400, f"a status is one of {', '.join(RunStatus)}") from None
    search = handler.plain_argument("search").strip()[:300]
    since, until = handler.plain_argument("since"), handler.plain_argument("until")
    return RunFilter(
        statuses, handler.plain_argument("workflow")[:300], _moment(since, 1000) if since else None,
        _moment(until, 1000) if until else None, search.lower(),
        # as the caller of run_workflow knows it: by its run_id, or the id of the Celery task
        (flow_session_id_of(search), flow_session_id_of("", search)) if search else (),
    )  # fmt: skip


def _moment(text: str, per_second: int) -> datetime:
    try:
        return datetime.fromtimestamp(int(text) / per_second, UTC)
    except (ValueError, OverflowError, OSError):
        raise HTTPError(400, "times are whole numbers since the epoch") from None
