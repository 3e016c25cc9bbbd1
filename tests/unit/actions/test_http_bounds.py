"""The bounds of `http.request`: bytes as they come and decompressed, and time."""

from __future__ import annotations

import asyncio
import gzip
import socket
import threading
import tracemalloc
import zlib
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallelizer.actions.http.bodies import interpret, read_body
from parallelizer.actions.http.errors import (
    HttpError,
    ReplyTooLarge,
    ReplyUnreadable,
    RequestTimedOut,
)
from tests.support.http_calls import call
from tests.support.waiting import wait_until
from tests.support.web import Site, Visit, hold_until

MIB = 1_048_576


@pytest.mark.parametrize("announced", [True, False])
def test_a_body_ends_at_its_bound(site: Site, announced: bool) -> None:
    stopped = threading.Event()

    @site.page("/endless")
    def endless(visit: Visit) -> None:
        visit.send_response(200)
        if announced:
            visit.send_header("content-length", str(10**15))
        visit.send_header("connection", "close")
        visit.end_headers()
        try:
            while True:
                visit.wfile.write(b"x" * 65_536)
        except OSError:
            stopped.set()

    with pytest.raises(ReplyTooLarge, match=r"GET http://127.*max_bytes=100000"):
        call(site.url("/endless"), max_bytes=100_000)
    assert stopped.wait(30), "the connection stays open"


def test_a_body_of_exactly_the_bound_is_read(site: Site) -> None:
    for compress, coding in ((bytes, "identity"), (gzip.compress, "gzip")):
        site.say("/", compress(b"x" * 1000), content_encoding=coding)
        assert call(site.url(), max_bytes=1000)["bytes"] == 1000
        with pytest.raises(ReplyTooLarge):
            call(site.url(), max_bytes=999)


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_a_compressed_bomb_ends_at_the_bound(site: Site, coding: str) -> None:
    wbits = 31 if coding == "gzip" else 15
    packer = zlib.compressobj(9, zlib.DEFLATED, wbits)
    bomb = b"".join(packer.compress(bytes(MIB)) for _ in range(256)) + packer.flush()
    assert len(bomb) < MIB
    site.say("/", bomb, content_encoding=coding)
    call(site.url(), method="HEAD")  # loads what is loaded once
    tracemalloc.start()
    try:
        with pytest.raises(ReplyTooLarge):
            call(site.url())
        assert tracemalloc.get_traced_memory()[1] < 8 * MIB
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("body", "coding", "expected"),
    [
        (gzip.compress(b"one", mtime=0), "gzip", "one"),
        (gzip.compress(b"one ", mtime=0) + gzip.compress(b"two", mtime=0), "x-gzip", "one two"),
        (zlib.compress(b"one"), "deflate", "one"),
        (zlib.compress(b"one", wbits=-15), "Deflate", "one"),
        (b"one", "identity", "one"),
        (b"", "gzip", ""),
        (gzip.compress(b"one", mtime=0)[:-3], "gzip", None),
        (b"not compressed", "gzip", None),
        (b"\x0bone", "br", None),
        (gzip.compress(gzip.compress(b"one", mtime=0), mtime=0), "gzip, gzip", None),
    ],
)
def test_compressed_bodies_are_read_whole_or_not_at_all(
    site: Site, body: bytes, coding: str, expected: str | None
) -> None:
    site.say("/", body, content_encoding=coding)
    if expected is None:
        with pytest.raises(ReplyUnreadable, match="compressed"):
            call(site.url())
    else:
        assert call(site.url())["body"] == expected


async def pieces(body: bytes, size: int) -> Any:
    for start in range(0, len(body), size):
        yield body[start : start + size]


@given(
    st.binary(max_size=2000), st.sampled_from(["", "gzip", "deflate"]), st.integers(1, 100), st.integers(0, 5000)
)  # fmt: skip
def test_a_body_in_pieces_of_any_size_is_read_like_one_piece(
    body: bytes, coding: str, size: int, max_bytes: int
) -> None:
    packed = body if not coding else gzip.compress(body) if coding == "gzip" else zlib.compress(body)
    read = read_body(pieces(packed, size), coding, max_bytes)
    if max(len(body), len(packed)) > max_bytes:
        with pytest.raises(ReplyTooLarge):
            asyncio.run(read)
        cut = asyncio.run(read_body(pieces(packed, size), coding, max_bytes, cut=True))
        assert len(cut) <= max_bytes
        assert body.startswith(cut)
    else:
        assert asyncio.run(read) == body


@given(st.binary(max_size=200), st.text(max_size=50), st.sampled_from(["gzip", "deflate", "br", "\x00", "gzip,x"]))
def test_no_body_and_no_header_raises_anything_but_our_errors(body: bytes, text: str, coding: str) -> None:
    for attempt in (
        partial(interpret, body, f"application/json; {text}"),
        partial(interpret, body, f"text/plain; charset={text}"),
        lambda: asyncio.run(read_body(pieces(body, 7), coding, 100)),
    ):
        assert len(message_of(attempt)) < 200


def message_of(attempt: Callable[[], object]) -> str:
    try:
        attempt()
    except HttpError as error:
        return str(error)
    return ""


def test_time_is_limited_as_a_whole(site: Site) -> None:
    """However steadily bytes drip in, and whatever part it waits for."""
    ended = threading.Event()

    @site.page("/drip")
    def drip(visit: Visit) -> None:
        visit.send_response(200)
        visit.send_header("content-length", "100000")
        visit.end_headers()
        try:
            while not ended.wait(0.01):
                visit.wfile.write(b"x")
        except OSError:
            pass

    site.pages["/silent"] = hold_until(ended)
    site.say("/redirect", b"", 302, location="/silent")
    try:
        for path in ("/drip", "/silent", "/redirect"):
            with pytest.raises(RequestTimedOut, match=r"took longer than timeout_seconds=0\.3"):
                call(site.url(path), timeout_seconds=0.3)
    finally:
        ended.set()


def test_a_name_server_that_does_not_answer_holds_nothing_up(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, answer = threading.Event(), threading.Event()

    def ask(*_: Any, **__: Any) -> Any:
        asked.set()
        answer.wait()
        return []

    monkeypatch.setattr(socket, "getaddrinfo", ask)
    with pytest.raises(RequestTimedOut):
        call("http://slow.test/", timeout_seconds=0.2)
    assert asked.is_set()
    assert not answer.is_set(), "the loop did not wait for the thread"
    answer.set()
    wait_until(lambda: not any("look-up" in thread.name for thread in threading.enumerate()), "the thread ends")
