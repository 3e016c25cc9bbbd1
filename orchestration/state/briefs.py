"""How many sessions stand, for lists: what `LiveReading.snapshot` tells of one, without its claims, quickly."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from orchestration.state.reading import LiveReading
from orchestration.state.records import LiveSnapshot
from orchestration.state.wire import counts_of, items_of, paused_reasons

_Fields = Mapping[bytes, bytes]


@dataclass(frozen=True, slots=True)
class Brief(LiveSnapshot):
    """A session's live state without its claims, and what it waits for."""

    workflow: str = ""
    #: Queues without a worker on which work of it is ready.
    unserved: tuple[str, ...] = ()
    #: Limits that it waits for, whole or with some of its branches, and what they are now (0: none).
    waits_at: Mapping[str, int] = field(default_factory=dict)


def read_briefs(live: LiveReading, flow_session_ids: Sequence[str]) -> dict[str, Brief]:
    """Sessions that have live state, without their claims; those that have none are left out."""
    key, pipe = live.space.key, live.client.pipeline(transaction=False)
    for name in flow_session_ids:
        pipe.hgetall(key("session", name)).hlen(key("own", name)).zcard(key("deferred", name))
    replies = pipe.execute() if flow_session_ids else []
    found = {
        name: (fields, in_use, deferred)
        for name, fields, in_use, deferred in zip(
            flow_session_ids, replies[::3], replies[1::3], replies[2::3], strict=True
        )
        if fields
    }
    if not found:
        return {}
    pipe = live.client.pipeline(transaction=False)
    for name, (fields, _, _) in found.items():
        for action in _actions(fields):
            pipe.hgetall(key("items", name, action))
        for queue in _queues(fields):
            pipe.zcard(key("ready", name, queue)).get(key("slots_total", queue))
            for action in _actions(fields):
                pipe.zscore(key("ready", name, queue), f"i:{action}")
        for level in _levels(fields):
            pipe.hget(key("limits"), level)
            for place, member in _places(live, name, level, fields):
                pipe.zscore(place, member)
    answers = iter(pipe.execute())
    return {name: _brief(live, name, *of_one, answers) for name, of_one in found.items()}


def _brief(live: LiveReading, name: str, fields: _Fields, in_use: int, deferred: int, answers: Iterator[Any]) -> Brief:
    items = {action: items_of(reply) for action in _actions(fields) if (reply := next(answers))}
    ready, unserved = 0, []
    for queue in _queues(fields):
        units, slots = int(next(answers)), int(next(answers) or 0)
        # one entry stands for all items of an action
        ready += units - sum(next(answers) is not None for _ in _actions(fields))
        if units and slots <= 0:
            unserved.append(queue)
    waits_at = {}
    for level in _levels(fields):
        most = int(next(answers) or 0)
        scores = [next(answers) for _ in _places(live, name, level, fields)]
        if any(score is not None for score in scores):
            waits_at[level] = most
    ready += sum(item.size - item.started for item in items.values())
    status = fields[b"status"].decode()
    if status == "running" and not in_use and not ready and deferred:
        status = "suspended"
    return Brief(
        status, int(fields[b"limit"]), in_use, (), ready, deferred, int(fields[b"open"]), counts_of(fields), items,
        paused_reasons(fields.get(b"paused")), fields[b"workflow"].decode(), tuple(unserved), waits_at,
    )  # fmt: skip


def _actions(fields: _Fields) -> list[str]:
    return [name[5:].decode() for name in fields if name.startswith(b"each:")]


def _queues(fields: _Fields) -> list[str]:
    return fields[b"queues"].decode().split(",")


def _levels(fields: _Fields) -> list[str]:
    """The limits that the session may wait for, the narrowest first."""
    key = fields.get(b"key")
    levels = [*([f"key:{key.decode()}"] if key is not None else []), f"workflow:{fields[b'workflow'].decode()}"]
    if fields[b"status"] == b"queued":
        return [*(f"sessions:{level}" for level in levels), "sessions"]
    return [*levels, "global"] if any(name.startswith(b"blocked:") for name in fields) else []


def _places(live: LiveReading, name: str, level: str, fields: _Fields) -> list[tuple[str, str]]:
    """Where the session stands if it waits for the limit of this level: sorted set and member."""
    key = live.space.key
    if level == "sessions":
        return [(key("sessions_queued"), name)]
    if level.startswith("sessions:"):
        return [(key("blocked", level), name)]
    queues = [field[8:].decode() for field in fields if field.startswith(b"blocked:")]
    return [(key("blocked", level), f"{queue}|{name}") for queue in queues]
