"""Bodies of replies: decompressed up to a bound, and read as JSON, text, or neither. Pure but for the stream.

Decompression is done here, and not by the client, since it must stop in the middle of a chunk: 64 KiB that came may
hold 64 MiB.
"""

from __future__ import annotations

import codecs
import json
import re
import zlib
from base64 import b64encode
from collections.abc import AsyncIterator

from parallelizer.actions.http.errors import ReplyTooLarge, ReplyUnreadable

#: What is asked for (`Accept-Encoding`) and understood.
CODINGS = "gzip, deflate"
#: Encodings of Python's own, which are for other things than text of servers; idna takes quadratic time.
_NO_CHARSETS = frozenset({"idna", "punycode", "raw_unicode_escape", "unicode_escape", "undefined", "utf-7"})
_CHARSET = re.compile(r';\s*charset\s*=\s*"?([\w.:-]{1,40})', re.IGNORECASE)


async def read_body(chunks: AsyncIterator[bytes], coding: str, max_bytes: int, *, cut: bool = False) -> bytes:
    """The whole body, decompressed; with `cut`, only its first `max_bytes`.

    Raises: ReplyTooLarge: it has more than `max_bytes`, as it came or decompressed. ReplyUnreadable: see `_Inflater`.
    """
    inflater = _Inflater(coding)
    body = bytearray()
    arrived = 0
    async for chunk in chunks:
        arrived += len(chunk)
        body += inflater.feed(chunk, max_bytes - len(body))
        if arrived > max_bytes or len(body) > max_bytes:
            if cut:
                return bytes(body[:max_bytes])
            raise ReplyTooLarge(f"the body has more than max_bytes={max_bytes} bytes")
    inflater.check_end()
    return bytes(body)


def interpret(body: bytes, content_type: str) -> tuple[object, bool]:
    """What the body says.

    Returns: JSON where the content type says so (None where there is no body), else text; bytes that are no text as
        base64, and then True.
    Raises: ReplyUnreadable: the content type says JSON, and it is none.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if kind.endswith(("/json", "+json")):
        if not body.strip():
            return None, False
        try:
            return json.loads(body), False
        except RecursionError:
            raise ReplyUnreadable(f"the body, {kind}, is nested too deep") from None
        except ValueError as error:  # its text may quote the body
            place = f" at character {error.pos}" if isinstance(error, json.JSONDecodeError) else ""
            raise ReplyUnreadable(f"the content type is {kind}, and the body is not JSON{place}") from None
    charset = _CHARSET.search(content_type)
    try:
        known = codecs.lookup(charset[1] if charset else "utf-8").name
        text = body.decode("utf-8" if known in _NO_CHARSETS else known)
    except (LookupError, ValueError):
        return b64encode(body).decode(), True
    if "\0" in text:
        return b64encode(body).decode(), True
    return text, False


class _Inflater:
    """Decompresses `gzip` (with all its members) and `deflate` (with and without its zlib header) piece by piece.

    Raises: ReplyUnreadable: another coding, broken data, or an end in the middle.
    """

    def __init__(self, coding: str) -> None:
        self._coding = coding.strip().lower()
        if self._coding not in ("", "identity", "gzip", "x-gzip", "deflate"):
            raise ReplyUnreadable(f"the body is compressed as {self._coding[:40]!r}, not as {CODINGS}")
        self._plain = self._coding in ("", "identity")
        self._started = False
        # 32 + MAX_WBITS: by its header, gzip or zlib
        self._stream = zlib.decompressobj(32 + zlib.MAX_WBITS)

    def feed(self, chunk: bytes, at_most: int) -> bytes:
        """What a chunk holds; of more than `at_most` bytes, the one byte that is too much is the last."""
        if self._plain:
            return chunk
        found = bytearray()
        while chunk and len(found) <= at_most:
            if self._stream.eof:
                if self._coding == "deflate":
                    break
                self._stream = zlib.decompressobj(32 + zlib.MAX_WBITS)
            elif not self._started and self._coding == "deflate" and not _has_zlib_header(chunk):
                self._stream = zlib.decompressobj(-zlib.MAX_WBITS)
            self._started = True
            try:
                found += self._stream.decompress(chunk, at_most + 1 - len(found))
            except zlib.error:
                raise ReplyUnreadable(f"the body is compressed as {self._coding}, and broken") from None
            chunk = self._stream.unconsumed_tail or self._stream.unused_data
        return bytes(found)

    def check_end(self) -> None:
        """Refuse a body that ends in the middle."""
        if self._started and not self._stream.eof:
            raise ReplyUnreadable(f"the body is compressed as {self._coding}, and ends in the middle")


def _has_zlib_header(start: bytes) -> bool:
    """RFC 1950: method 8 in the low bits, and the first two bytes are a multiple of 31."""
    return start[0] & 0x0F == 8 and (len(start) < 2 or int.from_bytes(start[:2]) % 31 == 0)
