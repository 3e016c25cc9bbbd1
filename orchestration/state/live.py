"""LiveState: one method per script, typed replies. The engine's only way to Redis.

What must never happen here: a decision. Scripts make transitions, the engine decides, this module translates.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any, Final, NamedTuple

from orchestration.errors import SessionClosed, WorkflowExecutionError
from orchestration.state.client import ScriptCaller, connect
from orchestration.state.clock import RedisClock
from orchestration.state.keys import KeySpace
from orchestration.state.rows import encode_rows
from orchestration.state.scripts import Argument, load_script
from orchestration.vocabulary import (
    Claim,
    ItemCounts,
    JoinCounts,
    Mode,
    Next,
    Publication,
    Settlement,
    UnitKind,
    Verdict,
)

PAYLOAD_FIELD = "@payload"
#: µs since the epoch, by Redis, at which the deadline of the session passes.
DEADLINE_FIELD = "@deadline"
#: Members of a large set that are read at a time: Redis does other things between.
SCAN = 500
_WHOLE = (b"b:", b"f:")


@dataclass(frozen=True, slots=True)
class Runner:
    """Who runs: a runner of a session on a queue, in one delivery of its message."""

    flow_session_id: str
    runner: str
    #: `<worker>/<process>.<nonce>`: a second delivery of the message has another.
    life: str
    queue: str
    worker: str


@dataclass(frozen=True, slots=True)
class NewSession:
    """What `open_session` needs."""

    workflow: str
    version_id: str
    #: ISO date: the session's partition in PostgreSQL.
    day: str
    limit: int
    branch_timeout_seconds: float
    open_branches: int
    signature: str
    #: All queues of the plan.
    queues: Sequence[str]
    #: Most sessions of the fleet at once; 0: no limit.
    most_sessions: int = 0
    weight: float = 1.0
    priority: int = 0
    #: Of the branches in `ready`: 2 when the process died that had begun the first.
    attempt: int = 1
    results: Sequence[tuple[str, bytes]] = ()
    #: (branch, queue) of branches without predecessors.
    ready: Sequence[tuple[str, str]] = ()
    #: What the caller has run before, alone, in this order; all on its queue.
    settlements: Sequence[Settlement] = ()
    item_results_cap: int = 0
    #: Runners in the header of its chord; 0: its branches are counted in Redis.
    header: int = 0
    #: Concurrency key; empty: none.
    key: str = ""
    #: What the definition says of the branches at once of its workflow and of its key; 0: nothing.
    most_of_workflow: int = 0
    most_of_key: int = 0
    #: The same of its flow sessions at once, and what happens when it can't run now: queue, reject, cancel_running or
    #: keep_newest.
    sessions_of_workflow: int = 0
    sessions_of_key: int = 0
    when_full: str = "queue"
    #: µs until what is left of it is ended; 0: it has no deadline.
    deadline_us: int = 0
    #: µs that it may be queued, and that each branch may wait before it begins; 0: as long as it takes.
    max_wait_us: int = 0


@dataclass(frozen=True, slots=True)
class Started:
    """The answer to `start_runner`."""

    verdict: Verdict
    version_id: str = ""
    day: str = ""
    signature: str = ""
    publications: tuple[Publication, ...] = ()


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The answer to `cancel_session`."""

    #: cancelled, again, ended, unopened or closed; the script says what they mean.
    found: str
    #: Units that are claimed, and are told to end.
    claimed: int
    publications: tuple[Publication, ...]


@dataclass(frozen=True, slots=True)
class Overdue:
    """A branch that has waited too long before anybody began it; nobody owns the claim."""

    flow_session_id: str
    version_id: str
    day: str
    queue: str
    claim: Claim
    #: What it waits for, in words.
    waits_for: str


@dataclass(frozen=True, slots=True)
class Stopped:
    """Why a session ended before its branches had settled."""

    #: asked: somebody cancelled it; place, newer: it gave way to a newer one; deadline: that has passed;
    #: wait: it was queued for too long.
    why: str
    #: The newer session, and the limit at which it gave way, or was queued.
    by: str = ""
    level: str = ""


@dataclass(frozen=True, slots=True)
class Unsettled:
    """What a session has left that was cancelled."""

    #: Branches and ends of `for_each`s that were ready or waited for a time.
    waiting: frozenset[str]
    #: Predecessors that have settled, by branch.
    joined: Mapping[str, int]
    items: Mapping[str, ItemProgress]


@dataclass(frozen=True, slots=True)
class LiveClaim:
    """A claim as an onlooker sees it."""

    token: str
    runner: str
    worker: str
    attempt: int
    count: int
    since_us: int


@dataclass(frozen=True, slots=True)
class ItemProgress:
    """How far a `for_each` is; `counts` by task status."""

    size: int
    started: int
    settled: int
    failed: int
    counts: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class LiveSnapshot:
    """A session's live state at about one moment."""

    #: queued, running, suspended (only waits for a time), paused, cancelled or ended.
    status: str
    limit: int
    in_use: int
    claims: tuple[LiveClaim, ...]
    ready: int
    deferred: int
    open_branches: int
    counts: Mapping[str, int]
    items: Mapping[str, ItemProgress]
    #: Why it is paused: session, workflow, all.
    paused: frozenset[str] = frozenset()
    #: Queues without a worker on which work of it is ready.
    unserved: tuple[str, ...] = ()
    #: Limits that it waits for, whole or with some of its branches, and what they are now (0: none).
    waits_at: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LimitChange:
    """What `set_limit` did; 0 stands for no limit."""

    before: int
    now: int
    in_use: int
    publications: tuple[Publication, ...] = ()


class Unheeded(NamedTuple):
    """Units of a cancelled session whose runners have not seen that it was, and these runners."""

    units: int
    runners: int


#: Longer than anybody waits for it.
HEEDED_SECONDS: Final = 3600


class LiveState:
    """Live state of one namespace, for one process."""

    def __init__(self, redis_url: str, namespace: str) -> None:
        self._url = redis_url
        self.space = KeySpace(namespace)
        #: Redis's clock as this process knows it.
        self.clock = RedisClock()
        self._client: Any = None
        self._scripts: ScriptCaller
        self._pid = 0
        self._settle = load_script("settle_branch")
        self._checkpoint = load_script("checkpoint_step")

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
        client = connect(self._url)
        self._client, self._scripts = client, ScriptCaller(client)
        self._pid = os.getpid()  # last: another thread may look meanwhile

    # Sessions

    def open_session(self, runner: Runner, new: NewSession, lease_us: int) -> tuple[Verdict, tuple[Publication, ...]]:
        """Open a session with the caller as its first runner, or with a chord whose runners are to come.

        Returns: GO; ENDED when all has been settled before; QUEUED or REJECTED when as many sessions run as may;
            EXISTS when it is open already (nothing was changed); GONE when it was closed; and runners to publish.
        """
        rest: list[Argument] = []
        for action, result in new.results:
            rest += (action, result)
        for branch, queue in new.ready:
            rest += (branch, queue)
        for settlement in new.settlements:
            _append_settlement(rest, settlement)
        reply = load_script("open_session")(
            self.scripts, self.space, rest, session=runner.flow_session_id, life=runner.life, queue=runner.queue,
            worker=runner.worker, lease=lease_us, workflows=new.most_sessions, workflow=new.workflow,
            version=new.version_id, day=new.day,
            limit=new.limit, timeout=new.branch_timeout_seconds,
            weight=new.weight, priority=new.priority, attempt=new.attempt, open=new.open_branches,
            signature=new.signature, header=new.header, queues=",".join(new.queues), cap=new.item_results_cap,
            key=new.key, most_workflow=new.most_of_workflow, most_key=new.most_of_key,
            sessions_workflow=new.sessions_of_workflow, sessions_key=new.sessions_of_key, when_full=new.when_full,
            deadline=new.deadline_us, max_wait=new.max_wait_us,
            nr=len(new.results), nready=len(new.ready), n=len(new.settlements),
        )  # fmt: skip
        return Verdict(reply[0].decode()), _publications(reply[1])

    def cancel_session(self, flow_session_id: str) -> Cancelled:
        """Nothing of the session can be claimed from now on, and what runs of it is told to end."""
        found, claimed, publish = load_script("cancel_session")(self.scripts, self.space, session=flow_session_id)
        return Cancelled(found.decode(), claimed, _publications(publish))

    def pause_sessions(self, why: str, flow_session_ids: Sequence[str] = (), workflow: str = "") -> list[str]:
        """Nothing more of the sessions is claimed; what runs goes on.

        Args: why: session; or workflow or all, which also holds for sessions that are opened later.
        Returns: what the script found of each.
        """
        found = load_script("pause_sessions")(
            self.scripts, self.space, list(flow_session_ids), why=why, workflow=workflow
        )
        return [word.decode() for word in found]

    def resume_sessions(
        self, why: str, flow_session_ids: Sequence[str] = (), workflow: str = ""
    ) -> tuple[list[str], tuple[Publication, ...]]:
        """Sessions paused for this reason go on; returns what the script found of each, and what to publish."""
        found, publish = load_script("resume_sessions")(
            self.scripts, self.space, list(flow_session_ids), why=why, workflow=workflow
        )
        return [word.decode() for word in found], _publications(publish)

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
        return _paused_reasons(self.client.hget(self.space.key("session", flow_session_id), "paused"))

    def is_cancelled(self, flow_session_id: str) -> bool:
        """Whether what runs of the session is to end."""
        return bool(self.client.exists(self.space.key("cancelled", flow_session_id)))

    def heed_cancel(self, runner: Runner) -> None:
        """Let those know that cancelled the runner's session: it begins nothing more of what it has claimed."""
        key = self.space.key("heeded", runner.flow_session_id)
        with self.client.pipeline() as pipeline:
            pipeline.sadd(key, runner.life).expire(key, HEEDED_SECONDS).execute()

    def count_unheeded(self, flow_session_id: str) -> Unheeded:
        """What may still begin a step or an item of a cancelled session."""
        units, runners = load_script("count_unheeded")(self.scripts, self.space, session=flow_session_id)
        return Unheeded(units, runners)

    def is_heeded(self, flow_session_id: str) -> bool:
        """Whether any runner has seen that the session was cancelled."""
        return bool(self.client.exists(self.space.key("heeded", flow_session_id)))

    def close_session(self, flow_session_id: str) -> tuple[Publication, ...]:
        """Remove the session's live state; returns runners of other sessions to publish."""
        return _publications(load_script("close_session")(self.scripts, self.space, session=flow_session_id))

    # Runners

    def start_runner(self, runner: Runner, lease_us: int, message: str = "") -> Started:
        """Register a runner that begins.

        Args: message: what publishes a runner of a chord session again.
        Returns: GO, or why it must not (ENDED has the signature); and runners to publish.
        """
        reply = load_script("start_runner")(
            self.scripts, self.space, session=runner.flow_session_id, runner=runner.runner, life=runner.life,
            queue=runner.queue, worker=runner.worker, lease=lease_us, message=message,
        )  # fmt: skip
        verdict, version, day, signature = (part.decode() for part in reply[:4])
        return Started(Verdict(verdict), version, day, signature, _publications(reply[4]))

    def settle_branch(
        self,
        runner: Runner,
        settlements: Sequence[Settlement],
        *,
        call: int,
        mode: Mode = Mode.GO,
        want: int = 1,
        chunks: str = "",
        elapsed_us: int = 0,
        item_results_cap: int = 0,
    ) -> Next:
        """Record how claims ended and learn what to do next, in one round trip.

        Args: call: rises by one with each call of this runner; a repeat gets the same answer.
            want: permits to hold afterwards. chunks: most items in one claim, as `,<action>=<n>,…,`; 1 for others.
            elapsed_us: slot time used since the last call.
        Returns: what to do; `refused` names the units that belong to somebody else by now (nothing was written for
        them).
        """
        values: list[Argument] = [
            runner.flow_session_id, runner.runner, runner.life, runner.queue, runner.worker, mode.value, want, chunks,
            elapsed_us, call, item_results_cap, len(settlements),
        ]  # fmt: skip
        for settlement in settlements:
            _append_settlement(values, settlement)
        before_ns = time.monotonic_ns()
        verdict, claims, publish, refused, signature = self._settle.run(self.scripts, self.space, values)
        claimed = tuple(
            _claim(claims[index].decode(), claims[index + 1].decode(), claims[index + 2].decode())
            for index in range(0, len(claims), 3)
        )
        if claimed:
            self.clock.observe(claimed[0].since_us, before_ns, time.monotonic_ns())
        return Next(
            Verdict(verdict.decode()),
            claimed,
            _publications(publish) if publish else (),
            frozenset(unit.decode() for unit in refused) if refused else frozenset(),
            signature.decode(),
        )  # fmt: skip

    def flush_chunk(
        self, runner: Runner, day: str, settlement: Settlement, item_results_cap: int
    ) -> tuple[bool, tuple[Publication, ...]]:
        """Settle the finished items of a chunk whose current item is slow; all behind that one are ready again.

        Args: settlement: verb items, rest KEEP: its first item that has not ended stays claimed, as `kept_claim` says.
        Returns: False when the chunk belongs to somebody else (nothing was written); runners to publish.
        """
        values: list[Argument] = [runner.flow_session_id, runner.queue, day, runner.worker, item_results_cap]
        _append_settlement(values, settlement)
        done, publish = load_script("flush_chunk").run(self.scripts, self.space, values)
        return bool(done), _publications(publish)

    def send_checkpoint(
        self, runner: Runner, claim: Claim | None, day: str, action: str, result: bytes, rows: bytes,
        answered: Callable[[Any], None],
    ) -> None:  # fmt: skip
        """Send the result of a settled step in the middle of a branch, without waiting for the answer.

        It is in the hands of the kernel when this returns; the death of this process undoes it only if Redis has not
        read it by then.
        Args: claim: the branch's, or None while the session is not open. answered: called with 1, or with 0 when the
            branch belongs to somebody else (nothing was written); at the latest in `await_checkpoints`.
        """
        values: list[Argument] = [
            runner.flow_session_id, claim.unit if claim else "", claim.value if claim else "", day, runner.worker,
            action, result, rows,
        ]  # fmt: skip
        self._checkpoint.send(self.scripts, self.space, values, answered)

    def await_checkpoints(self) -> None:
        """Every checkpoint that this thread has sent is answered."""
        self.scripts.await_replies()

    def expire_runner(
        self, flow_session_id: str, runner: str, queue: str, worker: str, life: str = ""
    ) -> tuple[Publication, ...]:
        """Give up a runner of this worker whose process is dead; returns runners to publish.

        Args: life: how the life begins that is given up, where more is known of it than its worker (`lives_in`).
        """
        _, publish = load_script("expire_runner")(
            self.scripts, self.space, session=flow_session_id, runner=runner, queue=queue, worker=worker,
            life=life or f"{worker}/",
        )  # fmt: skip
        return _publications(publish)

    def resend_runners(self) -> tuple[Publication, ...]:
        """All runners that are on their way: when a process died, perhaps before it published what it was told to."""
        return _publications(load_script("resend_runners")(self.scripts, self.space))

    # The fleet

    def beat_worker(
        self,
        worker: str,
        queues: Sequence[str],
        slots: int,
        lease_us: int,
        limit_branches: int = 0,
        limit_sessions: int = 0,
    ) -> tuple[Publication, ...]:
        """Register the worker's slots, renew its leases, set the fleet's limits; returns runners to publish."""
        reply = load_script("beat_worker")(
            self.scripts,
            self.space,
            list(queues),
            worker=worker,
            lease=lease_us,
            slots=slots,
            workflows=limit_sessions,
            **{"global": limit_branches},
        )
        return _publications(reply)

    def set_limit(self, name: str, most: int) -> LimitChange | None:
        """An operator sets a limit, which wins over settings and definitions until it is unset.

        Args: name: global, workflow:<name>, key:<key> or session:<id>, of branches; sessions, sessions:workflow:<name>
            or sessions:key:<key>. most: 0 unsets it.
        Returns: what is in force now, and runners to publish; None when there is no such session.
        """
        found, before, now, in_use, publish = load_script("set_limit")(self.scripts, self.space, name=name, most=most)
        return LimitChange(before, now, in_use, _publications(publish)) if found else None

    def stop_worker(self, worker: str) -> None:
        """Forget a worker that has stopped."""
        load_script("stop_worker")(self.scripts, self.space, worker=worker)

    def expire_leases(self, most: int = 100) -> tuple[tuple[Publication, ...], list[str], list[str]]:
        """Give up what nobody renews. Returns runners to publish, workers forgotten, runners given up."""
        publish, workers, runners = load_script("expire_leases")(self.scripts, self.space, most=most)
        return _publications(publish), [name.decode() for name in workers], [name.decode() for name in runners[::2]]

    def wake_sessions(self, most: int = 1000) -> tuple[tuple[Publication, ...], int | None, list[Overdue]]:
        """Make due units ready; stop sessions whose deadline has passed, or that were queued for too long.

        Returns: what to publish; µs until the next is due (None: nothing waits for a time); branches that have waited
            too long, to be settled by `settle_overdue`.
        """
        publish, wait, _, _, overdue = load_script("wake_sessions")(self.scripts, self.space, most=most)
        texts = [text.decode() for text in overdue]
        found = [_overdue(texts[at : at + 8]) for at in range(0, len(texts), 8)]
        return _publications(publish), None if wait < 0 else int(wait), found

    def settle_overdue(
        self, overdue: Overdue, settlement: Settlement, worker: str, item_results_cap: int
    ) -> tuple[bool, tuple[Publication, ...]]:
        """Settle a branch that has waited too long, with the verb done or defer.

        Returns: False when it has begun meanwhile (nothing was written); what to publish.
        """
        values: list[Argument] = [overdue.flow_session_id, overdue.queue, overdue.day, worker, item_results_cap]
        _append_settlement(values, settlement)
        done, publish = load_script("settle_overdue").run(self.scripts, self.space, values)
        return bool(done), _publications(publish)

    def take_rate(self, token: str, limits: Sequence[tuple[str, int, int]]) -> tuple[int, int]:
        """A token of each rate limit, for a call that is to begin now, or a place in their lines.

        Args: token: names the attempt of the task. limits: name, µs between two calls, calls at once after a pause.
        Returns: 0, and when it begins: µs since the epoch, by Redis. Or the µs until its turn comes: then it is to ask
            again.
        """
        values: list[Argument] = [token]
        for limit in limits:
            values += limit
        wait_us, now_us = load_script("take_rate").run(self.scripts, self.space, values)
        return int(wait_us), int(now_us)

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

    def record_rows(self, flow_session_id: str, day: str, worker: str, rows: bytes) -> bool:
        """Send rows that no other script sends; returns False when the session was cancelled meanwhile."""
        return bool(load_script("record_rows").run(self.scripts, self.space, [flow_session_id, day, worker, rows]))

    def forget_checkpoints(self, flow_session_id: str) -> None:
        """Remove what was kept of a session that was never opened."""
        self.client.unlink(self.space.key("results", flow_session_id))

    def is_open(self, flow_session_id: str) -> bool:
        """Whether the session has live state."""
        return bool(self.client.exists(self.space.key("session", flow_session_id)))

    def header_of(self, flow_session_id: str) -> int:
        """Runners in the header of the session's chord; 0: its branches are counted in Redis, or it is not open."""
        return int(self.client.hget(self.space.key("session", flow_session_id), "header") or 0)

    def ended_counts(self, flow_session_id: str) -> tuple[dict[str, int], int, Stopped | None]:
        """Tasks of a session that has ended, by status; by how many actions it fails; why it was stopped, or None.

        Raises: SessionClosed. WorkflowExecutionError: it has not ended.
        """
        fields = self.client.hgetall(self.space.key("session", flow_session_id))
        if not fields:
            raise SessionClosed(f"flow session {flow_session_id} has no live state")
        if fields[b"status"] != b"ended":
            raise WorkflowExecutionError(f"flow session {flow_session_id} has not ended: {int(fields[b'open'])} to go")
        stopped = fields.get(b"cancelled")
        return _counts(fields), int(fields[b"failed"]), None if stopped is None else _stopped(stopped)

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
        items = {name: _items(client.hgetall(key("items", flow_session_id, name))) for name in names}
        counts = {name.decode(): int(number) for name, number in joined.items() if b":" not in name}
        return Unsettled(frozenset(waiting), counts, items)

    def begun_items(self, flow_session_id: str, actions: Iterable[str]) -> Iterator[tuple[str, int, int, int]]:
        """Items of a cancelled session that have run and were to run again: (action, item, attempt, retry)."""
        key, client = self.space.key, self.client
        # one that is deferred may wait for its first turn by a rate limit
        deferred = client.zscan_iter(key("deferred", flow_session_id), match="c:*", count=SCAN)
        returned = (client.zscan_iter(key("returned", flow_session_id, action), count=SCAN) for action in actions)
        for member, _ in chain(deferred, *returned):
            item = _item_of(member)
            if item[2] > 1 or item[3]:
                yield item

    def permits_in_use(self, flow_session_id: str) -> int:
        """Branches of the session that run at this moment."""
        return int(self.client.hlen(self.space.key("own", flow_session_id)))

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
        claims = tuple(_live_claim(unit.decode(), value.decode()) for unit, value in own.items())
        names = [name[5:].decode() for name in fields if name.startswith(b"each:")]
        queues = fields[b"queues"].decode().split(",")
        pipe = client.pipeline()
        for name in names:
            pipe.hgetall(key("items", flow_session_id, name))
        for queue in queues:
            pipe.zcard(key("ready", flow_session_id, queue))
        slots = client.mget([key("slots_total", queue) for queue in queues])
        replies = pipe.execute()
        items = {name: _items(reply) for name, reply in zip(names, replies, strict=False) if reply}
        ready = sum(replies[len(names) :]) + sum(item.size - item.started for item in items.values())
        open_branches = int(fields[b"open"])
        status = fields[b"status"].decode()
        if status == "running" and not own and not ready and deferred:
            status = "suspended"
        counts = zip(queues, replies[len(names) :], slots, strict=True)
        unserved = tuple(queue for queue, units, total in counts if units and int(total or 0) <= 0)
        return LiveSnapshot(
            status, int(fields[b"limit"]), len(own), claims, ready, deferred, open_branches, _counts(fields), items,
            _paused_reasons(fields.get(b"paused")), unserved, self._waits_at(flow_session_id, fields),
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


def _item_of(member: bytes) -> tuple[str, int, int, int]:
    """Of a unit that waits: a chunk that has been tried is one item."""
    unit, attempt, _, retry = member.decode().split("|")[:4]
    action, _, start = unit[2:].rpartition(":")
    return action, int(start), int(attempt), int(retry)


def _overdue(texts: Sequence[str]) -> Overdue:
    session, version, day, queue, unit, value, info, waits_for = texts
    return Overdue(session, version, day, queue, _claim(unit, value, info), waits_for)


def _stopped(text: bytes) -> Stopped:
    return Stopped(*text.decode().split(" ", 2))


def _paused_reasons(text: bytes | None) -> frozenset[str]:
    return frozenset(word.decode() for word in (text or b"").split(b",") if word)


def lives_in(worker: str, process: int) -> str:
    """How the lives of runners begin that run in this process of the worker."""
    return f"{worker}/{process}."


def kept_claim(settlement: Settlement) -> Claim:
    """The claim of the one item that `flush_chunk` leaves to the runner."""
    claim, start = settlement.claim, settlement.claim.start + settlement.settled
    life, attempt, _, _, ready_us, since_us = claim.value.split("|")
    return replace(
        claim, unit=f"c:{claim.name}:{start}", value=f"{life}|{attempt}|1|0|{ready_us}|{since_us}", retry=0,
        start=start, count=1,
    )  # fmt: skip


def _append_settlement(values: list[Argument], settlement: Settlement) -> None:
    claim = settlement.claim
    counts, results = settlement.counts, settlement.results
    values += (claim.unit, claim.value, settlement.verb, encode_rows(settlement.rows))
    if counts:
        values.append(len(counts))
        for status, number in counts.items():
            values += (status, number)
    else:
        values.append(0)
    if results:
        values.append(len(results))
        for action, result in results:
            values += (action, result)
    else:
        values.append(0)
    match settlement.verb:
        case "done":
            values += (settlement.outcome.value, int(settlement.fails_session), len(settlement.successors))
            for join in settlement.successors:
                values += (join.branch, join.predecessors, join.queue)
        case "expand":
            values += (settlement.size, settlement.max_concurrent)
        case "items":
            values += (
                settlement.settled, settlement.item_results, settlement.rest.value, settlement.delay_us,
                settlement.retry,
            )  # fmt: skip
        case "defer":
            values += (settlement.delay_us, settlement.retry)


def _claim(unit: str, value: str, info: str) -> Claim:
    _, attempt, count, retry, ready_us, since_us = value.split("|")
    kind = unit[0]
    if kind == "c":
        name, _, start = unit[2:].rpartition(":")
        return Claim(
            UnitKind.CHUNK, name, unit, value, int(attempt), int(retry), int(start), int(count), int(ready_us),
            int(since_us),
        )  # fmt: skip
    numbers = [int(part) for part in info.split(",")]
    if kind == "f":
        size, succeeded, failed, timed_out, skipped, cancelled, spilled = numbers
        items = ItemCounts(size, succeeded, failed, timed_out, skipped, cancelled, bool(spilled))
        return Claim(
            UnitKind.FINISH, unit[2:], unit, value, int(attempt), int(retry), ready_us=int(ready_us),
            since_us=int(since_us), items=items,
        )  # fmt: skip
    settled, failed, skipped, upstream_failed = numbers
    joined = JoinCounts(settled - failed - skipped - upstream_failed, failed, skipped, upstream_failed)
    return Claim(
        UnitKind.BRANCH, unit[2:], unit, value, int(attempt), int(retry), ready_us=int(ready_us),
        since_us=int(since_us), joined=joined,
    )  # fmt: skip


def _publications(flat: Sequence[bytes]) -> tuple[Publication, ...]:
    return tuple(
        Publication(
            flat[index].decode(),
            flat[index + 1].decode(),
            flat[index + 2].decode(),
            float(flat[index + 3]),
            flat[index + 4].decode(),
        )
        for index in range(0, len(flat), 5)
    )


def _live_claim(unit: str, value: str) -> LiveClaim:
    life, attempt, count, _, _, since_us = value.split("|")
    worker, _, runner = life.rpartition("/")
    return LiveClaim(unit, runner, worker, int(attempt), int(count), int(since_us))


def _counts(fields: Mapping[bytes, bytes]) -> dict[str, int]:
    return {name[2:].decode(): int(value) for name, value in fields.items() if name.startswith(b"n:")}


def _items(fields: Mapping[bytes, bytes]) -> ItemProgress:
    counts = _counts(fields)
    settled = sum(counts.values())
    started = int(fields[b"cursor"]) - int(fields.get(b"back", 0))
    return ItemProgress(
        int(fields[b"size"]), started, settled, counts.get("failed", 0) + counts.get("timed_out", 0), counts
    )
