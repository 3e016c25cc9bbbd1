"""The trace of a flow session: its ids, and the notes by which processes tell what becomes a span. Pure.

A process that runs branches makes no spans of them. It puts a note before the rows of a status update, in the same
entry of the status channel: so a span is told if and only if its settlement was taken, whatever becomes of the process
afterwards. The upkeep process that writes the rows makes spans of both (tracing_spans.py). Nothing has to be remembered
for that between processes, since all ids follow from the flow session's and from the names of what they are for.

    ["x", traceparent, accepted_us, {…}]

`traceparent` is the caller's (W3C), or, where the session began the trace, that of its own root span. What is in the
last part: `ClaimTrace` and `tell_end` in engine/traced.py.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import Any, Final

#: What a row begins with that is a note.
NOTE: Final = "x"
#: So many steps of a branch, and items of a `for_each`, have a span each in any case; of further ones those that took
#: as long as SLOW_US, up to MOST_ITEMS. Those that failed have one too, up to MOST_ITEMS of a session in each process.
FIRST_ITEMS, MOST_ITEMS = 100, 1000
SLOW_US: Final = 10_000
#: W3C Trace Context, version 00; of later versions the first four parts are the same.
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_SAMPLED = 1


@dataclass(frozen=True, slots=True)
class SessionTrace:
    """Where the spans of one flow session belong."""

    flow_session_id: str
    trace_id: int
    #: Of the caller's span; None: the session began the trace.
    caller_span_id: int | None
    #: False: spans are made of what failed only, if it fails.
    is_sampled: bool
    #: When it was accepted, µs since the epoch: nothing of it began before.
    accepted_us: int

    @property
    def traceparent(self) -> str:
        """As it is recorded and travels: the caller's, or that of the root span."""
        span_id = self.lifecycle_id if self.caller_span_id is None else self.caller_span_id
        return f"00-{self.trace_id:032x}-{span_id:016x}-{int(self.is_sampled):02x}"

    @property
    def lifecycle_id(self) -> int:
        """Of `workflow_lifecycle`, the root."""
        return self._id("lifecycle")

    @property
    def execution_id(self) -> int:
        """Of `workflow_execution`."""
        return self._id("execution")

    def branch_id(self, branch: str) -> int:
        """Of `process_task_and_branches`: one for all attempts of a branch, or for all items of a `for_each`."""
        return self._id(f"branch/{branch}")

    def task_id(self, action: str, item: int, attempt: int) -> int:
        """Of `task_processing`: one for each attempt of a task, counted as people see it; `item` may be NO_ITEM."""
        return self._id(f"task/{item}/{attempt}/{action}")

    def chunk_id(self, action: str, start: int, attempt: int) -> int:
        """Of the `task_processing` that stands for several items."""
        return self._id(f"chunk/{start}/{attempt}/{action}")

    def _id(self, name: str) -> int:
        return _span_id(self.flow_session_id, name)


@dataclass(frozen=True, slots=True)
class TracedRows:
    """Rows of one status update that begin with a note."""

    flow_session_id: str
    day: str
    #: By Redis, µs since the epoch: nothing in it ended later.
    time_us: int
    worker: str | None
    rows: Sequence[Sequence[Any]]


def parse_traceparent(text: object) -> tuple[int, int, bool] | None:
    """Trace id, span id and whether it is sampled, of a `traceparent`; None: it is none."""
    found = _TRACEPARENT.fullmatch(text) if isinstance(text, str) else None
    if found is None or (text[:2] == "00" and found[4] is not None):  # type: ignore[index]  # it is a text
        return None
    return int(found[1], 16), int(found[2], 16), bool(int(found[3], 16) & _SAMPLED)


@lru_cache(maxsize=256)  # each branch of it is told with a note
def session_trace(flow_session_id: str, traceparent: object, accepted_us: int) -> SessionTrace | None:
    """The trace that is recorded with a session; None: it is not traced."""
    parsed = parse_traceparent(traceparent)
    if parsed is None:
        return None
    trace_id, span_id, is_sampled = parsed
    trace = SessionTrace(flow_session_id, trace_id, span_id, is_sampled, accepted_us)
    if span_id != trace.lifecycle_id:
        return trace
    return SessionTrace(flow_session_id, trace_id, None, is_sampled, accepted_us)


@lru_cache(maxsize=4096)  # a branch is asked for by its tasks and by those after it
def _span_id(flow_session_id: str, name: str) -> int:
    return int.from_bytes(blake2b(f"{flow_session_id}/{name}".encode(), digest_size=8).digest()) or 1


def own_trace_id(flow_session_id: str) -> int:
    """Of a session that begins its trace."""
    return int.from_bytes(blake2b(f"{flow_session_id}/trace".encode(), digest_size=16).digest()) or 1


def has_own_span(place: int, duration_us: int, *, failed: bool) -> bool:
    """Whether the step or item at this place has a span for itself."""
    return failed or place < FIRST_ITEMS or (place < MOST_ITEMS and duration_us >= SLOW_US)


def chunk_has_span(start: int, count: int, size: int) -> bool:
    """Whether a chunk of a `for_each` of `size` items has one for those of its items that have none: at most
    MOST_ITEMS of them have, evenly spread.
    """
    if start + count <= FIRST_ITEMS:
        return False
    every = -(-size // MOST_ITEMS)
    return -(-start // every) * every < start + count
