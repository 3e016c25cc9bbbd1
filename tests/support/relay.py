"""Forwards TCP: `python -m tests.support.relay ADDRESS:PORT …` takes each to the same port of our loopback.

A process of its own, so that a busy test does not slow it down. It says `ready`, and ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import suppress


async def _pipe(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()
    sink.close()


async def _relay(address: str, port: int) -> asyncio.Server:
    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            behind, sink = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            writer.close()
            return
        await asyncio.gather(_pipe(reader, sink), _pipe(behind, writer))

    return await asyncio.start_server(accept, address, port)


async def _serve(places: list[str]) -> None:
    for place in places:
        address, _, port = place.rpartition(":")
        await _relay(address, int(port))
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.read)
    os._exit(0)  # what is open ends with the process


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1:]))
