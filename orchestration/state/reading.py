"""Live state as it is read, by the engine and by onlookers: no script, and nothing changes."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

from orchestration.errors import SessionClosed, SessionNotEnded
from orchestration.state.client import PATIENCE, ScriptCaller, connect
from orchestration.state.clock import RedisClock
from orchestration.state.keys import KeySpace
from orchestration.state.patience import Patience
from orchestration.state.records import LiveSnapshot, Stopped, Unsettled
from orchestration.state.wire import counts_of, item_of, items_of, live_claim_of, paused_reasons, stopped_of

#: Members of a large set that are read at a time: Redis does other things between.
SCAN = 500
_WHOLE = (b"b:", b"f:")


class LiveReading:
    """Live state of one namespace, for one process, to be read.

    Args: patience: how long calls are repeated while Redis is away.
    """

    def __init__(self, redis_url: str, namespace: str, patience: Patience = PATIENCE) -> None:
        self._url = redis_url
        self._patience = patience
        self.space = KeySpace(namespace)
        #: Redis's clock as this process knows it.
        self.clock = RedisClock()
        self._client: Any = None
        self._scripts: ScriptCaller
        self._pid = 0

    @property
    def client(self) -> Any:
        """The client of this process (redis.Redis, whose types are unions over all its modes); a child gets its own."""
        if self._pid != os.getpid():
            self._connect()
        return self._client

    def close(self) -> None:
        """Connections of this process and thread are closed; another call opens one again."""
        if self._pid == os.getpid():
            self._scripts.close()
            self._client.close()

    @property
    def scripts(self) -> ScriptCaller:
        """Calls the scripts in this process."""
        if self._pid != os.getpid():
            self._connect()
        return self._scripts

    def _connect(self) -> None:
        client = connect(self._url, self._patience)
        self._client, self._scripts = client, ScriptCaller(client, self._patience)
        self._pid = os.getpid()  # last: another thread may look meanwhile

    def now_us(self) -> int:
        """The time by Redis, the only clock of a session: µs since the epoch."""
        before_ns = time.monotonic_ns()
        seconds, microseconds = self.client.time()
        now_us = int(seconds) * 1_000_000 + int(microseconds)
        self.clock.observe(now_us, before_ns, time.monotonic_ns())
        return now_us

    def keep_clock(self) -> None:
        """The clock has been compared with Redis's lately."""
        if not self.clock.is_fresh(time.monotonic_ns()):
            self.now_us()

    # Sessions

    def open_sessions(self) -> list[str]:
        """All sessions with live state, the oldest first."""
        return [name.decode() for name in self.client.zrange(self.space.key("sessions_open"), 0, -1)]

    def unserved_queues(self, most: int = 10_000) -> dict[str, int]:
        """Queues that no worker serves, and how many sessions have ready work on each.

        Args: most: only so many open sessions are asked for their queues, the oldest.
        """
        key, client = self.space.key, self.client
        pipe = client.pipeline(transaction=False)
        for name in client.zrange(key("sessions_open"), 0, most - 1):
            pipe.hget(key("session", name.decode()), "queues")
        names = sorted({queue for text in pipe.execute() if text for queue in text.decode().split(",")})
        pipe = client.pipeline(transaction=False)
        for queue in names:
            pipe.get(key("slots_total", queue)).zcard(key("waiting", queue))
        replies = pipe.execute()
        counts = zip(names, replies[::2], replies[1::2], strict=True)
        return {queue: waiting for queue, slots, waiting in counts if waiting and int(slots or 0) <= 0}

    def paused_reasons(self, flow_session_id: str) -> frozenset[str]:
        """Why the session is paused: session, workflow, all; empty: it is not."""
        return paused_reasons(self.client.hget(self.space.key("session", flow_session_id), "paused"))

    def is_cancelled(self, flow_session_id: str) -> bool:
        """Whether what runs of the session is to end."""
        return bool(self.client.exists(self.space.key("cancelled", flow_session_id)))

    def is_heeded(self, flow_session_id: str) -> bool:
        """Whether any runner has seen that the session was cancelled."""
        return bool(self.client.exists(self.space.key("heeded", flow_session_id)))

    def repairs(self) -> dict[str, int]:
        """How often what was repaired, by cause, since this namespace is in use."""
        return {cause.decode(): int(count) for cause, count in self.client.hgetall(self.space.key("repairs")).items()}

    def death_of(self, flow_session_id: str, unit: str) -> str:
        """How the process ended that was last lost with this unit, for people; empty: nobody knows."""
        return (self.client.hget(self.space.key("deaths", flow_session_id), unit) or b"").decode()

    # Results

    def results(self, flow_session_id: str, actions: Sequence[str]) -> list[bytes | None]:
        """Results of actions as JSON, None where there is none (yet)."""
        reply: list[bytes | None] = self.client.hmget(self.space.key("results", flow_session_id), list(actions))
        return reply

    def all_results(self, flow_session_id: str) -> dict[str, bytes]:
        """All results kept for the session, the payload under PAYLOAD_FIELD."""
        reply: dict[bytes, bytes] = self.client.hgetall(self.space.key("results", flow_session_id))
        return {name.decode(): value for name, value in reply.items()}

    def item_results(self, flow_session_id: str, action: str) -> dict[int, bytes]:
        """Results of a for_each: first item of a chunk → JSON array. Chunks of nulls are absent."""
        reply: dict[bytes, bytes] = self.client.hgetall(self.space.key("item_results", flow_session_id, action))
        return {int(start): value for start, value in reply.items()}

    def items_spilled(self, flow_session_id: str, action: str) -> bool:
        """Whether some results of the for_each are in PostgreSQL only."""
        return self.client.hget(self.space.key("items", flow_session_id, action), "spilled") is not None

    def is_open(self, flow_session_id: str) -> bool:
        """Whether the session has live state."""
        return bool(self.client.exists(self.space.key("session", flow_session_id)))

    def header_of(self, flow_session_id: str) -> int:
        """Runners in the header of the session's chord; 0: its branches are counted in Redis, or it is not open."""
        return int(self.client.hget(self.space.key("session", flow_session_id), "header") or 0)

    def ended_counts(self, flow_session_id: str) -> tuple[dict[str, int], int, Stopped | None]:
        """Tasks of a session that has ended, by status; by how many actions it fails; why it was stopped, or None.

        Raises: SessionClosed. SessionNotEnded.
        """
        fields = self.client.hgetall(self.space.key("session", flow_session_id))
        if not fields:
            raise SessionClosed(f"flow session {flow_session_id} has no live state")
        if fields[b"status"] != b"ended":
            raise SessionNotEnded(f"flow session {flow_session_id} has not ended: {int(fields[b'open'])} to go")
        stopped = fields.get(b"cancelled")
        return counts_of(fields), int(fields[b"failed"]), None if stopped is None else stopped_of(stopped)

    def unsettled(self, flow_session_id: str) -> Unsettled:
        """What a cancelled session has left; its cost grows with the branches of the plan, not with items that wait."""
        key, client = self.space.key, self.client
        fields: dict[bytes, bytes] = client.hgetall(key("session", flow_session_id))
        joined: dict[bytes, bytes] = client.hgetall(key("joins", flow_session_id))
        waiting = {
            member.decode().split("|", 1)[0][2:]
            for queue in fields.get(b"queues", b"").decode().split(",")
            for member in client.zrange(key("ready", flow_session_id, queue), 0, -1)
            if member[:2] in _WHOLE
        }
        for member, _ in client.zscan_iter(key("deferred", flow_session_id), match="[bf]:*", count=SCAN):
            waiting.add(member.decode().split("|", 1)[0][2:])
        names = [name[5:].decode() for name in fields if name.startswith(b"each:")]
        items = {name: items_of(client.hgetall(key("items", flow_session_id, name))) for name in names}
        counts = {name.decode(): int(number) for name, number in joined.items() if b":" not in name}
        return Unsettled(frozenset(waiting), counts, items)

    def begun_items(self, flow_session_id: str, actions: Iterable[str]) -> Iterator[tuple[str, int, int, int]]:
        """Items of a cancelled session that have run and were to run again: (action, item, attempt, retry)."""
        key, client = self.space.key, self.client
        # one that is deferred may wait for its first turn by a rate limit
        deferred = client.zscan_iter(key("deferred", flow_session_id), match="c:*", count=SCAN)
        returned = (client.zscan_iter(key("returned", flow_session_id, action), count=SCAN) for action in actions)
        for member, _ in chain(deferred, *returned):
            item = item_of(member)
            if item[2] > 1 or item[3]:
                yield item

    def permits_in_use(self, flow_session_id: str) -> int:
        """Branches of the session that run at this moment."""
        return int(self.client.hlen(self.space.key("own", flow_session_id)))

    # For onlookers

    def snapshot(self, flow_session_id: str) -> LiveSnapshot | None:
        """What the session does just now; None when it has no live state."""
        key = self.space.key
        client = self.client
        fields, own, deferred = (
            client.pipeline()
            .hgetall(key("session", flow_session_id))
            .hgetall(key("own", flow_session_id))
            .zcard(key("deferred", flow_session_id))
            .execute()
        )
        if not fields:
            return None
        claims = tuple(live_claim_of(unit.decode(), value.decode()) for unit, value in own.items())
        names = [name[5:].decode() for name in fields if name.startswith(b"each:")]
        queues = fields[b"queues"].decode().split(",")
        pipe = client.pipeline()
        for name in names:
            pipe.hgetall(key("items", flow_session_id, name))
        for queue in queues:
            pipe.zcard(key("ready", flow_session_id, queue))
        slots = client.mget([key("slots_total", queue) for queue in queues])
        replies = pipe.execute()
        items = {name: items_of(reply) for name, reply in zip(names, replies, strict=False) if reply}
        ready = sum(replies[len(names) :]) + sum(item.size - item.started for item in items.values())
        open_branches = int(fields[b"open"])
        status = fields[b"status"].decode()
        if status == "running" and not own and not ready and deferred:
            status = "suspended"
        counts = zip(queues, replies[len(names) :], slots, strict=True)
        unserved = tuple(queue for queue, units, total in counts if units and int(total or 0) <= 0)
        return LiveSnapshot(
            status, int(fields[b"limit"]), len(own), claims, ready, deferred, open_branches, counts_of(fields), items,
            paused_reasons(fields.get(b"paused")), unserved, self._waits_at(flow_session_id, fields),
        )  # fmt: skip

    def _waits_at(self, flow_session_id: str, fields: Mapping[bytes, bytes]) -> dict[str, int]:
        """The limits that the session waits for, whole or with some branches, and what they are now (0: none)."""
        key, workflow, own_key = self.space.key, fields[b"workflow"].decode(), fields.get(b"key")
        levels = [*([f"key:{own_key.decode()}"] if own_key is not None else []), f"workflow:{workflow}"]
        if fields[b"status"] == b"queued":
            at = {f"sessions:{level}": [(key("blocked", f"sessions:{level}"), flow_session_id)] for level in levels}
            at["sessions"] = [(key("sessions_queued"), flow_session_id)]
        else:
            queues = [name[8:].decode() for name in fields if name.startswith(b"blocked:")]
            names = [f"{queue}|{flow_session_id}" for queue in queues]
            at = {level: [(key("blocked", level), name) for name in names] for level in [*levels, "global"]}
        pipe = self.client.pipeline(transaction=False)
        for level, places in at.items():
            pipe.hget(key("limits"), level)
            for place, name in places:
                pipe.zscore(place, name)
        replies = iter(pipe.execute())
        found = {level: (int(next(replies) or 0), [next(replies) for _ in places]) for level, places in at.items()}
        return {level: most for level, (most, scores) in found.items() if any(score is not None for score in scores)}
