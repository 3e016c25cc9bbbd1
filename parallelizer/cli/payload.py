"""The payload as a person types it: JSON, `@file`, or `@-` for standard input."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from orchestration.errors import PayloadError

#: As deep as the processor accepts JSON anywhere.
MAX_DEPTH = 100
LARGEST_INTEGER = 2**63


def read_payload(option: str | None, max_bytes: int) -> dict[str, Any]:
    """Read the value of `--payload`; without one the payload is empty.

    Args: max_bytes: the setting MAX_PAYLOAD_BYTES.
    Raises: PayloadError: not there, too large, not JSON, or not an object; the message says where it goes wrong.
    """
    if option is None:
        return {}
    origin, text = _text_of(option, max_bytes)
    try:
        payload = json.loads(text, parse_constant=_no_such_number, parse_int=_integer, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        raise PayloadError(
            f"{origin} is not JSON: {error.msg} at line {error.lineno}, column {error.colno}; "
            "in a shell, put it in single quotes: --payload '{\"order_id\": 7}'"
        ) from None
    except RecursionError:
        raise PayloadError(f"{origin} is nested deeper than {MAX_DEPTH} levels") from None
    except ValueError as error:
        raise PayloadError(f"{origin} can't be a payload: {error}") from None
    if not isinstance(payload, dict):
        raise PayloadError(f'{origin} must be a JSON object, as in {{"order_id": 7}}, not {_kind(payload)}')
    if _deeper_than(payload, MAX_DEPTH):
        raise PayloadError(f"{origin} is nested deeper than {MAX_DEPTH} levels")
    return payload


def _text_of(option: str, max_bytes: int) -> tuple[str, str]:
    if not option.startswith("@"):
        origin, content = "the payload", option.encode("utf-8", "surrogateescape")
    elif option == "@-":
        origin, content = "the payload from standard input", sys.stdin.buffer.read(max_bytes + 1)
    else:
        origin, content = f"the payload file {option[1:]}", _content_of(Path(option[1:]), max_bytes)
    if len(content) > max_bytes:
        raise PayloadError(f"{origin} is larger than {max_bytes:,} bytes (MAX_PAYLOAD_BYTES)")
    try:
        return origin, content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise PayloadError(f"{origin} is not UTF-8: byte {error.object[error.start]:#04x} at {error.start}") from None


def _content_of(path: Path, max_bytes: int) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(max_bytes + 1)
    except IsADirectoryError:
        raise PayloadError(f"the payload file {path} is a folder") from None
    except OSError as error:
        raise PayloadError(f"can't read the payload file {path}: {error.strerror}") from None


def _no_such_number(constant: str) -> Any:
    raise ValueError(f"{constant} is not a JSON number")


def _integer(digits: str) -> int:
    # Counted first: turning a very long text into a number takes a while, and Python refuses to.
    if len(digits) > 20 or not -LARGEST_INTEGER <= (number := int(digits)) < LARGEST_INTEGER:
        raise ValueError(f"{digits[:24]} does not fit in 64 bits; write it as a string")
    return number


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for position, (key, _) in enumerate(pairs) if key in dict(pairs[:position]))
        raise ValueError(f"the key {twice!r} is there twice")
    return found


def _kind(value: object) -> str:
    return {list: "a list", str: "a string", bool: "a boolean", type(None): "null"}.get(type(value), "a number")


def _deeper_than(value: object, most: int) -> bool:
    level: list[object] = [value]
    for _ in range(most + 1):
        level = [
            child
            for parent in level
            if isinstance(parent, dict | list)
            for child in (parent.values() if isinstance(parent, dict) else parent)
        ]
        if not level:
            return False
    return True
