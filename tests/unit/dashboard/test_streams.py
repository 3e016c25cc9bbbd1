"""A stream ends when its reader may not read any more."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from tornado.httpclient import AsyncHTTPClient, HTTPRequest
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, HTTPError

from tasks.dashboard import handlers
from tasks.dashboard.feeds import Feed


class Guard:
    def why_not_act(self, _request: Any) -> str:
        return ""


class Stream(handlers.StreamHandler):
    """Sends a number for each change; signed in until somebody says otherwise."""

    feed: Feed
    signed_in: Any = True

    def get_current_user(self) -> Any:
        if isinstance(Stream.signed_in, Exception):
            raise Stream.signed_in
        return Stream.signed_in

    async def get(self) -> None:
        await self.follow(Stream.feed, "number")


@pytest.mark.parametrize("signed_out", [None, HTTPError(401)], ids=["the cookie is over", "the password is another"])
def test_a_stream_asks_again_whether_its_reader_may_read(signed_out: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handlers, "PROVE_SECONDS", 0.0)

    async def watch() -> None:
        Stream.feed, Stream.signed_in = Feed(), True
        application: Any = Application([("/", Stream)])
        application.options = SimpleNamespace(basic_auth=None, auth="x")
        application.guard = Guard()
        (socket, *_) = bind_sockets(0, "127.0.0.1")
        server = HTTPServer(application)
        server.add_socket(socket)
        heard: list[bytes] = []
        first = asyncio.Event()

        def hear(part: bytes) -> None:
            heard.append(part)
            if b"data: 1" in b"".join(heard):
                first.set()

        request = HTTPRequest(f"http://127.0.0.1:{socket.getsockname()[1]}/", streaming_callback=hear)
        await Stream.feed.put(1)
        answer = asyncio.ensure_future(AsyncHTTPClient(force_instance=True).fetch(request))
        await asyncio.wait_for(first.wait(), 5)
        Stream.signed_in = signed_out
        await Stream.feed.put(2)
        await asyncio.wait_for(answer, 5)
        assert b"data: 2" not in b"".join(heard)
        server.stop()
        await server.close_all_connections()

    asyncio.run(watch())
