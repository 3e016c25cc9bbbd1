"""A namespace of live state beside its model, and what rules of every kind do to both."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize

from orchestration.state.records import Runner
from orchestration.vocabulary import Claim, Next, Publication, Settlement, UnitKind, Verdict
from tests.support.live_model import ModelLimits, ModelSession
from tests.support.stepped_time import SteppedLiveState

LEASE_US = 3_600_000_000
WORKFLOWS = ("w1", "w2")
KEYS = ("k1", "k2")
#: All semaphores of more than one session.
SESSION_LEVELS = (
    "sessions", *(f"sessions:workflow:{name}" for name in WORKFLOWS), *(f"sessions:key:{name}" for name in KEYS)
)  # fmt: skip
LEVELS = ("global", *(f"workflow:{name}" for name in WORKFLOWS), *(f"key:{name}" for name in KEYS))
QUEUES = ("q1", "q2")
WORKER = "w@host#1"
#: 0: none.
SOME_LIMIT = st.sampled_from([0, 0, 1, 2, 3])


@dataclass
class Holder:
    """A runner that has started, with what it holds."""

    runner: Runner
    #: It was published, so its first permit came with it.
    has_permit: bool = False
    calls: int = 0
    held: dict[str, Claim] = field(default_factory=dict)
    last: tuple[list[Settlement], dict[str, object], Next] | None = None


def message_of(runner: str) -> str:
    """What publishes a runner of a chord again."""
    return f"message of {runner}"


class Machine(RuleBasedStateMachine):
    """Without rules; they come with its subclasses, which are one class in the end."""

    redis_url = ""

    @initialize(
        slots=st.integers(1, 5),
        limit_global=st.sampled_from([0, 0, 1, 2, 3]),
        limit_sessions=st.sampled_from([0, 0, 1, 2]),
    )
    def begin(self, slots: int, limit_global: int, limit_sessions: int) -> None:
        self.live = SteppedLiveState(self.redis_url, f"m{uuid.uuid4().hex[:12]}")
        self.sessions: dict[str, ModelSession] = {}
        self.published: list[Publication] = []
        #: Messages of chords' runners that nobody waits for: the first of each, and those that come again.
        self.arriving: list[tuple[str, str, str]] = []
        self.holders: dict[str, Holder] = {}
        self.slots, self.limit_sessions = slots, limit_sessions
        self.limits = ModelLimits()
        self.limits.give("global", limit_global)
        self.limits.give("sessions", limit_sessions)
        #: Permits that were in use before the last rule, by level and by session.
        self.held_before = dict.fromkeys(LEVELS, 0)
        #: Sessions that wait, in the order in which they came, and the level at which each does.
        self.queued: dict[str, str] = {}
        #: Sessions that have begun to count at their levels, in this order.
        self.begun: list[str] = []
        #: What is paused beside single sessions: workflow:<name>, all.
        self.paused: set[str] = set()
        #: Sessions that were cancelled while they were queued: they never count against the limit.
        self.never_ran: set[str] = set()
        #: Runners that came when their session had ended: what they were published with is free when it is closed.
        self.too_late: dict[str, set[str]] = {}
        self.lives = self.opened = 0
        #: Lives that have seen that their session was cancelled.
        self.heeded: set[str] = set()
        assert self.live.beat_worker(WORKER, QUEUES, slots, LEASE_US, limit_global, limit_sessions) == ()

    # Runners and their messages

    def _runner(self, session: str, runner: str, queue: str) -> Runner:
        self.lives += 1
        return Runner(session, runner, f"{WORKER}/1.{self.lives:06}", queue, WORKER)

    def _publish(self, publications: tuple[Publication, ...]) -> None:
        """These runners are on their way; one of a session that has ended without asking is told to end it."""
        for publication in publications:
            session = self.sessions[publication.flow_session_id]
            if not session.goes_on:
                if session.header and publication.runner:
                    session.ender = publication.runner
                    session.parked.remove(publication.runner)
                    self.arriving.append((publication.flow_session_id, publication.runner, publication.queue))
                else:
                    assert (publication.runner, publication.message) == (
                        "",
                        f"signature of {publication.flow_session_id}",
                    )
                continue
            assert publication.message == (message_of(publication.runner) if session.header else "")
            if session.header:
                session.parked.remove(publication.runner)
            self.published.append(publication)

    def _resend(self) -> None:
        """All runners that are on their way are published once more; their messages come twice then."""
        before = self._dump()
        resent = self.live.resend_runners()
        late = {runner for runners in self.too_late.values() for runner in runners}
        coming = {publication for publication in self.published if publication.flow_session_id in self.sessions}
        assert {publication for publication in resent if publication.runner not in late} == coming
        assert {publication.runner for publication in resent} >= late
        assert self._dump() == before
        self.arriving += [(p.flow_session_id, p.runner, p.queue) for p in resent if p.message]

    def _deliver(self) -> None:
        """Every message of a runner arrives."""
        while self.arriving:
            self._arrive(*self.arriving.pop())
        while self.published:
            publication = self.published.pop()
            runner = self._runner(publication.flow_session_id, publication.runner, publication.queue)
            if self.live.start_runner(runner, LEASE_US).verdict is Verdict.GO:
                self.holders[runner.runner] = Holder(runner, has_permit=True)
            elif publication.flow_session_id in self.sessions:
                self.too_late.setdefault(publication.flow_session_id, set()).add(runner.runner)

    def _arrive(self, name: str, runner_name: str, queue: str) -> None:
        """A runner of a chord comes, the first time or again, without having been sent for."""
        runner = self._runner(name, runner_name, queue)
        started = self.live.start_runner(runner, LEASE_US, message_of(runner_name))
        session = self.sessions.get(name)
        on_its_way = next((publication for publication in self.published if publication.runner == runner_name), None)
        if session is None:
            assert started.verdict is Verdict.GONE
        elif not session.goes_on:
            assert started.verdict is self._verdict_at_the_end(session, runner_name)
        elif not session.header and runner_name not in self.holders:
            self._come_again(runner)
        elif runner_name in self.holders or (on_its_way and on_its_way.queue != queue):
            assert started.verdict is Verdict.DUPLICATE
        elif on_its_way:
            assert started.verdict is Verdict.GO, "it takes the place of the one that was published"
            self.published.remove(on_its_way)
            self.arriving.append((name, runner_name, queue))
            self.holders[runner_name] = Holder(runner, has_permit=True)
        else:
            session.come.add(runner_name)
            session.parked.add(runner_name)
            if started.verdict is Verdict.GO:
                session.parked.remove(runner_name)
                self.holders[runner_name] = Holder(runner, has_permit=True)
            else:
                assert started.verdict is Verdict.PARKED
            self._publish(started.publications)
            return
        assert started.publications == ()

    def _verdict_at_the_end(self, session: ModelSession, runner: str) -> Verdict:
        """What a runner is told that comes when its session has ended."""
        if session.header:
            session.ender = session.ender or runner  # none was parked that could be told
        return Verdict.ENDED if session.ender == runner else Verdict.REDUNDANT

    def _come_again(self, runner: Runner) -> None:
        """The message of a runner that was given up: it is needed, or it goes."""
        session = self.sessions[runner.flow_session_id]
        coming = int(
            self.live.client.hget(self.live.space.key("session", runner.flow_session_id), f"pub:{runner.queue}") or 0
        )
        wanted = session.wants_runner(runner.queue, coming, self._turn(runner.flow_session_id))
        verdict = self.live.start_runner(runner, LEASE_US).verdict
        if wanted:
            assert verdict is Verdict.GO
            self.holders[runner.runner] = Holder(runner)
        else:
            assert verdict is Verdict.REDUNDANT

    # Sessions, and how many there may be

    def _stop(self, name: str) -> None:
        """Nothing more of the session is claimed."""
        self.sessions[name].status = "cancelled"
        self.sessions[name].has_deadline = self.sessions[name].is_delayed = False
        if name in self.queued:
            del self.queued[name]
            self.never_ran.add(name)

    def _close(self, name: str) -> None:
        session = self.sessions[name]
        if session.is_over:
            stopped = self.live.ended_counts(name)[2]
            assert stopped is not None, "it has ended behind its deadline"
        self._publish(self.live.close_session(name)[0])
        self._publish(self.live.close_session(name)[0])
        self.holders = {r: h for r, h in self.holders.items() if h.runner.flow_session_id != name}
        key = self.sessions.pop(name).key
        self.too_late.pop(name, None)
        self.never_ran.discard(name)
        self._forget_key(key)
        self._admit()

    def _forget_key(self, key: str) -> None:
        if key and not any(session.key == key for session in self.sessions.values()):
            self.limits.given.pop(f"key:{key}", None)
            self.limits.given.pop(f"sessions:key:{key}", None)

    def _admit(self) -> None:
        """Of the sessions that may start, the one that came first starts first."""
        while first := next((name for name, level in self.queued.items() if not self._is_full(level)), None):
            full = self._full(self.sessions[first])
            if full:
                self.queued[first] = full
            else:
                del self.queued[first]
                self.begun.append(first)

    def _running(self, level: str) -> int:
        """Sessions that count at a level."""
        return sum(
            level in session.session_levels
            for name, session in self.sessions.items()
            if name not in self.queued and name not in self.never_ran
        )

    def _is_full(self, level: str) -> bool:
        """Whether no further session may run at a level."""
        return 0 < self.limits.of(level) <= self._running(level)

    def _full(self, session: ModelSession) -> str:
        """The level at which it must wait for others to end; empty: none."""
        return next(filter(self._is_full, session.session_levels), "")

    # Permits and slots

    def _held(self, level: str) -> int:
        """Permits of a level in use: of claims, and of runners that are on their way."""
        sessions = {name: session for name, session in self.sessions.items() if level in session.levels}
        coming = sum(publication.flow_session_id in sessions for publication in self.published)
        coming += sum(
            holder.calls == 0 and holder.has_permit and holder.runner.flow_session_id in sessions
            for holder in self.holders.values()
        )
        coming += sum(len(runners) for name, runners in self.too_late.items() if name in sessions)
        return coming + sum(len(session.claimed) for session in sessions.values())

    def _reached(self, session: ModelSession) -> bool:
        """Whether some level of the session has no permit left."""
        return any(0 < self.limits.of(level) <= self._held(level) for level in session.levels)

    def _turn(self, name: str) -> str | None:
        """The queue that a permit of the session is kept for."""
        turn = self.live.client.hget(self.live.space.key("session", name), "turn")
        return turn.decode() if turn else None

    def _in_flight(self, queue: str) -> int:
        return int(self.live.client.zcard(self.live.space.key("inflight", queue)))

    # What tests look at

    def _check_info(self, session: ModelSession, claim: Claim) -> None:
        if claim.kind is UnitKind.BRANCH:
            joined = claim.joined
            assert session.joined_counts(claim.name) == (
                joined.succeeded,
                joined.failed,
                joined.skipped,
                joined.upstream_failed,
            )
        elif claim.kind is UnitKind.FINISH:
            assert claim.items is not None
            assert claim.items.size == claim.items.succeeded == session.plan[claim.name].size

    def _fleet(self) -> dict[str, object]:
        key, client = self.live.space.key, self.live.client
        queues = {
            queue: (client.zrange(key("waiting", queue), 0, -1), client.zrange(key("inflight", queue), 0, -1))
            for queue in QUEUES
        }
        blocked = {level: client.zrange(key("blocked", level), 0, -1) for level in LEVELS}
        return {"waiting, in flight": queues, "blocked": blocked, "slots": self.slots, "limits": self.limits}

    def _dump(self) -> dict[bytes, bytes | None]:
        return {
            key: self.live.client.dump(key) for key in sorted(self.live.client.scan_iter(f"{self.live.space.prefix}*"))
        }
