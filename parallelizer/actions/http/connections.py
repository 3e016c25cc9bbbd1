"""Connections of `http.request`: the one look-up of a name, the check of its addresses, and a pool for each event loop.

    name ── looked up once ──> addresses ── all checked ──> TCP to one of them ── TLS for the name ──> pool

What was checked is what is connected to, so a name server that gives another answer the second time is never asked. A
connection of the pool was checked when it was made, and stays with its address.

A pool belongs to an event loop, and ends with it: an asynchronous generator holds it, and whoever ends a loop properly
(`asyncio.run`, or `loop.shutdown_asyncgens()` before `loop.close()`) finishes the loop's generators. So there is
nothing to close where one loop serves one call, and connections are reused where one serves many.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import socket
import ssl
import threading
from collections.abc import AsyncGenerator, Iterable
from contextlib import suppress
from functools import lru_cache
from ipaddress import ip_address

import httpcore
import httpx

from parallelizer.actions.http.addresses import Network, check_addresses
from parallelizer.actions.http.errors import ConnectionFailed

#: Servers end idle connections, Node's after 5 s; one that is given up before is never met half closed.
KEEPALIVE_SECONDS = 4.0
#: Idle connections kept; those in use are limited by the permits of branches.
MAX_IDLE_CONNECTIONS = 100
#: A host's addresses are tried in turn; each but the last gets this long.
CONNECT_SECONDS = 5.0
#: Name look-ups at once in one loop. Each is a thread, which no time limit can end (a dead name server: 10 to 40 s).
MAX_LOOKUPS = 32

#: What a request can fail with below us. Their texts may quote the request.
TRANSPORT_ERRORS = (
    httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError, httpcore.ConnectionNotAvailable, OSError,
)  # fmt: skip

#: Where h11 begins to quote what the server sent, in an escaped form that `Sent` does not know.
_BYTES = re.compile(r":?\s*(?:bytearray\()?b['\"]")

_pools: dict[
    tuple[asyncio.AbstractEventLoop, tuple[Network, ...]],
    tuple[httpcore.AsyncConnectionPool, AsyncGenerator[httpcore.AsyncConnectionPool, None]],
] = {}

# At level debug httpcore logs the headers of replies, cookies too. LOG_LEVEL=debug,httpcore=debug asks for it by name.
if logging.getLogger("httpcore").level == logging.NOTSET:
    logging.getLogger("httpcore").setLevel(logging.INFO)


async def pool_for(allowed: tuple[Network, ...]) -> httpcore.AsyncConnectionPool:
    """The running loop's pool of connections to the public internet and the allowed networks."""
    key = (asyncio.get_running_loop(), allowed)
    if key not in _pools:
        for other in list(_pools):
            if other[0].is_closed():  # without shutdown_asyncgens: nothing is left that could close it
                _pools.pop(other, None)
        life = _live(key)
        _pools[key] = (await anext(life), life)
    return _pools[key][0]


async def _live(
    key: tuple[asyncio.AbstractEventLoop, tuple[Network, ...]],
) -> AsyncGenerator[httpcore.AsyncConnectionPool, None]:
    async with httpcore.AsyncConnectionPool(
        ssl_context=_tls(), max_connections=None, max_keepalive_connections=MAX_IDLE_CONNECTIONS,
        keepalive_expiry=KEEPALIVE_SECONDS, network_backend=GuardedBackend(key[1]),
    ) as pool:  # fmt: skip
        try:
            yield pool
        finally:
            _pools.pop(key, None)


@lru_cache(maxsize=1)
def _tls() -> ssl.SSLContext:
    """Trusts the authorities of certifi and those of the system, or of SSL_CERT_FILE; made once, in about 30 ms."""
    context = httpx.create_ssl_context(trust_env=False)
    context.load_default_certs()
    return context


class GuardedBackend(httpcore.AsyncNetworkBackend):
    """Connects to no address that has not been checked."""

    def __init__(self, allowed: tuple[Network, ...]) -> None:
        self._allowed = allowed
        self._inner = httpcore.AnyIOBackend()
        self._lookups = asyncio.Semaphore(MAX_LOOKUPS)

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the signature is httpcore's
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Look the host up, check all its addresses, and connect to the first that answers.

        Raises: AddressRefused: see `check_addresses`. ConnectionFailed: the name is not found, or nothing answers.
        """
        addresses = await self._look_up(host, port)
        check_addresses(host, addresses, self._allowed)
        reason: Exception | None = None
        for address in addresses:
            seconds = timeout if address == addresses[-1] else CONNECT_SECONDS
            try:
                return await self._inner.connect_tcp(address, port, seconds, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                reason = error
        assert reason is not None
        raise ConnectionFailed(f"can't connect to {host}, port {port}: {reason_of(reason)}") from None

    async def _look_up(self, host: str, port: int) -> list[str]:
        with suppress(ValueError):
            return [str(ip_address(host))]
        await self._lookups.acquire()
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[list[str] | Exception] = loop.create_future()

        def deliver(found: list[str] | Exception) -> None:
            self._lookups.release()
            if not answer.done():
                answer.set_result(found)

        def ask() -> None:
            found: list[str] | Exception
            try:
                infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
                found = list(dict.fromkeys(str(info[4][0]) for info in infos))
            except Exception as error:  # noqa: BLE001 - whatever it is, the coroutine waits for an answer
                found = error
            with suppress(RuntimeError):  # the loop has ended, and nobody waits
                loop.call_soon_threadsafe(deliver, found)

        # A thread of its own, since a loop waits at its end for those of its executor, however long they take.
        threading.Thread(target=ask, name="http.request name look-up", daemon=True).start()
        found = await answer
        if isinstance(found, Exception):
            reason = found.strerror if isinstance(found, OSError) else "it is no host name"
            raise ConnectionFailed(f"the host {host} is not found: {reason}")
        return found


def reason_of(error: BaseException) -> str:
    """Why a connection failed, in the words of the system or of TLS where they are the reason."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate is not accepted ({cause.verify_message})"
        if isinstance(cause, OSError) and cause.errno and not isinstance(cause, ssl.SSLError):
            return os.strerror(cause.errno)
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, TimeoutError | httpcore.TimeoutException):
        return "no answer in time"
    return _BYTES.split(str(error))[0] or type(error).__name__
