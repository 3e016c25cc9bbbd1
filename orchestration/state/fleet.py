"""The fleet as live state knows it: workers, queues, open sessions. Read for onlookers; nothing is changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestration.state.reading import LiveReading


@dataclass(frozen=True, slots=True)
class WorkerState:
    """A worker that is registered."""

    name: str
    #: Until its lease is over; negative: it has been for so long.
    lease_left_seconds: float
    queues: tuple[str, ...]
    #: Places of its pool, and runners at work in them.
    slots: int
    busy: int

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name, "lease_left_seconds": round(self.lease_left_seconds, 3), "queues": list(self.queues),
            "slots": self.slots, "busy": self.busy,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class QueueLoad:
    """A queue that has, or had, workers or work."""

    name: str
    slots: int
    #: Runners at work or on their way, and flow sessions that wait for a slot.
    in_flight: int
    waiting: int

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "slots": self.slots, "in_flight": self.in_flight, "waiting": self.waiting}


@dataclass(frozen=True, slots=True)
class SessionLoad:
    """An open flow session."""

    flow_session_id: str
    workflow: str
    status: str
    #: Permits in use, and its limit.
    in_use: int
    limit: int
    #: Units that are ready, and that wait for a time.
    ready: int
    deferred: int
    open_branches: int
    open_seconds: float

    def to_json(self) -> dict[str, Any]:
        return {
            "flow_session_id": self.flow_session_id, "workflow": self.workflow, "status": self.status,
            "in_use": self.in_use, "limit": self.limit, "ready": self.ready, "deferred": self.deferred,
            "open_branches": self.open_branches, "open_seconds": round(self.open_seconds, 3),
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class FleetState:
    """All of it at about one moment."""

    now_us: int
    workers: tuple[WorkerState, ...]
    queues: tuple[QueueLoad, ...]
    #: The oldest ones, and how many there are.
    sessions: tuple[SessionLoad, ...]
    sessions_open: int
    sessions_running: int
    sessions_queued: int
    #: Updates that wait for PostgreSQL, and whether they are too many.
    status_entries: int
    status_is_full: bool


def read_fleet(live: LiveReading, most: int) -> FleetState:
    """The fleet as it stands.

    Args: most: open sessions that are read, the oldest.
    """
    key, client = live.space.key, live.client
    workers, queues, names, opened, running, queued, entries, full = (
        client.pipeline(transaction=False)
        .zrange(key("workers"), 0, -1, withscores=True)
        .smembers(key("queues"))
        .zrange(key("sessions_open"), 0, most - 1, withscores=True)
        .zcard(key("sessions_open"))
        .zcard(key("sessions_running"))
        .zcard(key("sessions_queued"))
        .xlen(key("status"))
        .exists(key("status_full"))
        .execute()
    )
    now_us = live.now_us()
    return FleetState(
        now_us, _workers(live, workers, now_us), _queues(live, sorted(queue.decode() for queue in queues)),
        _sessions(live, names, now_us), opened, running, queued, entries, bool(full),
    )  # fmt: skip


def _workers(live: LiveReading, leases: Sequence[tuple[bytes, float]], now_us: int) -> tuple[WorkerState, ...]:
    key = live.space.key
    pipe = live.client.pipeline(transaction=False)
    for name, _ in leases:
        pipe.smembers(key("worker_queues", name.decode())).scard(key("worker_runners", name.decode()))
    replies: list[Any] = pipe.execute() if leases else []
    found = []
    for (name, until), queues, busy in zip(leases, replies[::2], replies[1::2], strict=True):
        served = tuple(sorted(queue.decode() for queue in queues))
        slots = live.client.hget(key("slots", served[0]), name) if served else 0
        found.append(WorkerState(name.decode(), (until - now_us) / 1e6, served, int(slots or 0), busy))
    return tuple(sorted(found, key=lambda worker: worker.name))


def _queues(live: LiveReading, names: Sequence[str]) -> tuple[QueueLoad, ...]:
    key = live.space.key
    pipe = live.client.pipeline(transaction=False)
    for name in names:
        pipe.get(key("slots_total", name)).zcard(key("inflight", name)).zcard(key("waiting", name))
    replies: list[Any] = pipe.execute() if names else []
    return tuple(
        QueueLoad(name, int(replies[3 * place] or 0), replies[3 * place + 1], replies[3 * place + 2])
        for place, name in enumerate(names)
    )


def _sessions(live: LiveReading, opened: Sequence[tuple[bytes, float]], now_us: int) -> tuple[SessionLoad, ...]:
    key = live.space.key
    names = [(name.decode(), since) for name, since in opened]
    pipe = live.client.pipeline(transaction=False)
    for name, _ in names:
        pipe.hgetall(key("session", name)).hlen(key("own", name)).zcard(key("deferred", name))
    replies: list[Any] = pipe.execute() if names else []
    found = []
    for place, (name, since) in enumerate(names):
        fields, in_use, deferred = replies[3 * place : 3 * place + 3]
        if fields:
            found.append(_session(live, name, fields, in_use, deferred, (now_us - since) / 1e6))
    return tuple(found)


def _session(
    live: LiveReading, name: str, fields: Mapping[bytes, bytes], in_use: int, deferred: int, seconds: float
) -> SessionLoad:
    key = live.space.key
    each = [field[5:].decode() for field in fields if field.startswith(b"each:")]
    pipe = live.client.pipeline(transaction=False)
    for queue in fields[b"queues"].decode().split(","):
        pipe.zcard(key("ready", name, queue))
    for action in each:
        pipe.hmget(key("items", name, action), "size", "cursor", "back", "running", "max")
    replies = pipe.execute()
    ready = sum(one for one in replies if isinstance(one, int))
    for size, cursor, back, at_work, most in (
        [int(field or 0) for field in one] for one in replies if not isinstance(one, int)
    ):
        left = size - cursor + back
        # its entry in `ready` stands for all of them, and is there while another chunk may be claimed
        ready += left - int(left > 0 and (not most or at_work < most))
    status = fields[b"status"].decode()
    if status == "running" and deferred and not in_use and not ready:
        status = "suspended"
    return SessionLoad(
        name, fields[b"workflow"].decode(), status, in_use, int(fields[b"limit"]), ready, deferred,
        int(fields[b"open"]), seconds,
    )  # fmt: skip
