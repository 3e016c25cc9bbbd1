"""JSON → values, strictly, with the places of keys and values when something is wrong. Pure; called by `loader.py`."""

from __future__ import annotations

import bisect
import json
import re
from collections.abc import Iterator

from orchestration.definition.places import DocumentPath, Places
from orchestration.errors import DefinitionError, Problem

MAX_JSON_BYTES = 16 * 1_048_576
MAX_JSON_DEPTH = 100

_TOKEN = re.compile(r'[ \t\n\r]*(?:(["{}\[\],:])|([^"{}\[\],: \t\n\r]+))')


def read_json(text: str, file: str = "") -> object:
    """Read one JSON document. What JSON itself allows but we don't (NaN, large integers) is found by the loader.

    Raises: DefinitionError: not JSON, nested too deep, or a key is there twice.
    """
    if _too_deep(text):
        raise DefinitionError([Problem(f"nested more than {MAX_JSON_DEPTH} deep", file=file)])
    duplicates = False

    def build(pairs: list[tuple[str, object]]) -> dict[str, object]:
        nonlocal duplicates
        result = dict(pairs)
        duplicates = duplicates or len(result) < len(pairs)
        return result

    try:
        value = json.loads(text, object_pairs_hook=build, parse_int=_integer)
    except json.JSONDecodeError as error:
        message = error.msg[:1].lower() + error.msg[1:]
        raise DefinitionError([Problem(f"not JSON: {message}", "", file, error.lineno, error.colno)]) from None
    if duplicates:
        raise DefinitionError(
            [
                Problem(f"key {path[-1]!r} is here twice", "", file, line, column)
                for path, (line, column) in _repeated(text)
            ]
        )
    return value


def find_json_places(text: str) -> Places:
    """Find the place of every key and value of a text that `read_json` has read."""
    places = Places()
    for path, place, is_key in _scan(text):
        (places.keys if is_key else places.values)[path] = place
    return places


_read_string = json.JSONDecoder().raw_decode


def _integer(digits: str) -> int:
    # Python refuses more than 4,300 digits; one of 30 is beyond 64 bits as well, and says so in the same words.
    return int(digits[:30])


def _too_deep(text: str) -> bool:
    if text.count("[") + text.count("{") <= MAX_JSON_DEPTH:
        return False
    depth = 0
    for match in re.finditer(r'"(?:[^"\\]|\\.)*"|([\[{])|([\]}])', text, re.DOTALL):
        depth += (match.group(1) is not None) - (match.group(2) is not None)
        if depth > MAX_JSON_DEPTH:
            return True
    return False


def _repeated(text: str) -> Iterator[tuple[DocumentPath, tuple[int, int]]]:
    seen: set[DocumentPath] = set()
    for path, place, is_key in _scan(text):
        if is_key and path in seen:
            yield path, place
        if is_key:
            seen.add(path)


def _scan(text: str) -> Iterator[tuple[DocumentPath, tuple[int, int], bool]]:
    """Yield path, place and whether it is a key's, for valid JSON."""
    line_starts = [0, *(match.end() for match in re.finditer("\n", text))]
    open_: list[list[int | str | None]] = []  # per container the index, or the key (None: a key comes next)
    at = 0

    def place(offset: int) -> tuple[int, int]:
        line = bisect.bisect_right(line_starts, offset)
        return line, offset - line_starts[line - 1] + 1

    def path() -> DocumentPath:
        return tuple(key[0] for key in open_ if key[0] is not None)

    while (match := _TOKEN.match(text, at)) is not None:
        mark, start = match.group(1), match.start(match.lastindex or 0)
        at = match.end()
        if mark == '"':
            string, at = _read_string(text, start)
            if open_ and open_[-1][0] is None:
                open_[-1][0] = string
                yield path(), place(start), True
            else:
                yield path(), place(start), False
        elif mark in ("{", "["):
            yield path(), place(start), False
            open_.append([None] if mark == "{" else [0])
        elif mark in ("}", "]"):
            open_.pop()
        elif mark == ",":
            key = open_[-1][0]
            open_[-1][0] = key + 1 if isinstance(key, int) else None
        elif mark != ":":
            yield path(), place(start), False
