"""What live state says of one flow session and of all that it may wait for: read for `explain`, never for the engine.

A handful of pipelines at about one moment; nothing is changed. Sets that may be large are read up to MOST, with their
true sizes beside.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from orchestration.state.records import Stopped
from orchestration.state.wire import counts_of, paused_reasons, stopped_of

if TYPE_CHECKING:
    from orchestration.state.reading import LiveReading

#: Members of one set that are looked at.
MOST: Final = 10_000


@dataclass(frozen=True, slots=True)
class ClaimedUnit:
    """A unit that a runner owns."""

    unit: str
    worker: str
    attempt: int
    #: Items of a chunk; 1 for any other unit.
    count: int
    retry: int
    ready_us: int
    since_us: int
    #: When the lease of its runner is over; None: it has none any more.
    lease_until_us: int | None = None


@dataclass(frozen=True, slots=True)
class ReadyUnit:
    """A unit that may run: `b:<branch>`, `f:<action>`, or `i:<action>` for all unclaimed items of a `for_each`."""

    unit: str
    queue: str
    attempt: int
    retry: int
    since_us: int


@dataclass(frozen=True, slots=True)
class DeferredUnit:
    """A unit that waits for a time."""

    unit: str
    queue: str
    attempt: int
    retry: int
    due_us: int


@dataclass(frozen=True, slots=True)
class Items:
    """A `for_each` that was expanded."""

    queue: str
    size: int
    #: The first item that nobody has claimed; chunks that came back.
    cursor: int
    back: int
    #: Chunks that are claimed, counted where `most` is not 0: most of them at once.
    running: int
    most: int
    counts: Mapping[str, int]

    @property
    def settled(self) -> int:
        return sum(self.counts.values())


@dataclass(frozen=True, slots=True)
class Level:
    """A limit of branches or of sessions, as it stands; its `limit` is 0 where there is none."""

    name: str
    limit: int
    in_use: int
    by_operator: bool
    #: Flow session → permits it holds (of sessions: 1), the largest first.
    holders: tuple[tuple[str, int], ...]
    #: Place of the session among those that wait at it, from 1; None: it does not.
    position: int | None
    waiting: int
    #: Since when it waits there; None: not known.
    since_us: int | None = None


@dataclass(frozen=True, slots=True)
class QueueState:
    """A queue of the fleet."""

    name: str
    #: Of workers whose lease is not over, and of all that are registered.
    slots: int
    registered: int
    #: Worker → slots; those whose lease is over have not been given up yet.
    workers: Mapping[str, int]
    #: Flow session → runners at work or on their way.
    in_flight: Mapping[str, int]
    #: Place of the session among those that wait for a slot, from 1; None: it does not.
    position: int | None
    waiting: int
    #: Runners of the session that were published and have not begun.
    coming: int


@dataclass(frozen=True, slots=True)
class OpenSession:
    """A flow session with live state."""

    status: str
    workflow: str
    key: str
    limit: int
    limit_by_operator: bool
    opened_us: int
    open_branches: int
    deadline_us: int | None
    max_wait_us: int | None
    #: Since when its branches wait, for `max_wait`.
    began_us: int
    paused: frozenset[str]
    #: Reason → who paused it and when (µs), where that is known.
    paused_by: Mapping[str, tuple[str, int]]
    stopped: Stopped | None
    ended_us: int | None
    #: How often its completion was taken for lost, and when it will be again.
    again: int
    complete_at_us: int | None
    #: The queue that one permit is kept for.
    turn: str
    is_chord: bool
    #: Of a chord: its runners that have come and have nothing to do.
    parked: int
    claims: tuple[ClaimedUnit, ...]
    ready: tuple[ReadyUnit, ...]
    deferred: tuple[DeferredUnit, ...]
    deferred_total: int
    items: Mapping[str, Items]
    #: Branch → predecessors that have settled.
    joined: Mapping[str, int]
    #: Unit → how the process ended with which it was last lost.
    deaths: Mapping[str, str]
    #: Of branches, the narrowest first; of whole sessions.
    levels: tuple[Level, ...]
    session_levels: tuple[Level, ...]
    queues: Mapping[str, QueueState]


@dataclass(frozen=True, slots=True)
class Situation:
    """What Redis knows at one moment; times in µs since the epoch, by Redis."""

    now_us: int
    #: None: it has no live state.
    session: OpenSession | None
    #: Worker → end of its lease.
    workers: Mapping[str, int] = field(default_factory=dict)
    #: When leases that are over were last looked for, and until when none is taken for over.
    looked_us: int | None = None
    graced_until_us: int = 0
    #: The status channel is full, and how many entries wait in it.
    status_is_full: bool = False
    status_entries: int = 0
    #: A worker holds the session's message; it was closed; it was cancelled; it is paused when it is opened.
    is_held: bool = False
    is_closed: bool = False
    is_cancelled: bool = False
    is_paused_at_start: bool = False

    @property
    def alive(self) -> frozenset[str]:
        """Workers whose lease is not over."""
        return frozenset(name for name, until in self.workers.items() if until > self.now_us)


def read_situation(live: LiveReading, flow_session_id: str, unit: str = "") -> Situation:
    """Everything that the session may wait for.

    Args: unit: one that is looked for among those that wait for a time, however many these are; as `c:<action>:<item>`.
    """
    key, client = live.space.key, live.client
    fields, workers, outage, full, entries, held, closed, cancelled, paused = (
        client.pipeline(transaction=False)
        .hgetall(key("session", flow_session_id))
        .zrange(key("workers"), 0, -1, withscores=True)
        .hgetall(key("outage"))
        .exists(key("status_full"))
        .xlen(key("status"))
        .zscore(key("held_sessions"), flow_session_id)
        .exists(key("closed", flow_session_id))
        .exists(key("cancelled", flow_session_id))
        .exists(key("paused_session", flow_session_id))
        .execute()
    )
    now_us = live.now_us()
    leases = {name.decode(): int(until) for name, until in workers}
    alive = frozenset(name for name, until in leases.items() if until > now_us)
    session = _open_session(live, flow_session_id, fields, alive, unit) if fields else None
    return Situation(
        now_us, session, leases, _number(outage.get(b"looked")), int(outage.get(b"until", 0)), bool(full), entries,
        held is not None and held > now_us, bool(closed), bool(cancelled), bool(paused),
    )  # fmt: skip


def _open_session(
    live: LiveReading, session: str, fields: Mapping[bytes, bytes], alive: frozenset[str], unit: str
) -> OpenSession:
    key, client = live.space.key, live.client
    queues = fields[b"queues"].decode().split(",")
    names = [name[5:].decode() for name in fields if name.startswith(b"each:")]
    workflow, own_key = fields[b"workflow"].decode(), fields.get(b"key", b"").decode()
    pipe = client.pipeline(transaction=False)
    pipe.hgetall(key("own", session)).hgetall(key("joins", session)).hgetall(key("deaths", session))
    pipe.hgetall(key("runners", session)).zcard(key("parked", session))
    pipe.zrange(key("deferred", session), 0, MOST - 1, withscores=True).zcard(key("deferred", session))
    pipe.zscore(key("sessions_open"), session)
    pipe.hmget(key("paused"), f"workflow:{workflow}", "*")
    for name in names:
        pipe.hgetall(key("items", session, name))
    for queue in queues:
        pipe.zrange(key("ready", session, queue), 0, MOST - 1, withscores=True)
    own, joined, deaths, runners, parked, deferred, deferred_total, opened, marks, *rest = pipe.execute()
    if unit and deferred_total > MOST:
        deferred += list(client.zscan_iter(key("deferred", session), match=f"{unit}|*", count=1000))
    each, ready = rest[: len(names)], rest[len(names) :]
    levels = [*([f"key:{own_key}"] if own_key else []), f"workflow:{workflow}"]
    waits = [name[8:].decode() for name in fields if name.startswith(b"blocked:")]
    since = min((int(fields[f"blocked:{queue}".encode()]) for queue in waits), default=None)
    is_queued = fields[b"status"] == b"queued"
    paused_by = zip(("session", "workflow", "all"), (fields.get(b"paused_by"), *marks), strict=True)
    pauses = {why: _who_when(text) for why, text in paused_by if text}
    lives = {value.rpartition(b"|")[0].rpartition(b"|")[0].decode(): name for name, value in runners.items()
             if not name.endswith(b":call")}  # fmt: skip
    leases: dict[bytes, int] = {}
    served = {
        queue: _queue(live, queue, session, int(fields.get(f"pub:{queue}".encode(), 0)), alive, leases)
        for queue in queues
    }
    return OpenSession(
        fields[b"status"].decode(), workflow, own_key, int(fields[b"limit"]), b"limit_given" in fields,
        int(opened or 0), int(fields[b"open"]), _number(fields.get(b"deadline")), _number(fields.get(b"max_wait")),
        int(fields.get(b"began", 0)), paused_reasons(fields.get(b"paused")), pauses,
        stopped_of(fields[b"cancelled"]) if b"cancelled" in fields else None, _number(fields.get(b"ended")),
        int(fields.get(b"again", 0)), _number(fields.get(b"complete_at")), fields.get(b"turn", b"").decode(),
        b"header" in fields, parked,
        tuple(_claimed(name.decode(), value.decode(), lives, leases) for name, value in own.items()),
        tuple(_ready(queue, *one) for queue, units in zip(queues, ready, strict=True) for one in units),
        tuple(_deferred(*one) for one in deferred), deferred_total,
        {name: _items(one) for name, one in zip(names, each, strict=True) if one},
        {name.decode(): int(number) for name, number in joined.items() if b":" not in name},
        {name.decode(): how.decode() for name, how in deaths.items() if not name.startswith(b"@")},
        tuple(_level(live, level, session, waits, since) for level in [*levels, "global"]),
        tuple(
            _session_level(live, level, session) for level in [*(f"sessions:{one}" for one in levels), "sessions"]
        ) if is_queued else (),
        served,
    )  # fmt: skip


def _claimed(unit: str, value: str, lives: Mapping[str, bytes], leases: Mapping[bytes, int]) -> ClaimedUnit:
    life, attempt, count, retry, ready_us, since_us = value.split("|")
    worker = life.rpartition("/")[0]
    return ClaimedUnit(
        unit, worker, int(attempt), int(count), int(retry), int(ready_us), int(since_us),
        leases.get(lives.get(life, b"")),
    )  # fmt: skip


def _ready(queue: str, member: bytes, since: float) -> ReadyUnit:
    unit, *numbers = member.decode().split("|")
    attempt, _, retry = numbers or ("1", "1", "0")
    return ReadyUnit(unit, queue, int(attempt), int(retry), int(since))


def _items(fields: Mapping[bytes, bytes]) -> Items:
    return Items(
        fields[b"queue"].decode(), int(fields[b"size"]), int(fields[b"cursor"]), int(fields.get(b"back", 0)),
        int(fields.get(b"running", 0)), int(fields.get(b"max", 0)), counts_of(fields),
    )  # fmt: skip


def _deferred(member: bytes, due: float) -> DeferredUnit:
    unit, attempt, _, retry, queue = member.decode().split("|")
    return DeferredUnit(unit, queue, int(attempt), int(retry), int(due))


def read_rate_places(
    live: LiveReading, flow_session_id: str, tasks: Sequence[tuple[str, int, int]]
) -> dict[tuple[str, int], int]:
    """When the turn of tasks comes by their rate limits, µs: of those that have a place in a line.

    Args: tasks: (action, item, attempt); item is NO_ITEM for one that is no item.
    """
    names = [live.space.key("rate_place", f"{flow_session_id}/{name}:{item}#{n}") for name, item, n in tasks]
    found = live.client.mget(names) if names else []
    return {
        (name, item): int(value)
        for (name, item, _), value in zip(tasks, found, strict=True)
        if value is not None and not value.startswith(b"b")
    }


def _level(live: LiveReading, level: str, session: str, queues: Sequence[str], since: int | None) -> Level:
    key = live.space.key
    pipe = live.client.pipeline(transaction=False)
    pipe.hget(key("limits"), level).hexists(key("limits_set"), level).zcard(key("permits", level))
    pipe.zrange(key("permits", level), 0, MOST - 1).zcard(key("blocked", level))
    for queue in queues:
        pipe.zrank(key("blocked", level), f"{queue}|{session}")
    limit, is_set, in_use, members, waiting, *ranks = pipe.execute()
    holders = Counter(_session_of(member.rpartition(b"#")[0]) for member in members) if limit else Counter[str]()
    places = [rank + 1 for rank in ranks if rank is not None]
    return Level(
        level, int(limit or 0), in_use, bool(is_set), tuple(holders.most_common()), min(places, default=None), waiting,
        since if places else None,
    )  # fmt: skip


def _session_level(live: LiveReading, level: str, session: str) -> Level:
    key = live.space.key
    is_fleet = level == "sessions"
    running = key("sessions_running") if is_fleet else key("permits", level)
    queued = key("sessions_queued") if is_fleet else key("blocked", level)
    pipe = live.client.pipeline(transaction=False)
    pipe.hget(key("limits"), level).hexists(key("limits_set"), level).zcard(running).zrange(running, 0, MOST - 1)
    limit, is_set, in_use, members, waiting, rank = pipe.zcard(queued).zrank(queued, session).execute()
    holders = tuple((member.decode(), 1) for member in members) if limit else ()
    return Level(
        level, int(limit or 0), in_use, bool(is_set), holders, None if rank is None else rank + 1, waiting
    )  # fmt: skip


def _queue(
    live: LiveReading, queue: str, session: str, coming: int, alive: frozenset[str], leases: dict[bytes, int]
) -> QueueState:
    """A queue, and into `leases` when those of its runners are over."""
    key = live.space.key
    slots, runners, rank, waiting = (
        live.client.pipeline(transaction=False)
        .hgetall(key("slots", queue))
        .zrange(key("inflight", queue), 0, MOST - 1, withscores=True)
        .zrank(key("waiting", queue), session)
        .zcard(key("waiting", queue))
        .execute()
    )
    workers = {name.decode(): int(number) for name, number in slots.items()}
    served = sum(number for name, number in workers.items() if name in alive)
    leases.update({runner: int(until) for runner, until in runners})
    in_flight = Counter(_session_of(runner) for runner, _ in runners)
    return QueueState(
        queue, served, sum(workers.values()), workers, dict(in_flight.most_common()),
        None if rank is None else rank + 1, waiting, coming,
    )  # fmt: skip


def _session_of(runner: bytes) -> str:
    """The flow session of `<session>.<number>`."""
    return runner.decode().rpartition(".")[0]


def _who_when(text: bytes) -> tuple[str, int]:
    at_us, _, who = text.decode().partition("|")
    return who, int(at_us)


def _number(value: Any) -> int | None:
    return None if value is None else int(value)
