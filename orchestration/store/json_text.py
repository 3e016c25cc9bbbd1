"""JSON as it is kept in `json` columns: texts, so that what was given comes back as it was."""

from __future__ import annotations

import json

import orjson

#: What orjson would write in its own way is no JSON to us.
_STRICT = orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_SUBCLASS


def dump(value: object) -> str:
    """The JSON text of a value.

    Raises: TypeError, ValueError: it is not JSON; NaN and infinity neither.
    """
    try:
        text = orjson.dumps(value, option=_STRICT).decode()
    except TypeError:  # integers beyond 64 bits, lone surrogates, enums: the standard library writes them
        return json.dumps(value, allow_nan=False)
    # orjson writes NaN as null; the standard library, 20 times slower, refuses it.
    return json.dumps(value, allow_nan=False) if "null" in text else text


def load(text: str | bytes) -> object:
    """The value of a JSON text."""
    try:
        return orjson.loads(text)
    except ValueError:  # numbers beyond a double, lone surrogates
        return json.loads(text)
