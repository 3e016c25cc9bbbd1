"""The fleet as onlookers see it: queues and their slots, who holds what is limited, who has it next.

Read in a few round trips whatever there is, and bounded: what is shown are the first so many, with the number of all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from orchestration.state.limits import SESSIONS, LimitReport, read_limit
from orchestration.state.live import LiveState
from orchestration.state.queues import QueueCounts

#: Most limits of keys, and of open sessions, that are looked at closely.
MOST_SHOWN = 50
#: Most open sessions of which it is asked whether they are at their own limit, the oldest.
MOST_ASKED = 500
#: Keys that one step of a search for rate limits looks at.
SCANNED = 1000


@dataclass(frozen=True, slots=True)
class QueueReport:
    """A queue and its slots."""

    name: str
    #: Slots by worker.
    workers: Mapping[str, int]
    counts: QueueCounts
    #: The first of the sessions that wait for a slot, in their order.
    next: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a permit of a limit; of a limit of whole sessions it is the session."""

    flow_session_id: str
    #: Empty: a session.
    runner: str
    since_us: int
    #: µs until its lease is over, if nobody renews it; None: it has none, or has just ended.
    lease_us: int | None
    worker: str


@dataclass(frozen=True, slots=True)
class Occupancy:
    """The whole fleet in some numbers."""

    #: Permits in use: branches that run, or are about to.
    permits: int
    slots: int
    workers: int
    #: Runs that wait for a slot, or are queued.
    waiting: int
    #: Status updates that are not recorded yet, and how old the oldest is.
    entries: int
    lag_us: int


@dataclass(frozen=True, slots=True)
class RateReport:
    """A rate limit."""

    name: str
    #: µs until a call that comes now may begin.
    wait_us: int


def read_occupancy(live: LiveState) -> Occupancy:
    """How the fleet is now."""
    key, client = live.space.key, live.client
    now_us = live.now_us()
    names = [name.decode() for name in client.smembers(key("queues"))]
    pipe = client.pipeline(transaction=False)
    pipe.zcard(key("permits", "global")).zcard(key("sessions_queued")).zcount(key("workers"), now_us, "+inf")
    pipe.xlen(key("status")).xrange(key("status"), count=1)
    for name in names:
        pipe.hgetall(key("slots", name)).zcard(key("waiting", name))
    permits, queued, workers, entries, oldest, *of_queues = pipe.execute()
    lag_us = now_us - 1000 * int(oldest[0][0].partition(b"-")[0]) if oldest else 0
    slots: dict[bytes, int] = {}  # a worker has as many places as it has, however many queues it serves
    for by_worker in of_queues[::2]:
        for worker, number in by_worker.items():
            slots[worker] = max(slots.get(worker, 0), int(number))
    return Occupancy(permits, sum(slots.values()), workers, queued + sum(of_queues[1::2]), entries, max(0, lag_us))


def read_queues(live: LiveState, most_next: int = 5) -> list[QueueReport]:
    """All queues that have, or had, slots or waiting sessions."""
    key, client = live.space.key, live.client
    names = sorted(name.decode() for name in client.smembers(key("queues")))
    pipe = client.pipeline(transaction=False)
    for name in names:
        QueueCounts.ask(pipe, live.space, name)
        pipe.hgetall(key("slots", name)).zrange(key("waiting", name), 0, most_next - 1)
    replies = iter(pipe.execute() if names else ())
    found = []
    for name in names:
        counts, workers, first = QueueCounts.take(replies), next(replies), next(replies)
        by_worker = {worker.decode(): int(number) for worker, number in workers.items() if int(number) > 0}
        line = tuple(member.decode() for member in first)
        if by_worker or counts.runners or counts.waiting:
            found.append(QueueReport(name, by_worker, counts, line))
    return found


def read_busiest_limits(live: LiveState) -> tuple[list[LimitReport], int]:
    """The limits of the fleet, and of the others the MOST_SHOWN that most wait for; and how many are left out."""
    key, client = live.space.key, live.client
    in_force, operators = (
        {name.decode(): int(most) for name, most in fields.items()}
        for fields in client.pipeline().hgetall(key("limits")).hgetall(key("limits_set")).execute()
    )
    named = sorted(name for name in in_force if name not in ("global", SESSIONS))
    pipe = client.pipeline(transaction=False)
    for name in named:
        pipe.zcard(key("blocked", name)).zcard(key("permits", name))
    replies = pipe.execute() if named else []
    uses = dict(zip(named, zip(replies[::2], replies[1::2], strict=True), strict=True))
    shown = sorted(named, key=lambda name: uses[name], reverse=True)[:MOST_SHOWN]
    now_us = live.now_us()
    return [
        read_limit(live, name, in_force.get(name), now_us, by_operator=name in operators)
        for name in ["global", SESSIONS, *sorted(shown)]
    ], len(named) - len(shown)


def read_full_sessions(live: LiveState) -> list[LimitReport]:
    """The own limits of open sessions that use all of it, those that have waited longest first."""
    key, client = live.space.key, live.client
    names = [name.decode() for name in client.zrange(key("sessions_open"), 0, MOST_ASKED - 1)]
    pipe = client.pipeline(transaction=False)
    for name in names:
        pipe.hmget(key("session", name), "limit", "limit_given", "queues", "status").hlen(key("own", name))
    replies = pipe.execute() if names else []
    full = [
        (name, fields, in_use)
        for name, fields, in_use in zip(names, replies[::2], replies[1::2], strict=True)
        if fields[0] is not None and fields[3] == b"running" and in_use >= int(fields[0])
    ]
    pipe = client.pipeline(transaction=False)
    for name, fields, _ in full:
        for queue in fields[2].decode().split(","):
            pipe.zrange(key("ready", name, queue), 0, 0, withscores=True)
    heads = iter(pipe.execute() if full else [])
    now_us, found = live.now_us(), []
    for name, fields, in_use in full:
        firsts = [next(heads) for _ in fields[2].decode().split(",")]
        since = [int(score) for head in firsts for _, score in head]
        if since:
            set_by = "operator" if fields[1] is not None else "settings and definitions"
            wait = max(0.0, (now_us - min(since)) / 1e6)
            found.append(LimitReport(f"session:{name}", int(fields[0]), in_use, 1, wait, set_by))
    return sorted(found, key=lambda report: -(report.longest_wait_seconds or 0))[:MOST_SHOWN]


def read_holders(live: LiveState, name: str, most: int) -> list[Holder]:
    """Who holds a limit, those that have held it longest first.

    Args: name: as in LimitReport. most: only so many.
    """
    client, key = live.client, live.space.key
    if name.startswith("session:"):
        return _claims_of(live, name.removeprefix("session:"), most)
    at = key("sessions_running") if name == SESSIONS else key("permits", name)
    held = [(member.decode(), int(since)) for member, since in client.zrange(at, 0, most - 1, withscores=True)]
    if name.startswith(SESSIONS):
        return [Holder(session, "", since, None, "") for session, since in held]
    return _with_leases(live, [(member.rpartition("#")[0], since) for member, since in held])


def read_line(live: LiveState, name: str, most: int) -> list[str]:
    """The sessions that wait for a limit, in the order in which they get it."""
    client, key = live.client, live.space.key
    if name.startswith("session:"):
        return []
    if name == SESSIONS:
        members = client.zrange(key("sessions_queued"), 0, most - 1)
    else:
        members = client.zrange(key("blocked", name), 0, most - 1)
    return [member.decode().rpartition("|")[2] for member in members]


def workflows_of(live: LiveState, flow_session_ids: Sequence[str]) -> dict[str, str]:
    """Names of the workflows of open sessions."""
    names = sorted(set(flow_session_ids))
    pipe = live.client.pipeline(transaction=False)
    for name in names:
        pipe.hget(live.space.key("session", name), "workflow")
    replies = pipe.execute() if names else []
    return {name: reply.decode() for name, reply in zip(names, replies, strict=True) if reply}


class RateLimits:
    """Rate limits that are in use; found bit by bit, since nothing lists them."""

    def __init__(self, live: LiveState) -> None:
        self._live = live
        self._cursor = 0
        self._names: set[str] = set()

    def read(self, steps: int = 5) -> list[RateReport]:
        """Those that are known by now, by name; `steps` times SCANNED keys are looked through for more."""
        client, key = self._live.client, self._live.space.key
        start = key("rate", "")
        for _ in range(steps):
            self._cursor, found = client.scan(self._cursor, match=f"{_escaped(start)}*", count=SCANNED, _type="hash")
            self._names.update(name.decode().removeprefix(start) for name in found)
            if not self._cursor:
                break
        names = sorted(self._names)
        pipe = client.pipeline(transaction=False)
        for name in names:
            pipe.hmget(key("rate", name), "tat", "line")
        replies = pipe.execute() if names else []
        now_us, reports = self._live.now_us(), []
        for name, (tat, line) in zip(names, replies, strict=True):
            if tat is None:
                self._names.discard(name)  # it has expired
            else:
                reports.append(RateReport(name, max(0, int(line or tat) - now_us)))
        return reports


def _claims_of(live: LiveState, session: str, most: int) -> list[Holder]:
    runners = live.client.hgetall(live.space.key("runners", session))
    of_life = {
        value.decode().partition("|")[0]: runner.decode()
        for runner, value in runners.items()
        if not runner.endswith(b":call")
    }
    snapshot = live.snapshot(session)
    claims = sorted(snapshot.claims if snapshot else (), key=lambda claim: claim.since_us)[:most]
    held = [(of_life.get(f"{claim.worker}/{claim.runner}", ""), claim.since_us) for claim in claims]
    return [
        replace(holder, flow_session_id=session, worker=claim.worker)
        for holder, claim in zip(_with_leases(live, held), claims, strict=True)
    ]


def _with_leases(live: LiveState, runners: Sequence[tuple[str, int]]) -> list[Holder]:
    client, key = live.client, live.space.key
    queues = [name.decode() for name in client.smembers(key("queues"))]
    pipe = client.pipeline(transaction=False)
    for runner, _ in runners:
        pipe.hget(key("runners", runner.rpartition(".")[0]), runner)
        for queue in queues:
            pipe.zscore(key("inflight", queue), runner)
    replies: list[Any] = pipe.execute() if runners else []
    now_us, holders = live.now_us(), []
    for place, (runner, since) in enumerate(runners):
        value, *scores = replies[place * (len(queues) + 1) : (place + 1) * (len(queues) + 1)]
        lease = max((int(score) for score in scores if score), default=None)
        life = value.decode().partition("|")[0] if value else ""
        holders.append(
            Holder(
                runner.rpartition(".")[0], runner, since, None if lease is None else lease - now_us,
                life.rpartition("/")[0],
            )
        )  # fmt: skip
    return holders


def _escaped(name: str) -> str:
    """A name as a pattern that only it fits."""
    return "".join(f"\\{one}" if one in "*?[]\\" else one for one in name)
