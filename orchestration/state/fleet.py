"""The fleet for onlookers: workers with their leases, queues, the oldest open sessions. Nothing is changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from orchestration.state.briefs import read_briefs
from orchestration.state.queues import QueueCounts
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
    counts: QueueCounts

    def to_json(self) -> dict[str, Any]:
        counts = self.counts
        return {"name": self.name, "slots": counts.slots, "in_flight": counts.runners, "waiting": counts.waiting}


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
    pipe = live.client.pipeline(transaction=False)
    for name in names:
        QueueCounts.ask(pipe, live.space, name)
    replies = iter(pipe.execute() if names else ())
    return tuple(QueueLoad(name, QueueCounts.take(replies)) for name in names)


def _sessions(live: LiveReading, opened: Sequence[tuple[bytes, float]], now_us: int) -> tuple[SessionLoad, ...]:
    since = {name.decode(): opened_us for name, opened_us in opened}
    return tuple(
        SessionLoad(
            name, brief.workflow, brief.status, brief.in_use, brief.limit, brief.ready, brief.deferred,
            brief.open_branches, (now_us - since[name]) / 1e6,
        )
        for name, brief in read_briefs(live, list(since)).items()
    )  # fmt: skip
