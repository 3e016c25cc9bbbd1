"""Where a thread, a greenlet or an asyncio task is in the work of a run, for log lines and whoever else asks.

The engine says where it is once for each runner, claim and call, by plain assignments (`at`, `Place.call`); what they
mean is worked out only when a line is made. What an action starts by `asyncio` knows it too, a thread of its own does
not, but for what it logs by `ctx.logger`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final, Protocol

from opentelemetry import trace

from config.logs import HIDDEN
from orchestration.vocabulary import NO_ITEM, UnitKind

#: The attribute of a record that says where it belongs, whoever makes it.
SPOT: Final = f"{HIDDEN}spot"


class Session(Protocol):
    """What is asked of a flow session."""

    flow_session_id: str
    #: ISO date: its partition in PostgreSQL.
    day: str

    @property
    def workflow(self) -> str: ...
    @property
    def traceparent(self) -> str | None: ...

    def now_us(self) -> int:
        """The time by Redis, µs since the epoch."""


class Unit(Protocol):
    """What is asked of a claim."""

    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> UnitKind: ...


class RunningTask(Protocol):
    """What is asked of the call of an action."""

    action: str
    item: int

    @property
    def number(self) -> int:
        """Which attempt of the task."""


@dataclass(slots=True, eq=False)
class Place:
    """One claim at work, or a runner between claims (`unit` None)."""

    session: Session
    unit: Unit | None = None
    #: The call that its code is in, or was in last.
    call: RunningTask | None = None


#: A place, and the task there.
Spot = tuple[Place, RunningTask | None]

_current: ContextVar[Place | None] = ContextVar("place", default=None)


def current_place() -> Place | None:
    """Where this thread, greenlet or asyncio task is; None: at no run."""
    return _current.get()


class at:  # noqa: N801 - read as `with at(place):`
    """What runs in the block is at that place. A class, since a generator would cost a claim a µs."""

    __slots__ = ("_place", "_token")

    def __init__(self, place: Place) -> None:
        self._place = place

    def __enter__(self) -> Place:
        self._token = _current.set(self._place)
        return self._place

    def __exit__(self, *_: object) -> None:
        _current.reset(self._token)


def spot_of(record: logging.LogRecord) -> Spot | None:
    """Where a record belongs: the place and task that its logger was made for, else those of the code that made it."""
    spot: Spot | None = getattr(record, SPOT, None)
    if spot is None:
        place = _current.get()
        spot = None if place is None else (place, place.call)
    return spot


def ids_of_record(record: logging.LogRecord) -> Mapping[str, object]:
    """The ids of a record, by the names of `config.log_fields.IDS`; only those that are known."""
    spot = spot_of(record)
    if spot is None:
        trace_id = _trace_id(None)
        return {"trace_id": trace_id} if trace_id else {}
    place, call = spot
    session = place.session
    ids: dict[str, object] = {"flow_session_id": session.flow_session_id, "workflow_id": session.workflow}
    if call is not None:
        task = place_of_task(call.action, call.item)
        ids |= {"task_id": task, "attempt": call.number}
        ids["branch_id"] = task if place.unit is None or call.item != NO_ITEM else place.unit.name
    elif place.unit is not None:
        ids["branch_id"] = place.unit.name
    trace_id = _trace_id(session)
    if trace_id:
        ids["trace_id"] = trace_id
    return ids


def place_of_task(action: str, item: int) -> str:
    """A task in its session: `action`, or `action:item`."""
    return action if item == NO_ITEM else f"{action}:{item}"


class ActionLogger(logging.LoggerAdapter[logging.Logger]):
    """`ctx.logger`: its lines belong to its task, whichever thread makes them."""

    def __init__(self, logger: logging.Logger, spot: Spot) -> None:
        super().__init__(logger, {SPOT: spot})

    def process(self, msg: object, kwargs: object) -> tuple[object, object]:  # type: ignore[override]
        """As the base class, but what a call brings along as `extra` stays."""
        assert isinstance(kwargs, dict)
        kwargs["extra"] = {**(kwargs.get("extra") or {}), **(self.extra or {})}
        return msg, kwargs


def _trace_id(session: Session | None) -> str | None:
    """The trace of the current span, else of the session."""
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        return trace.format_trace_id(context.trace_id)
    traceparent = None if session is None else session.traceparent
    return None if traceparent is None else traceparent.split("-")[1]
