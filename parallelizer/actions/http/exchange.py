"""One exchange: the request goes out, redirects are followed, the reply is read within its bounds of time and bytes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection
from contextlib import aclosing
from typing import cast

import httpcore
import httpx

from parallelizer.actions.http.addresses import parse_networks
from parallelizer.actions.http.bodies import interpret, read_body
from parallelizer.actions.http.connections import TRANSPORT_ERRORS, pool_for, reason_of
from parallelizer.actions.http.errors import (
    ClientErrorStatus,
    ConnectionFailed,
    HttpError,
    ReplyTooLarge,
    RequestTimedOut,
    ServerErrorStatus,
    TooManyRedirects,
    UnexpectedStatus,
)
from parallelizer.actions.http.outgoing import follow_redirect, shown
from parallelizer.actions.http.sent import Sent

MAX_REDIRECTS = 10
#: Most that is read of the body of a status that was not expected; a piece of it is shown.
MAX_ERROR_BODY_BYTES = 65_536


async def exchange(
    request: httpx.Request,
    *,
    networks: tuple[str, ...],
    timeout_seconds: float,
    follow_redirects: bool,
    max_bytes: int,
    ok: Collection[int] | None,
    sent: Sent,
) -> dict[str, object]:
    """Send the request and return what came: the result of `http.request`.

    Raises: HttpError: each of its subclasses; no text shows what `sent` holds.
    """
    try:
        async with asyncio.timeout(timeout_seconds):
            for _ in range(MAX_REDIRECTS + 1):
                pool = await pool_for(parse_networks(networks))
                async with pool.stream(
                    request.method, _target(request.url), headers=request.headers.raw, content=request.content
                ) as reply:
                    headers = httpx.Headers(reply.headers)
                    following = follow_redirect(request, reply.status, headers, sent) if follow_redirects else None
                    if following is None:
                        await _check_status(request, reply, headers, ok, sent)
                        return await _result(request, reply, headers, max_bytes)
                    request = following
            raise TooManyRedirects(f"more than {MAX_REDIRECTS} redirects, the last to {shown(request.url)}")
    except TimeoutError:
        raise RequestTimedOut(
            f"{request.method} {shown(request.url)} took longer than timeout_seconds={timeout_seconds:g}"
        ) from None
    except HttpError as error:
        raise error from None  # what lies below may quote the request
    except TRANSPORT_ERRORS as error:
        reason = sent.hide(reason_of(error))
        raise ConnectionFailed(f"{request.method} {shown(request.url)} got no reply: {reason}") from None


def _target(url: httpx.URL) -> httpcore.URL:
    return httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)


async def _check_status(
    request: httpx.Request, reply: httpcore.Response, headers: httpx.Headers, ok: Collection[int] | None, sent: Sent
) -> None:
    status = reply.status
    if 200 <= status < 300 if ok is None else status in ok:
        return
    kind = {4: ClientErrorStatus, 5: ServerErrorStatus}.get(status // 100, UnexpectedStatus)
    expected = "a status of 2xx" if ok is None else f"one of {', '.join(map(str, ok))}"
    message = f"{request.method} {shown(request.url)} answered {status}, not {expected}"
    try:
        body = await _read(reply, headers, MAX_ERROR_BODY_BYTES, cut=True)
        piece = sent.hide(body.decode("utf-8", "replace"))
    except (HttpError, *TRANSPORT_ERRORS):
        piece = ""  # the status is what matters
    raise kind(f"{message}: {piece}" if piece else message)


async def _result(
    request: httpx.Request, reply: httpcore.Response, headers: httpx.Headers, max_bytes: int
) -> dict[str, object]:
    place = f"{request.method} {shown(request.url)}"
    announced = headers.get("content-length", "")
    try:
        if request.method != "HEAD" and announced.isdecimal() and int(announced[:20]) > max_bytes:
            raise ReplyTooLarge(f"the body has {announced[:20]} bytes, more than max_bytes={max_bytes}")
        body = await _read(reply, headers, max_bytes)
        value, in_base64 = interpret(body, headers.get("content-type", ""))
    except HttpError as error:
        raise type(error)(f"{place}: {error}") from None
    return {
        "status": reply.status,
        "url": shown(request.url),
        "headers": dict(headers.items()),
        "body": value,
        "base64": in_base64,
        "bytes": len(body),
    }


async def _read(reply: httpcore.Response, headers: httpx.Headers, max_bytes: int, *, cut: bool = False) -> bytes:
    async with aclosing(cast("AsyncGenerator[bytes, None]", reply.aiter_stream())) as chunks:
        return await read_body(chunks, headers.get("content-encoding", ""), max_bytes, cut=cut)
