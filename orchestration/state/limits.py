"""Limits as people and processes look at them; what changes them is a script (`LiveState.set_limit`)."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from orchestration.state.live import LiveState

#: For so long a process may start a run alone without having looked whether an operator has set a limit meanwhile.
LOOK_SECONDS = 0.5
#: Most sessions that wait at one limit and are looked at, and most keys that are shown.
MOST_LOOKED_AT = 1000
#: Of flow sessions at once; the others are of branches.
SESSIONS = "sessions"


class OperatorLimits:
    """Whether an operator's limit holds for a workflow, as one process knows it.

    Asked before a first branch is run alone, without a permit: a call for each would cost each run; so it is
    remembered for LOOK_SECONDS. Who sets a limit waits so long (`parallelizer limits set`), and is then obeyed by all.
    """

    def __init__(self, live: LiveState) -> None:
        self._live = live
        self._known: dict[str, tuple[float, bool, bool]] = {}

    def limit(self, workflow: str) -> bool:
        """Whether a limit is set of the fleet's branches or sessions, or of the workflow."""
        _, sessions, branches = self._look(workflow)
        return sessions or branches

    def limit_sessions(self, workflow: str) -> bool:
        """Whether a limit is set of the fleet's sessions."""
        return self._look(workflow)[1]

    def _look(self, workflow: str) -> tuple[float, bool, bool]:
        known, now = self._known.get(workflow), time.monotonic()
        if known is None or now - known[0] >= LOOK_SECONDS:
            names = [SESSIONS, f"{SESSIONS}:workflow:{workflow}", "global", f"workflow:{workflow}"]
            found = self._live.client.hmget(self._live.space.key("limits_set"), names)
            if len(self._known) >= MOST_LOOKED_AT:
                self._known.clear()
            known = self._known[workflow] = (now, any(found[:2]), any(found[2:]))
        return known


@dataclass(frozen=True, slots=True)
class LimitReport:
    """One limit, as it stands."""

    name: str
    #: In force; None: no limit.
    limit: int | None
    in_use: int
    #: Flow sessions that wait for it.
    waiting: int
    #: How long the first of them has waited, s; None: none waits.
    longest_wait_seconds: float | None
    #: Who says so: operator, or settings and definitions; empty: nobody.
    set_by: str

    def to_json(self) -> dict[str, object]:
        """The limit as JSON, with stable field names."""
        return {
            "name": self.name, "limit": self.limit, "in_use": self.in_use, "waiting": self.waiting,
            "longest_wait_seconds": self.longest_wait_seconds, "set_by": self.set_by,
        }  # fmt: skip


def read_limits(live: LiveState, *, sessions: bool = False) -> list[LimitReport]:
    """Every limit that is set, and those of the fleet even if they are not.

    Args: sessions: those of open flow sessions too, the oldest first, MOST_LOOKED_AT at most.
    """
    client, key = live.client, live.space.key
    in_force, operators = (
        {name.decode(): int(most) for name, most in fields.items()}
        for fields in client.pipeline().hgetall(key("limits")).hgetall(key("limits_set")).execute()
    )
    now_us = live.now_us()
    names = ["global", SESSIONS, *sorted(name for name in in_force if name not in ("global", SESSIONS))]
    found = [read_limit(live, name, in_force.get(name), now_us, by_operator=name in operators) for name in names]
    if sessions:
        oldest = client.zrange(key("sessions_open"), 0, MOST_LOOKED_AT - 1)
        found += _read_sessions(live, [name.decode() for name in oldest], now_us)
    return found


def read_limit(live: LiveState, name: str, limit: int | None, now_us: int, *, by_operator: bool) -> LimitReport:
    """How one limit stands; `limit` is what is in force, None: none is."""
    client, key = live.client, live.space.key
    if name.startswith(SESSIONS):
        is_fleet = name == SESSIONS
        running = key("sessions_running") if is_fleet else key("permits", name)
        at = key("sessions_queued") if is_fleet else key("blocked", name)
        in_use, waiting, queued = client.pipeline().zcard(running).zcard(at).zrange(at, 0, MOST_LOOKED_AT - 1).execute()
        since = [int(at) for at in client.zmscore(key("sessions_open"), queued) if at] if queued else []
    else:
        in_use = client.zcard(key("permits", name))
        since = list(_waits(live, client.zrange(key("blocked", name), 0, MOST_LOOKED_AT - 1)))
        waiting = len(since)
    wait = max(0.0, (now_us - min(since)) / 1e6) if since else None
    set_by = "operator" if by_operator else "settings and definitions" if limit else ""
    return LimitReport(name, limit or None, in_use, waiting, wait, set_by)


def _waits(live: LiveState, members: Sequence[bytes]) -> Iterator[int]:
    """Since when (µs) the sessions wait that still have something ready for the queue at which they do."""
    pipe = live.client.pipeline()
    for member in members:
        queue, _, session = member.decode().rpartition("|")
        pipe.hget(live.space.key("session", session), f"blocked:{queue}")
        pipe.zcard(live.space.key("ready", session, queue))
    replies: list[Any] = pipe.execute() if members else []
    for since, ready in zip(replies[::2], replies[1::2], strict=True):
        if since and ready:
            yield int(since)


def _read_sessions(live: LiveState, names: Sequence[str], now_us: int) -> Iterator[LimitReport]:
    client, key = live.client, live.space.key
    for name in names:
        fields = client.hmget(key("session", name), "limit", "limit_given", "queues", "status")
        if fields[0] is None or fields[3] != b"running":
            continue
        limit, in_use = int(fields[0]), client.hlen(key("own", name))
        queues = fields[2].decode().split(",")
        heads = [client.zrange(key("ready", name, queue), 0, 0, withscores=True) for queue in queues]
        since = [int(score) for head in heads for _, score in head] if in_use >= limit else []
        wait = max(0.0, (now_us - min(since)) / 1e6) if since else None
        set_by = "operator" if fields[1] is not None else "settings and definitions"
        yield LimitReport(f"session:{name}", limit, in_use, int(bool(since)), wait, set_by)
