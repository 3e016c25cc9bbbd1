"""A TCP proxy that does what networks do: it delays, resets, goes silent, closes one half, and loses replies.

It runs in a thread of its own, so that it can stand between workers and their servers while a test goes on. Its faults
are switched from any thread.
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final
from urllib.parse import urlsplit

#: SO_LINGER: closing sends a reset.
_RESET: Final = struct.pack("ii", 1, 0)


@dataclass(slots=True)
class Cuts:
    """Connections are reset at a share of the requests that hold one of these marks.

    Args: forwarded: share of those that reach the server: it answers, and the reply is lost with the connection. The
        rest is cut before the server has seen the request. The client can't tell one from the other.
    """

    marks: tuple[bytes, ...]
    share: float
    chance: random.Random
    forwarded: float = 1.0
    #: How often, so far.
    lost_replies: int = 0
    lost_requests: int = 0

    def meets(self, data: bytes) -> bool:
        """Whether the connection is to be cut at this request."""
        return any(mark in data for mark in self.marks) and self.chance.random() < self.share


class Proxy:
    """Forwards connections to a server on this host."""

    def __init__(self, url: str) -> None:
        self._server_url = urlsplit(url)
        self._loop = asyncio.new_event_loop()
        self._links: set[_Link] = set()
        self._port = 0
        self._cuts: Cuts | None = None
        self.is_silent = False
        #: What arrives is held up for so long, in each direction.
        self.delay_seconds = 0.0

    @property
    def url(self) -> str:
        """The server's URL, by way of the proxy."""
        netloc = self._server_url.netloc.rpartition(":")[0] + f":{self._port}"
        return self._server_url._replace(netloc=netloc).geturl()

    @property
    def server_port(self) -> int:
        """Where the server listens."""
        assert self._server_url.port is not None
        return self._server_url.port

    def go_silent(self) -> None:
        """What is sent from now on is lost, in both directions; connections stay open, also new ones."""
        self.is_silent = True

    def cut_at(self, cuts: Cuts) -> None:
        """Cut connections at such requests from now on."""
        self._cuts = cuts

    def heal(self) -> None:
        """Nothing is lost, cut or delayed any more. Connections that lost something in silence stay as they are."""
        self.is_silent, self._cuts, self.delay_seconds = False, None, 0.0

    def reset_all(self) -> None:
        """All connections are reset."""
        self._loop.call_soon_threadsafe(self._on_all, _Link.reset)

    def half_close(self) -> None:
        """To all clients the server has said its last word; what they send still arrives there."""
        self._loop.call_soon_threadsafe(self._on_all, lambda link: link.client.end_writing())

    @contextmanager
    def running(self) -> Iterator[Proxy]:
        """It forwards for the time of the block."""
        started = threading.Event()
        thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(started),), name="proxy")
        thread.start()
        started.wait()
        try:
            yield self
        finally:
            self._loop.call_soon_threadsafe(self._stopping.set)
            thread.join()
            self._loop.close()

    async def _serve(self, started: threading.Event) -> None:
        self._stopping = asyncio.Event()
        server = await self._loop.create_server(self._accept, "127.0.0.1", 0)
        self._port = server.sockets[0].getsockname()[1]
        started.set()
        await self._stopping.wait()
        server.close()
        self._on_all(_Link.reset)
        connecting = [link.connecting for link in self._links if link.connecting is not None]
        await asyncio.gather(*connecting, return_exceptions=True)
        await asyncio.sleep(0)  # what was reset is closed

    def _on_all(self, do: Callable[[_Link], None]) -> None:
        for link in tuple(self._links):
            do(link)

    def _accept(self) -> asyncio.Protocol:
        link = _Link(self)
        self._links.add(link)
        return link.client

    def forget(self, link: _Link) -> None:
        """Its client has gone."""
        self._links.discard(link)

    def loses_reply(self, data: bytes) -> bool | None:
        """What becomes of a request: True, its reply is to be lost; None, it is lost itself."""
        cuts = self._cuts
        if cuts is None or not cuts.meets(data):
            return False
        if cuts.chance.random() < cuts.forwarded:
            cuts.lost_replies += 1
            return True
        cuts.lost_requests += 1
        return None


class _End(asyncio.Protocol):
    """The proxy's connection to one side; `received` gets what that side sends."""

    def __init__(self, link: _Link, received: Callable[[bytes], None]) -> None:
        self._link = link
        self._received = received
        self._transport: Any = None
        self._late: deque[Callable[[], None]] = deque()
        self._has_said_all = False
        self.has_ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._link.made(self)

    def data_received(self, data: bytes) -> None:
        self._received(data)

    def eof_received(self) -> bool:
        self._link.ended(self)
        return True  # the other half may go on

    def connection_lost(self, exc: Exception | None) -> None:
        self.has_ended = True
        self._link.lost(self)

    def pause_writing(self) -> None:
        self._link.other(self).set_reading(False)

    def resume_writing(self) -> None:
        self._link.other(self).set_reading(True)

    def set_reading(self, reads: bool) -> None:
        """Take what this side sends, or let it wait."""
        if self._is_open:
            (self._transport.resume_reading if reads else self._transport.pause_reading)()

    def later(self, seconds: float, do: Callable[[], None]) -> None:
        """Do this to the side, after so long; the order stays."""
        if seconds or self._late:
            self._late.append(do)
            asyncio.get_running_loop().call_later(seconds, self._do_first)
        else:
            do()

    def send(self, data: bytes) -> None:
        """Send this to the side."""
        if self._is_open and not self._has_said_all:
            self._transport.write(data)

    def end_writing(self) -> None:
        """Nothing more is sent to the side."""
        if self._is_open and not self._has_said_all:
            self._has_said_all = True
            with suppress(OSError):
                self._transport.write_eof()

    def close(self) -> None:
        """Close it when all is sent."""
        if self._transport is not None:
            self._transport.close()

    def reset(self) -> None:
        """The side learns at once that the connection is gone."""
        if self._transport is not None and not self.has_ended:
            self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self._transport.abort()

    @property
    def _is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def _do_first(self) -> None:
        self._late.popleft()()


class _Link:
    """A client's connection, and the one behind it to the server."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        self.client = _End(self, self._from_client)
        self.server = _End(self, self._from_server)
        self.connecting: asyncio.Task[None] | None = None
        #: The next bytes of the server are lost, and the connection with them.
        self._loses_reply = False
        #: Something was lost in silence: nothing arrives any more.
        self._is_broken = False
        self._ended: set[_End] = set()

    def other(self, end: _End) -> _End:
        return self.server if end is self.client else self.client

    def made(self, end: _End) -> None:
        """Somebody has connected; of the server, it was us."""
        if end is self.server:
            return
        self._is_broken = self._proxy.is_silent
        if not self._is_broken:
            loop = asyncio.get_running_loop()
            loop.call_soon(end.set_reading, False)  # Python 3.11.2 begins to read after this call, whatever it says
            self.connecting = loop.create_task(self._connect())

    async def _connect(self) -> None:
        try:
            await asyncio.get_running_loop().create_connection(
                lambda: self.server, "127.0.0.1", self._proxy.server_port
            )
        except OSError:
            self.reset()
            return
        if self.client.has_ended:
            self.server.close()
        self.client.set_reading(True)

    def ended(self, end: _End) -> None:
        """This side sends nothing more; when both do, all is over."""
        self._ended.add(end)
        if len(self._ended) == 1:
            self._forward(self.other(end).end_writing, self.other(end))
        else:
            self._forward(self.client.close, self.client)
            self._forward(self.server.close, self.server)

    def lost(self, end: _End) -> None:
        """This side is gone; in silence the other one does not learn of it."""
        if end is self.client:
            self._proxy.forget(self)
            self.server.close()
        else:
            self._forward(self.client.close, self.client)

    def reset(self) -> None:
        """Both sides learn at once that the connection is gone."""
        self.client.reset()
        self.server.reset()

    def _from_client(self, data: bytes) -> None:
        loses_reply = self._proxy.loses_reply(data)
        if loses_reply is None:
            self.reset()
            return
        self._loses_reply = self._loses_reply or loses_reply
        self._forward(partial(self.server.send, data), self.server)

    def _from_server(self, data: bytes) -> None:
        if self._loses_reply:
            self.reset()
        else:
            self._forward(partial(self.client.send, data), self.client)

    def _forward(self, do: Callable[[], None], to: _End) -> None:
        if self._proxy.is_silent:
            self._is_broken = True
        if not self._is_broken:
            to.later(self._proxy.delay_seconds, do)
