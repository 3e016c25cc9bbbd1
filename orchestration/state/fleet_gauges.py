"""The fleet in numbers, for metrics: queues, limits, workers, repairs. Nothing is changed.

Its cost grows with queues, limits and workers, and with sessions that wait up to a bound: not with branches.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from orchestration.state.queues import QueueCounts
from orchestration.state.reading import LiveReading

#: Sessions that wait for a queue, or at a limit, of which the oldest unit is looked at.
MOST_WAITING: Final = 200
#: Limits of single concurrency keys that are looked at.
MOST_KEYS: Final = 1000


@dataclass(slots=True)
class QueueGauges:
    """What is there for a queue."""

    counts: QueueCounts
    #: How long the oldest ready unit of those that wait, for a slot or at a limit, has been ready.
    oldest_wait_seconds: float = 0.0


@dataclass(slots=True)
class LimitGauges:
    """A limit, or all those of concurrency keys together."""

    held: int = 0
    #: 0: there is none.
    most: int = 0
    blocked: int = 0


@dataclass(slots=True)
class FleetGauges:
    """The fleet at a moment."""

    queues: dict[str, QueueGauges] = field(default_factory=dict)
    #: (level, workflow) → limit. Levels: global, workflow, key; sessions, sessions_workflow, sessions_key of whole
    #: flow sessions. The workflow is empty where the level is not of one.
    limits: dict[tuple[str, str], LimitGauges] = field(default_factory=dict)
    #: Permits in use.
    active: int = 0
    running: int = 0
    queued: int = 0
    workers: int = 0
    #: Cause → how often.
    repairs: dict[str, int] = field(default_factory=dict)
    is_full: bool = False


def read_gauges(live: LiveReading) -> FleetGauges:
    """The fleet just now, in three round trips.

    Raises: RedisError.
    """
    state = FleetGauges()
    key, now_us = live.space.key, live.now_us()
    pipe = live.client.pipeline(transaction=False)
    pipe.smembers(key("queues")).hgetall(key("limits")).hgetall(key("repairs")).exists(key("status_full"))
    pipe.zcard(key("permits", "global")).zcard(key("sessions_running")).zcard(key("sessions_queued"))
    pipe.zcount(key("workers"), now_us, "+inf")
    queues, limits, repairs, is_full, state.active, state.running, state.queued, state.workers = pipe.execute()
    state.is_full = bool(is_full)
    state.repairs = {cause.decode(): int(count) for cause, count in repairs.items()}
    names = sorted(name.decode() for name in queues)
    levels = _bounded(sorted((name.decode(), int(most)) for name, most in limits.items()))
    pipe = live.client.pipeline(transaction=False)
    for name in names:
        QueueCounts.ask(pipe, live.space, name)
        pipe.zrange(key("waiting", name), 0, MOST_WAITING - 1)
    for level, _ in levels:
        whole = level == "sessions"
        blocked = key("sessions_queued") if whole else key("blocked", level)
        pipe.zcard(key("sessions_running") if whole else key("permits", level)).zcard(blocked)
        pipe.zrange(blocked, 0, MOST_WAITING - 1)
    replies = iter(pipe.execute())
    waits: list[tuple[str, str]] = []
    for name in names:
        state.queues[name] = QueueGauges(QueueCounts.take(replies))
        waits += [(name, session.decode()) for session in next(replies)]
    for level, most in levels:
        held, blocked, members = (next(replies) for _ in range(3))
        limit = state.limits.setdefault(_place_of(level), LimitGauges())
        limit.held, limit.most, limit.blocked = limit.held + held, limit.most + most, limit.blocked + blocked
        if not level.startswith("sessions"):
            waits += [(queue, session) for queue, _, session in (member.decode().rpartition("|") for member in members)]
    _look_for_oldest(live, state, waits, now_us)
    return state


def _bounded(levels: Iterable[tuple[str, int]]) -> list[tuple[str, int]]:
    """Limits of concurrency keys, of which there may be any number, up to a bound; those of single sessions not."""
    found, keys = [], 0
    for level, most in levels:
        is_key = level.startswith(("key:", "sessions:key:"))
        keys += is_key
        if not level.startswith("session:") and not (is_key and keys > MOST_KEYS):
            found.append((level, most))
    return found


def _place_of(level: str) -> tuple[str, str]:
    """`sessions:workflow:nightly` → (sessions_workflow, nightly); a key is nobody's business."""
    prefix = "sessions_" if level.startswith("sessions:") else ""
    kind, _, name = level.removeprefix("sessions:").partition(":")
    return prefix + kind, name if kind == "workflow" else ""


def _look_for_oldest(live: LiveReading, state: FleetGauges, waits: Iterable[tuple[str, str]], now_us: int) -> None:
    pairs = sorted(set(waits))
    pipe = live.client.pipeline(transaction=False)
    for queue, session in pairs:
        pipe.zrange(live.space.key("ready", session, queue), 0, 0, withscores=True)
    replies: list[list[tuple[Any, float]]] = pipe.execute()
    for (queue, _), oldest in zip(pairs, replies, strict=True):
        if oldest:
            seconds = max(0.0, (now_us - oldest[0][1]) / 1e6)
            place = state.queues.setdefault(queue, QueueGauges(QueueCounts(0, 0, 0)))
            place.oldest_wait_seconds = max(place.oldest_wait_seconds, seconds)
