"""A TCP proxy that can go silent, as a network that drops every packet: nobody is told, and nothing arrives."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit


class SilentProxy:
    """Forwards connections to a server on this host."""

    def __init__(self, url: str) -> None:
        self._server_url = urlsplit(url)
        self._loop = asyncio.new_event_loop()
        self._is_silent = False
        self._pipes: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._port = 0

    @property
    def url(self) -> str:
        """The server's URL, by way of the proxy."""
        netloc = self._server_url.netloc.rpartition(":")[0] + f":{self._port}"
        return self._server_url._replace(netloc=netloc).geturl()

    def cut(self) -> None:
        """What is sent from now on is lost, in both directions; connections stay open, also new ones."""
        self._is_silent = True

    def heal(self) -> None:
        """New connections are forwarded; those that were cut stay as they are."""
        self._is_silent = False

    @contextmanager
    def running(self) -> Iterator[SilentProxy]:
        """It forwards for the time of the block."""
        started = threading.Event()
        thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(started),))
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
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self._port = server.sockets[0].getsockname()[1]
        started.set()
        await self._stopping.wait()
        server.close()
        for pipe in self._pipes:
            pipe.cancel()
        await asyncio.gather(*self._pipes, return_exceptions=True)
        for writer in self._writers:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for writer in self._writers), return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        if self._is_silent:
            return
        assert self._server_url.port is not None
        behind = await asyncio.open_connection("127.0.0.1", self._server_url.port)
        self._writers.add(behind[1])
        broken = asyncio.Event()
        for source, sink in ((reader, behind[1]), (behind[0], writer)):
            self._pipes.add(asyncio.create_task(self._pipe(source, sink, broken)))

    async def _pipe(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, broken: asyncio.Event) -> None:
        try:
            while data := await source.read(65536):
                if self._is_silent:
                    broken.set()
                if not broken.is_set():
                    sink.write(data)
                    await sink.drain()
        except OSError:
            pass
        if not broken.is_set():
            sink.close()
