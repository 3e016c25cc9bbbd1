"""How a settled task is kept for those that read it: in Redis as bytes, in expressions as a mapping.

The first byte tells what follows: `+` the result as JSON; `@` nothing, the result is in PostgreSQL; `-` a JSON
mapping of status and error; `*` a JSON mapping of status and counts of a `for_each`, whose results are kept by item.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson

from orchestration.errors import ActionError
from orchestration.vocabulary import ItemCounts, TaskStatus

TaskView = Mapping[str, object]

STORED = b"@"
#: The result of an action that returns nothing.
NO_RESULT = b"null"


def encode_result(value: object, *, most_bytes: int) -> bytes:
    """An action's result as JSON.

    Raises: ActionError: it is not JSON (which part is not, is said), or larger than `most_bytes`.
    """
    if value is None:
        return NO_RESULT
    try:
        text = orjson.dumps(value, default=_refuse, option=orjson.OPT_NON_STR_KEYS)
    except orjson.JSONEncodeError as error:
        reason = str(error)
        if error.__cause__ is not None:
            reason = str(error.__cause__)
        raise ActionError(f"the result is not JSON: {reason}") from None
    if len(text) > most_bytes:
        raise ActionError(
            f"the result has {len(text)} bytes as JSON, more than MAX_STORED_RESULT_BYTES={most_bytes}; "
            "write it to a file or object store and return where it is"
        )
    if b"null" in text and has_nan(value):
        raise ActionError("the result is not JSON: it holds NaN or an infinity")
    return text


def _refuse(value: object) -> object:
    if isinstance(value, (set, frozenset)):
        raise TypeError(f"a {type(value).__name__} has no order; return a list")
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        return list(value)
    raise TypeError(f"it holds a {type(value).__module__}.{type(value).__qualname__}")


def has_nan(value: object) -> bool:
    """orjson writes NaN as null without a word."""
    if isinstance(value, float):
        return not math.isfinite(value)
    if isinstance(value, Mapping):
        return any(has_nan(part) for part in value.values())
    if isinstance(value, (list, tuple)):
        return any(has_nan(part) for part in value)
    return False


def keep_success(result: bytes) -> bytes:
    """What is kept of a task that succeeded."""
    return b"+" + result


def keep_ended(status: TaskStatus, error: Mapping[str, object] | None) -> bytes:
    """What is kept of a task that ended otherwise."""
    return b"-" + orjson.dumps({"status": status.value, "error": error})


def keep_items(status: TaskStatus, items: ItemCounts) -> bytes:
    """What is kept of a `for_each` whose items have all settled."""
    return b"*" + orjson.dumps({"status": status.value, "counts": counts_of(items)})


def counts_of(items: ItemCounts) -> dict[str, int]:
    """Numbers of items: in all, and for each status that occurs or matters."""
    return {
        "total": items.size, "succeeded": items.succeeded, "failed": items.failed, "timed_out": items.timed_out,
        "skipped": items.skipped, "cancelled": items.cancelled,
    }  # fmt: skip


def success_view(result: object) -> TaskView:
    """A task that succeeded, as expressions see it."""
    return {"status": TaskStatus.SUCCEEDED.value, "result": result, "error": None}


def ended_view(status: str, error: object) -> TaskView:
    """A task that ended otherwise, as expressions see it."""
    return {"status": status, "result": None, "error": error}


class ItemsView(Mapping[str, object]):
    """A `for_each` as expressions see it; its results are read when somebody asks for them."""

    def __init__(self, status: str, counts: Mapping[str, int], load: Any) -> None:
        self._plain: dict[str, object] = {"status": status, "error": None, "counts": counts}
        self._load = load

    def __getitem__(self, name: str) -> object:
        if name == "result" and name not in self._plain:
            self._plain["result"] = self._load()
        return self._plain[name]

    def __iter__(self) -> Iterator[str]:
        return iter(("status", "result", "error", "counts"))

    def __len__(self) -> int:
        return 4
