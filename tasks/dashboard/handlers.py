"""What all our pages, answers in JSON and streams have in common: who may, and how errors are told."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar
from urllib.parse import urlencode, urlsplit

import orjson
from flower.views import BaseHandler
from tornado.iostream import StreamClosedError
from tornado.web import HTTPError, RequestHandler

from orchestration.errors import ProcessorError, ServiceUnreachable, UnknownRun, UnknownTask, UnknownWorkflow
from tasks.dashboard.feeds import Feed
from tasks.dashboard.guard import POLICY
from tasks.dashboard.static_files import VERSION

if TYPE_CHECKING:
    from tasks.dashboard.application import ProcessorFlower

_log = logging.getLogger(__name__)

#: A stream says at least this often that it lives, seconds: proxies end silent ones, often after 60.
ALIVE_SECONDS = 15.0
#: How often an open stream asks again whether its reader may read, seconds.
PROVE_SECONDS = 60.0
#: Largest body of an action.
MOST_BODY_BYTES = 1_000_000

P = ParamSpec("P")
T = TypeVar("T")


class OurHandler(BaseHandler):
    """A handler of ours: Flower's authentication, our policy, and a proof of origin for whatever acts."""

    application: ProcessorFlower

    def set_default_headers(self) -> None:
        # not Flower's: those may let other origins read
        self.set_header("Content-Security-Policy", POLICY)
        self.set_header("Cache-Control", "no-store")

    def check_xsrf_cookie(self) -> None:
        """Actions come from our own pages only: by origin, and by the token that only they can read.

        Raises: HTTPError: 403.
        """
        site, origin = self.request.headers.get("Sec-Fetch-Site"), self.request.headers.get("Origin")
        if site and site != "same-origin":
            raise HTTPError(403, reason="cross-site request refused")
        if origin and urlsplit(origin).netloc != self.request.host:
            raise HTTPError(403, reason="cross-origin request refused")
        RequestHandler.check_xsrf_cookie(self)

    @property
    def user(self) -> str:
        """Who asks, for the log and the page; empty where there is no authentication."""
        return self.application.guard.user_of(self.request) or ""

    @property
    def why_read_only(self) -> str:
        """Why whoever asks may change nothing; empty: they may."""
        return self.application.guard.why_not_act(self.request) or ""

    async def read(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The answer of a function that waits for PostgreSQL or Redis, or computes for long."""
        return await self.application.reads.run(function, *args, **kwargs)

    def plain_argument(self, name: str, default: str = "") -> str:
        """An argument of the URL as it is: Flower's own method escapes it, which is the template's business."""
        return str(RequestHandler.get_argument(self, name, default))


class PageHandler(OurHandler):
    """A page: a frame of HTML, filled by a script that asks for JSON."""

    def initialize(self, title: str, script: str, tab: str) -> None:
        self.title, self.script, self.tab = title, script, tab

    def prepare(self) -> None:
        if not self.current_user:  # basic authentication has raised 401
            self.redirect(f"{self.get_login_url()}?{urlencode({'next': self.request.uri or ''})}")

    def get(self, *_: str) -> None:
        self.render_page()

    def render_page(self, **data: str) -> None:
        """Send the frame; the script finds `data` as `data-…` of the element `#flow`."""
        self.render(
            "flow.html", title=self.title, script=self.script, active_tab=self.tab, user=self.user,
            why_read_only=self.why_read_only, data=data, static_file=self._static_file,
        )  # fmt: skip

    def _static_file(self, name: str) -> str:
        return f"{self.reverse_url('flow')}/static/{VERSION}/{name}"


class JsonHandler(OurHandler):
    """An answer in JSON; whoever is not signed in gets 403, never a redirect."""

    def prepare(self) -> None:
        if not self.current_user:
            raise HTTPError(403, reason="signed out")
        if self.request.method == "POST" and self.why_read_only:
            raise HTTPError(403, self.why_read_only)

    def send(self, value: Any) -> None:
        """Send a value as JSON; bytes are sent as they are."""
        self.set_header("Content-Type", "application/json")
        self.finish(value if isinstance(value, bytes) else orjson.dumps(value))

    def body(self) -> dict[str, Any]:
        """The object that was sent.

        Raises: HTTPError: 400, it is none.
        """
        if len(self.request.body) > MOST_BODY_BYTES:
            raise HTTPError(413, "too much at once")
        try:
            value = json.loads(self.request.body or b"{}")
        except ValueError:
            raise HTTPError(400, "the body is no JSON") from None
        if not isinstance(value, dict):
            raise HTTPError(400, "the body is no object")
        return value

    def log_exception(self, kind: Any, value: Any, trace: Any) -> None:
        if not isinstance(value, ProcessorError):
            super().log_exception(kind, value, trace)

    def write_error(self, status_code: int, **arguments: Any) -> None:
        error = arguments.get("exc_info", (None, None))[1]
        status, message = _told(error, status_code, self._reason)
        self.set_status(status)
        if status == 401:
            self.set_header("WWW-Authenticate", 'Basic realm="flower"')
        self.send({"error": message})


class StreamHandler(JsonHandler):
    """Server-sent events, for as long as the reader stays and may read."""

    _closed = False

    def on_connection_close(self) -> None:
        self._closed = True

    @property
    def closed(self) -> bool:
        """Whether the reader has gone."""
        return self._closed

    def begin(self) -> None:
        """Send the headers; from now on it is a stream."""
        self.set_header("Content-Type", "text/event-stream")
        self.set_header("Content-Encoding", "identity")  # else it would be compressed, and kept back for that
        self.set_header("X-Accel-Buffering", "no")
        self._proved_at = time.monotonic()
        self.write("retry: 2000\n\n")

    async def event(self, name: str, value: Any, number: int | str | None = None) -> bool:
        """Send an event, or with an empty name a sign of life; False: the stream is over.

        Args: value: sent as JSON; bytes are JSON already. number: what the reader says it has seen when it comes back.
        """
        if self._closed or not self._may_still():
            return False
        if name:
            text = value if isinstance(value, bytes) else orjson.dumps(value)
            self.write(b"".join((
                b"" if number is None else b"id: %s\n" % str(number).encode(),
                b"event: ", name.encode(), b"\ndata: ", text, b"\n\n",
            )))  # fmt: skip
        else:
            self.write(": here\n\n")
        try:
            await self.flush()
        except StreamClosedError:
            return False
        return True

    async def follow(self, feed: Feed, name: str) -> None:
        """Send each new state of a feed as an event of this name, and `trouble` with the reason when there is some."""
        self.begin()
        seen, trouble = 0, ""
        while not self._closed:
            if await feed.newer_than(seen, ALIVE_SECONDS):
                seen = feed.number
                if feed.trouble != trouble:
                    trouble = feed.trouble
                    alive = await self.event("trouble", {"message": trouble})
                    if not alive:
                        return
                alive = feed.value is None or await self.event(name, feed.value)
            else:
                alive = await self.event("", None)
            if not alive:
                return

    def _may_still(self) -> bool:
        now = time.monotonic()
        if now - self._proved_at < PROVE_SECONDS:
            return True
        self._proved_at = now
        # asked anew of the cookie, which expires
        try:
            return bool(self.get_current_user())
        except HTTPError:
            return False


class Refused(RequestHandler):
    """The answer to a request that the guard refuses."""

    def initialize(self, reason: str) -> None:
        self.reason = reason

    def prepare(self) -> None:
        self.set_status(403)
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.finish(self.reason)

    def check_xsrf_cookie(self) -> None:
        """It is refused anyway."""


def _told(error: BaseException | None, status: int, reason: str) -> tuple[int, str]:
    """The status and the words for an error; the words of what nobody foresaw stay in the log."""
    if isinstance(error, UnknownRun | UnknownTask | UnknownWorkflow):
        return 404, str(error)
    if isinstance(error, ServiceUnreachable):
        return 503, str(error)
    if isinstance(error, HTTPError):
        return status, str(error.get_message() or error.reason or reason)
    if isinstance(error, asyncio.CancelledError):
        return 503, "Flower is about to end"
    return status, "this failed; Flower's log says why" if status >= 500 else reason
