"""The Lua transitions against the plain Python model, on random plans, outcomes, crashes and interleavings.

Sessions of both dispatchers live side by side. The runners of a chord come by themselves once, then as they are
published; each is at work, on its way or parked, and never two of these.
"""

from __future__ import annotations

import os
import uuid
from dataclasses import dataclass, field

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from orchestration.state.records import LimitChange, NewSession, Runner
from orchestration.state.wire import kept_claim
from orchestration.vocabulary import (
    Claim,
    JoinStep,
    Mode,
    Next,
    Outcome,
    Publication,
    Rest,
    Settlement,
    UnitKind,
    Verdict,
)
from tests.support.checkpoint import checkpoint
from tests.support.live_model import ModelBranch, ModelLimits, ModelSession
from tests.support.stepped_time import SteppedLiveState

#: Modes whose effect does not depend on the time of day, so that an example can be repeated.
MODES = [Mode.GO, Mode.GO, Mode.GO, Mode.TICK, Mode.SLICE, Mode.LEAVE]
LEASE_US = 3_600_000_000
WORKFLOWS = ("w1", "w2")
KEYS = ("k1", "k2")
#: All semaphores of more than one session.
SESSION_LEVELS = (
    "sessions", *(f"sessions:workflow:{name}" for name in WORKFLOWS), *(f"sessions:key:{name}" for name in KEYS)
)  # fmt: skip
LEVELS = ("global", *(f"workflow:{name}" for name in WORKFLOWS), *(f"key:{name}" for name in KEYS))
QUEUES = ("q1", "q2")
#: Causes of repairs that the machine provokes.
REPAIRED = ("completion", "header", "runner", "admission", "wake-up", "time limit")
#: Those for what only takes long.
LATE = {"completion", "header"}
WORKER = "w@host#1"
#: By so much older, ready units of another queue have the next permit of their session, if that queue has a free slot.
TURN_AFTER_US = 250_000
EXAMPLES = int(os.environ.get("TRANSITION_EXAMPLES", "150"))
STEPS = 60
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


@st.composite
def plans(draw: st.DrawFn) -> dict[str, ModelBranch]:
    count = draw(st.integers(1, 6))
    needs = {
        f"n{index}": draw(
            st.lists(st.sampled_from([f"n{earlier}" for earlier in range(index)]), unique=True, max_size=3)
        )
        if index
        else []
        for index in range(count)
    }
    return {
        name: ModelBranch(
            name, draw(st.sampled_from(QUEUES)), len(before),
            tuple(other for other, befores in needs.items() if name in befores),
            draw(st.sampled_from([None, None, 1, 3, 9])), draw(st.sampled_from([0, 0, 1, 2])),
        )
        for name, before in needs.items()
    }  # fmt: skip


class Transitions(RuleBasedStateMachine):
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

    # What callers do

    @precondition(lambda self: len(self.sessions) < 4)
    @rule(
        plan=plans(), limit=st.integers(1, 4), queue=st.sampled_from(QUEUES),
        header=st.sampled_from([0, 0, 0, 1, 2, 4]), workflow=st.sampled_from(WORKFLOWS),
        key=st.sampled_from(["", *KEYS]), most=st.tuples(SOME_LIMIT, SOME_LIMIT, SOME_LIMIT, SOME_LIMIT),
        chosen=st.tuples(
            st.sampled_from(["queue", "queue", "reject", "cancel_running", "keep_newest"]),
            st.sampled_from([0, 0, LEASE_US]),
            st.sampled_from([0, LEASE_US]),
        ),
    )  # fmt: skip
    def open(
        self, plan: dict[str, ModelBranch], limit: int, queue: str, header: int, workflow: str, key: str,
        most: tuple[int, int, int, int], chosen: tuple[str, int, int],
    ) -> None:  # fmt: skip
        when_full, deadline_us, max_wait_us = chosen
        self.opened += 1
        session = f"s{self.opened}"
        runner = self._runner(session, f"{session}.0", queue)
        new = NewSession(
            workflow=workflow, version_id="v", day="2026-01-01", limit=limit, branch_timeout_seconds=300.0,
            open_branches=len(plan), signature=f"signature of {session}", queues=QUEUES,
            most_sessions=self.limit_sessions, header=header, key=key, most_of_workflow=most[0], most_of_key=most[1],
            sessions_of_workflow=most[2], sessions_of_key=most[3], when_full=when_full,
            deadline_us=deadline_us, max_wait_us=max_wait_us,
            ready=[(branch.name, branch.queue) for branch in plan.values() if not branch.predecessors],
        )  # fmt: skip
        verdict, publications = self.live.open_session(runner, new, LEASE_US)
        paused = {why for why, mark in (("workflow", f"workflow:{workflow}"), ("all", "all")) if mark in self.paused}
        opened = ModelSession(plan, limit, self.slots, header, workflow, key, paused=paused)
        opened.has_deadline, opened.max_wait_us = bool(deadline_us), max_wait_us
        self.limits.give(f"workflow:{workflow}", most[0])
        if key:
            self.limits.give(f"key:{key}", most[1])
            self.limits.give(f"sessions:key:{key}", most[3])
        self.limits.give(f"sessions:workflow:{workflow}", most[2])
        self._admit()
        full = self._full(opened)
        if full and when_full == "reject":
            assert verdict is Verdict.REJECTED
            self._forget_key(key)
            self._publish(publications)
            return
        ousted = self._give_way(opened, when_full) if full else []
        self.sessions[session] = opened
        self.arriving += [(session, f"{session}.{number}", queue) for number in range(1, header + 1)]
        assert self.live.header_of(session) == header
        if full:
            assert verdict is Verdict.QUEUED
            assert not [p for p in publications if p.flow_session_id == session]
            self.queued[session] = full
        else:
            assert verdict is Verdict.GO
            self.begun.append(session)
            if not header:
                self.holders[runner.runner] = Holder(runner)
        self._publish(publications)
        verdict, publications = self.live.open_session(runner, new, LEASE_US)
        assert verdict is Verdict.EXISTS
        completed = [name for name in ousted if not self.sessions[name].goes_on and not self.sessions[name].header]
        assert [(p.flow_session_id, p.runner) for p in publications] == [(name, "") for name in completed]

    @precondition(lambda self: self.published)
    @rule(data=st.data())
    def start(self, data: st.DataObject) -> None:
        publication = self.published.pop(data.draw(st.integers(0, len(self.published) - 1)))
        runner = self._runner(publication.flow_session_id, publication.runner, publication.queue)
        started = self.live.start_runner(runner, LEASE_US, "a message that is not the first one")
        assert started.publications == ()
        session = self.sessions.get(publication.flow_session_id)
        if session is None:
            assert started.verdict is Verdict.GONE
        elif not session.goes_on:
            assert started.verdict is self._verdict_at_the_end(session, runner.runner)
            self.too_late.setdefault(publication.flow_session_id, set()).add(runner.runner)
        else:
            assert started.verdict is Verdict.GO
            self.holders[runner.runner] = Holder(runner, has_permit=True)
            twice = self._runner(publication.flow_session_id, publication.runner, publication.queue)
            assert self.live.start_runner(twice, LEASE_US).verdict is Verdict.DUPLICATE

    @precondition(lambda self: self.arriving)
    @rule(data=st.data())
    def arrive(self, data: st.DataObject) -> None:
        """A runner of a chord comes that was not published from here."""
        self._arrive(*self.arriving.pop(data.draw(st.integers(0, len(self.arriving) - 1))))

    @precondition(lambda self: any(session.come for session in self.sessions.values()))
    @rule(data=st.data(), queue=st.sampled_from(QUEUES))
    def arrive_again(self, data: st.DataObject, queue: str) -> None:
        """A message of a runner of a chord is delivered a second time, perhaps one of long ago."""
        come = sorted((name, runner) for name, session in self.sessions.items() for runner in session.come)
        self._arrive(*data.draw(st.sampled_from(come)), queue)

    @precondition(lambda self: self.holders)
    @rule(data=st.data(), mode=st.sampled_from(MODES), want=st.integers(1, 3), chunk=st.integers(1, 4))
    def step(self, data: st.DataObject, mode: Mode, want: int, chunk: int) -> None:
        self._step(data, data.draw(st.sampled_from(sorted(self.holders))), mode, want, chunk)

    @precondition(lambda self: any(holder.held for holder in self.holders.values()))
    @rule(data=st.data(), want=st.integers(1, 3))
    def settle_some(self, data: st.DataObject, want: int) -> None:
        """As `step`, by a runner that has something to settle: much of what follows needs that."""
        names = sorted(name for name, holder in self.holders.items() if holder.held)
        self._step(data, data.draw(st.sampled_from(names)), Mode.GO, want, 1)

    @precondition(lambda self: self.holders or self.published or self.arriving)
    @rule(data=st.data())
    def claim_some(self, data: st.DataObject) -> None:
        """Every message of a runner arrives, and every runner asks for work."""
        self._deliver()
        for name in sorted(self.holders):
            if name in self.holders:
                self._step(data, name, Mode.GO, 3, 1, settles=False)

    def _step(self, data: st.DataObject, name: str, mode: Mode, want: int, chunk: int, *, settles: bool = True) -> None:
        holder = self.holders[name]
        session = self.sessions[holder.runner.flow_session_id]
        was_over = not session.goes_on
        units = sorted(holder.held) if settles else []
        chosen = data.draw(st.lists(st.sampled_from(units), unique=True, min_size=int(want > 1))) if units else []
        settlements = [self._settlement(data, session, holder.held[unit]) for unit in chosen]
        chunks = f",{','.join(f'{name}={chunk}' for name in session.plan)}," if chunk > 1 else ""
        arguments: dict[str, object] = {
            "mode": mode, "want": want, "chunks": chunks, "elapsed_us": data.draw(st.sampled_from([0, 1000, 300_000])),
        }  # fmt: skip
        holder.calls += 1
        had_slots = [queue for queue in QUEUES if self._in_flight(queue) < self.slots]
        answer = self.live.settle_branch(holder.runner, settlements, call=holder.calls, **arguments)  # type: ignore[arg-type]
        holder.last = (settlements, arguments, answer)
        assert not answer.refused
        for settlement in settlements:
            del holder.held[settlement.claim.unit]
        self._left(holder, answer)
        self._publish(answer.publications)
        for claim in answer.claims:
            session.claim(
                holder.runner.queue, claim.unit, holder.runner.life, claim.attempt, claim.count, claim.retry, chunk
            )
            self._check_info(session, claim)
            holder.held[claim.unit] = claim
        self._check_order(holder.runner, session, answer, had_slots)
        self._check_verdict(holder, session, answer, mode, want, was_over=was_over)

    @precondition(lambda self: any(holder.last for holder in self.holders.values()))
    @rule(data=st.data())
    def repeat(self, data: st.DataObject) -> None:
        """The reply was lost: the same call again gives the same answer and changes nothing."""
        names = sorted(name for name, holder in self.holders.items() if holder.last)
        holder = self.holders[data.draw(st.sampled_from(names))]
        assert holder.last is not None
        settlements, arguments, answer = holder.last
        before = self._dump()
        assert self.live.settle_branch(holder.runner, settlements, call=holder.calls, **arguments) == answer  # type: ignore[arg-type]
        assert self._dump() == before

    @precondition(lambda self: any(holder.held for holder in self.holders.values()))
    @rule(data=st.data())
    def settle_what_is_not_yours(self, data: st.DataObject) -> None:
        names = sorted(name for name, holder in self.holders.items() if holder.held)
        victim = self.holders[data.draw(st.sampled_from(names))]
        unit = data.draw(st.sampled_from(sorted(victim.held)))
        claim = victim.held[unit]
        stale = Claim(
            claim.kind, claim.name, claim.unit, claim.value + "0", claim.attempt, claim.retry, count=claim.count
        )
        victim.calls += 1
        answer = self.live.settle_branch(
            victim.runner, [Settlement(stale, "done")], call=victim.calls, want=len(victim.held)
        )
        victim.last = None
        assert answer.refused == {unit}
        assert answer.verdict is Verdict.HOLD
        assert not answer.claims
        self._publish(answer.publications)
        assert not checkpoint(self.live, victim.runner, stale, "a", b"null")
        assert checkpoint(self.live, victim.runner, claim, "a", b"null")
        kept = Settlement(stale, "items", rest=Rest.KEEP)
        if claim.kind is UnitKind.CHUNK:
            assert self.live.flush_chunk(victim.runner, "2026-01-01", kept, 0) == (False, ())

    @precondition(lambda self: any(claim.count > 1 for h in self.holders.values() for claim in h.held.values()))
    @rule(data=st.data())
    def flush(self, data: st.DataObject) -> None:
        """An item of a chunk is slow: what was finished before it is settled, what was not begun goes back."""
        chunks = {
            unit: holder
            for _, holder in sorted(self.holders.items())
            for unit, claim in holder.held.items()
            if claim.count > 1
        }
        unit = data.draw(st.sampled_from(sorted(chunks)))
        holder = chunks[unit]
        claim = holder.held.pop(unit)
        number = data.draw(st.integers(0, claim.count - 1))
        settlement = Settlement(claim, "items", settled=number, counts={"succeeded": number}, rest=Rest.KEEP)
        done, publications = self.live.flush_chunk(holder.runner, "2026-01-01", settlement, 0)
        assert done
        self._publish(publications)
        self.sessions[holder.runner.flow_session_id].flush(unit, number)
        left = kept_claim(settlement)
        holder.held[left.unit] = left
        before = self._dump()
        assert self.live.flush_chunk(holder.runner, "2026-01-01", settlement, 0) == (True, ())
        assert self._dump() == before

    @precondition(lambda self: self.holders)
    @rule(data=st.data())
    def crash(self, data: st.DataObject) -> None:
        """The process of a runner dies; its worker says so."""
        name = data.draw(st.sampled_from(sorted(self.holders)))
        holder = self.holders.pop(name)
        runner = holder.runner
        assert self.live.expire_runner(runner.flow_session_id, name, runner.queue, "another@host#1") == ()
        assert self.live.expire_runner(runner.flow_session_id, name, runner.queue, WORKER, f"{WORKER}/other") == ()
        session = self.sessions[runner.flow_session_id]
        if session.header:
            session.parked.add(name)
        self._resend()
        publications = self.live.expire_runner(runner.flow_session_id, name, runner.queue, WORKER, runner.life)
        session.lose(runner.life)
        self._publish(publications)
        lost = self.live.settle_branch(runner, [], call=holder.calls + 1).verdict
        assert lost is (Verdict.LOST if session.goes_on else Verdict.GONE)
        if session.header:
            self._arrive(runner.flow_session_id, name, runner.queue)
        else:
            self._come_again(runner)

    @precondition(lambda self: self.published)
    @rule()
    def crash_before_publishing(self) -> None:
        """A process dies that was told to publish runners, perhaps before it did."""
        self._resend()

    @precondition(lambda self: self.sessions)
    @rule(data=st.data(), queue=st.sampled_from(QUEUES), seconds=st.sampled_from([1, 20]))
    def wait(self, data: st.DataObject, queue: str, seconds: int) -> None:
        """What is ready on a queue has waited for so much longer."""
        name = data.draw(st.sampled_from(sorted(self.sessions)))
        key, client = self.live.space.key, self.live.client
        for member in client.zrange(key("ready", name, queue), 0, -1):
            client.zincrby(key("ready", name, queue), -1_000_000 * seconds, member)
        for action, items in self.sessions[name].items.items():
            if items.queue == queue:
                client.hincrby(key("items", name, action), "at", -1_000_000 * seconds)

    @precondition(lambda self: self.sessions)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        """From here on nothing of the session is claimed; it ends with what is."""
        name = data.draw(st.sampled_from(sorted(self.sessions)))
        session = self.sessions[name]
        answer = self.live.cancel_session(name)
        if session.status == "cancelled" or (session.is_over and not session.open):
            found = "again" if session.is_asked else "stopped"
            assert (answer.found, answer.claimed) == (found, len(session.claimed))
        elif not session.open:
            assert (answer.found, answer.publications) == ("ended", ())
        else:
            assert (answer.found, answer.claimed) == ("cancelled", len(session.claimed))
            session.is_asked = True
            self._stop(name)
        if session.status == "cancelled" and not session.goes_on and not session.header:
            assert [(p.runner, p.message) for p in answer.publications] == [("", f"signature of {name}")]
        self._publish(answer.publications)

    @precondition(lambda self: self.holders)
    @rule(data=st.data())
    def heed(self, data: st.DataObject) -> None:
        """A runner has seen that its session was cancelled; of what it has claimed nothing more begins."""
        holder = self.holders[data.draw(st.sampled_from(sorted(self.holders)))]
        name = holder.runner.flow_session_id
        if self.sessions[name].status == "cancelled":
            self.live.heed_cancel(holder.runner)
            self.heeded.add(holder.runner.life)
        others = [other for other in self.holders.values() if other.runner.flow_session_id == name and other.held]
        unheeded = [other for other in others if other.runner.life not in self.heeded]
        assert self.live.count_unheeded(name) == (sum(len(other.held) for other in unheeded), len(unheeded))

    @precondition(lambda self: self.sessions)
    @rule(data=st.data(), why=st.sampled_from(["session", "session", "workflow", "all"]))
    def pause(self, data: st.DataObject, why: str) -> None:
        """What is claimed stays so; nothing more is claimed."""
        chosen, workflow = self._chosen(data, why)
        if why != "session":
            self.paused.add(f"workflow:{workflow}" if why == "workflow" else why)
        found = self.live.pause_sessions(why, chosen, workflow)
        for name, word in zip(chosen, found, strict=True):
            session = self.sessions[name]
            if why == "workflow" and session.workflow != workflow:
                assert word == "other"
            elif not session.goes_on or session.status == "cancelled":
                assert word == ("ended" if not session.goes_on else "cancelled")
            else:
                assert word == ("again" if why in session.paused else "paused")
                session.paused.add(why)
        assert self.live.pause_sessions("workflow", chosen[:0], "another") == []
        assert set(self.live.resume_sessions("workflow", chosen, "another")[0]) == {"other"}

    @precondition(lambda self: self.sessions)
    @rule(data=st.data(), why=st.sampled_from(["session", "workflow", "all"]))
    def resume(self, data: st.DataObject, why: str) -> None:
        """What can run is handed out by the very call."""
        self._resume(why, *self._chosen(data, why))

    def _chosen(self, data: st.DataObject, why: str) -> tuple[list[str], str]:
        """Sessions, and the workflow, that are paused or resumed for a reason."""
        names = sorted(self.sessions)
        chosen = names if why != "session" else [data.draw(st.sampled_from(names))]
        return chosen, data.draw(st.sampled_from(WORKFLOWS)) if why == "workflow" else ""

    def _resume(self, why: str, chosen: list[str], workflow: str = "") -> None:
        self.paused.discard(f"workflow:{workflow}" if why == "workflow" else why)
        found, publications = self.live.resume_sessions(why, chosen, workflow)
        for name, word in zip(chosen, found, strict=True):
            session = self.sessions[name]
            if why == "workflow" and session.workflow != workflow:
                assert word == "other"
            elif not session.goes_on or session.status == "cancelled":
                assert word == ("ended" if not session.goes_on else "cancelled")
            else:
                left = session.paused - {why}
                assert word == ("before" if why not in session.paused else "still" if left else "resumed")
                session.paused = left
        self._publish(publications)

    @precondition(lambda self: self.sessions)
    @rule()
    def wake(self) -> None:
        publications, wait_us, _ = self.live.wake_sessions()
        for name, session in self.sessions.items():
            if session.is_over and session.has_deadline and session.goes_on:
                self._stop(name)
            elif session.is_over:
                session.has_deadline = False  # nobody looks any more whether it has passed
            session.wake()
        assert wait_us is not None or not any(session.has_deadline for session in self.sessions.values())
        may_wait = any(session.has_deadline or session.max_wait_us for session in self.sessions.values())
        assert wait_us is None or may_wait
        self._publish(publications)

    @precondition(lambda self: self._may_be_overdue())
    @rule(data=st.data(), outcome=st.sampled_from([Outcome.FAILED, Outcome.SUCCESS]))
    def wait_too_long(self, data: st.DataObject, outcome: Outcome) -> None:
        """A branch is settled that nobody has begun for too long."""
        name, unit = data.draw(st.sampled_from(self._may_be_overdue()))
        session, key, client = self.sessions[name], self.live.space.key, self.live.client
        queue = session.queue_of(unit)
        client.zincrby(key("ready", name, queue), -2 * LEASE_US, f"{unit}|1|1|0")
        client.hincrby(key("session", name), "began", -2 * LEASE_US)
        client.zadd(key("due"), {name: 1})
        publications, _, found = self.live.wake_sessions()
        for each in self.sessions.values():
            each.wake()
        self._publish(publications)
        (overdue,) = (each for each in found if (each.flow_session_id, each.claim.unit) == (name, unit))
        assert (overdue.version_id, overdue.day, overdue.queue) == ("v", "2026-01-01", queue)
        self._check_info(session, overdue.claim)
        session.end_overdue(unit, outcome)
        steps = session.plan[unit[2:]].successors
        joins = tuple(JoinStep(step, session.plan[step].predecessors, session.plan[step].queue) for step in steps)
        settlement = Settlement(overdue.claim, "done", outcome=outcome, successors=joins)
        done, publications = self.live.settle_overdue(overdue, settlement, WORKER, 0)
        assert done
        self._publish(publications)
        before = self._dump()
        assert self.live.settle_overdue(overdue, settlement, WORKER, 0) == (False, ())
        assert self._dump() == before

    def _may_be_overdue(self) -> list[tuple[str, str]]:
        """Sessions and branches of them that have not begun, in a fleet in which no deadline has passed just now."""
        if any(session.is_over and session.has_deadline for session in self.sessions.values()):
            return []
        able = {name: session for name, session in sorted(self.sessions.items()) if name not in self.queued}
        return [
            (name, unit) for name, session in able.items() for unit in session.untouched()
            if session.max_wait_us and session.may_claim and session.goes_on
        ]  # fmt: skip

    @precondition(lambda self: any(session.has_deadline and session.goes_on for session in self.sessions.values()))
    @rule(data=st.data())
    def pass_deadline(self, data: st.DataObject) -> None:
        """From here on nothing of the session is claimed, although nobody has stopped it yet."""
        names = sorted(name for name, session in self.sessions.items() if session.has_deadline and session.goes_on)
        name = data.draw(st.sampled_from(names))
        key, client = self.live.space.key, self.live.client
        passed_us = self.live.now_us() - 1
        client.hset(key("session", name), "deadline", passed_us)
        client.zadd(key("due"), {name: passed_us})
        self.sessions[name].is_over = True

    @precondition(lambda self: any(not session.goes_on for session in self.sessions.values()))
    @rule()
    def close(self) -> None:
        for name in [name for name, session in self.sessions.items() if not session.goes_on]:
            self._close(name)

    @precondition(lambda self: self.published)
    @rule(data=st.data())
    def lose_runner(self, data: st.DataObject) -> None:
        """The message of a runner that is on its way is lost; its lease ends, and another one is published."""
        lost = self.published.pop(data.draw(st.integers(0, len(self.published) - 1)))
        session = self.sessions.get(lost.flow_session_id)
        self.live.client.zadd(self.live.space.key("inflight", lost.queue), {lost.runner: 1}, xx=True)
        if session is not None and session.header:
            session.parked.add(lost.runner)  # before it is published again
        before = self.live.repairs().get("message", 0)
        publications, _, given_up = self.live.expire_leases()
        assert list(given_up) == ([lost.runner] if session is not None else [])
        assert self.live.repairs().get("message", 0) == before + len(given_up)
        self._publish(publications)

    @precondition(lambda self: self.arriving)
    @rule(data=st.data())
    def lose_first_message(self, data: st.DataObject) -> None:
        """A message of a runner of a chord is lost that nobody has published from here."""
        self.arriving.pop(data.draw(st.integers(0, len(self.arriving) - 1)))

    @precondition(lambda self: self.queued)
    @rule(data=st.data())
    def lose_place_in_queue(self, data: st.DataObject) -> None:
        """A session is queued nowhere."""
        name = data.draw(st.sampled_from(sorted(self.queued)))
        level, key = self.queued[name], self.live.space.key
        self.live.client.zrem(key("sessions_queued") if level == "sessions" else key("blocked", level), name)
        self.queued[name] = self._full(self.sessions[name])
        self._repair("admission", name)

    @precondition(lambda self: self._unserved())
    @rule(data=st.data())
    def lose_place_of_work(self, data: st.DataObject) -> None:
        """A session waits for neither a slot nor a permit, though it could use them."""
        name, queue = data.draw(st.sampled_from(self._unserved()))
        key, client = self.live.space.key, self.live.client
        client.zrem(key("waiting", queue), name)
        for level in LEVELS:
            client.zrem(key("blocked", level), f"{queue}|{name}")
        self._repair("runner", name)

    @precondition(lambda self: self._going_on("is_delayed", "deferred"))
    @rule(data=st.data())
    def lose_wake_up(self, data: st.DataObject) -> None:
        """Nobody would look at what is deferred."""
        name = data.draw(st.sampled_from(self._going_on("is_delayed", "deferred")))
        self.live.client.zrem(self.live.space.key("delayed"), name)
        self._repair("wake-up", name)

    @precondition(lambda self: self._going_on("has_deadline"))
    @rule(data=st.data())
    def lose_deadline(self, data: st.DataObject) -> None:
        """Nobody would look whether the deadline has passed."""
        name = data.draw(st.sampled_from(self._going_on("has_deadline")))
        self.live.client.zrem(self.live.space.key("due"), name)
        self._repair("time limit", name)

    def _repair(self, cause: str, name: str) -> None:
        """The reaper finds this, and nothing else but what takes long."""
        assert [repair for repair in self._reap() if repair[0] not in LATE] == [(cause, name)]

    def _unserved(self) -> list[tuple[str, str]]:
        """Sessions with use for one more runner on a queue, which they don't get just now."""
        key, client = self.live.space.key, self.live.client
        return [
            (name, queue) for name, session in sorted(self.sessions.items()) for queue in QUEUES
            if name not in self.queued and session.wants_runner(
                queue, int(client.hget(key("session", name), f"pub:{queue}") or 0), self._turn(name)
            )
        ]  # fmt: skip

    def _going_on(self, *fields: str) -> list[str]:
        """Sessions that are not stopped, and have something in each of these fields."""
        return sorted(
            name for name, session in self.sessions.items()
            if session.goes_on and session.status != "cancelled" and all(getattr(session, field) for field in fields)
        )  # fmt: skip

    @precondition(lambda self: self.sessions)
    @rule()
    def reap(self) -> None:
        """What is whole is left as it is, but for completions that take long."""
        assert {cause for cause, _ in self._reap()} <= LATE

    def _reap(self) -> list[tuple[str, str]]:
        """All sessions are looked at by the reaper, which finds nothing when it looks again; returns what it did."""
        key, client = self.live.space.key, self.live.client
        for name, session in self.sessions.items():
            if not session.goes_on:
                client.hset(key("session", name), "ended", 1)
                client.hdel(key("session", name), "complete_at")
        lonely = [
            name for name, session in self.sessions.items()
            if session.header and not session.come and name not in self.queued
            and session.goes_on and session.status == "running" and not session.paused
        ]  # fmt: skip
        for name in lonely:
            client.zadd(key("sessions_open"), {name: self.live.now_us() - 61_000_000})
        counted = self.live.repairs()
        reaped = self.live.reap_sessions(WORKER, LEASE_US)
        assert reaped.is_reaper
        assert reaped.is_done
        found = {cause: [r.flow_session_id for r in reaped.repairs if r.cause == cause] for cause in REPAIRED}
        assert sorted(found["completion"]) == sorted(name for name, each in self.sessions.items() if not each.goes_on)
        assert sorted(found["header"]) == sorted(lonely)
        for name in lonely:
            self.sessions[name].header = 0
        for cause, names in found.items():
            if names:
                counted[cause] = counted.get(cause, 0) + len(names)
        assert self.live.repairs() == counted
        self._publish(reaped.publications)
        again = self.live.reap_sessions(WORKER, LEASE_US)
        assert (again.repairs, again.publications) == ((), ()), "repaired once"
        return [(repair.cause, repair.flow_session_id) for repair in reaped.repairs]

    @rule(level=st.sampled_from(LEVELS), most=SOME_LIMIT)
    def set_limit(self, level: str, most: int) -> None:
        """An operator changes a limit, or leaves it to settings and definitions again."""
        before = self.limits.of(level)
        self.limits.set(level, most)
        change = self.live.set_limit(level, most)
        assert change is not None
        assert (change.before, change.now) == (before, self.limits.of(level))
        self._publish(change.publications)
        assert change.in_use == self._held(level)
        assert self.live.set_limit(level, most) == LimitChange(change.now, change.now, change.in_use), "repeated"

    @rule(level=st.sampled_from(SESSION_LEVELS), most=SOME_LIMIT)
    def set_limit_of_sessions(self, level: str, most: int) -> None:
        self.limits.set(level, most)
        change = self.live.set_limit(level, most)
        assert change is not None
        self._admit()
        assert (change.now, change.in_use) == (self.limits.of(level), self._running(level))
        self._publish(change.publications)

    @precondition(lambda self: self.sessions)
    @rule(data=st.data(), most=st.integers(0, 4))
    def set_limit_of_session(self, data: st.DataObject, most: int) -> None:
        name = data.draw(st.sampled_from(sorted(self.sessions)))
        session = self.sessions[name]
        change = self.live.set_limit(f"session:{name}", most)
        if not session.goes_on:
            assert change is None, "it has ended"
            return
        session.limit = most or session.limit_given
        assert change is not None
        assert (change.now, change.in_use) == (session.limit, len(session.claimed))
        self._publish(change.publications)

    @rule(limit_global=SOME_LIMIT)
    def beat(self, limit_global: int) -> None:
        """A worker renews its leases; its settings may be others than before."""
        self.limits.give("global", limit_global)
        self._publish(self.live.beat_worker(WORKER, QUEUES, self.slots, LEASE_US, limit_global, self.limit_sessions))

    # What must hold at all times

    @invariant()
    def queued_sessions_are_those_above_the_limit(self) -> None:
        key, client = self.live.space.key, self.live.client
        queued: list[str] = []
        for level in SESSION_LEVELS:
            running_at, queued_at = (key("permits", level), key("blocked", level))
            if level == "sessions":
                running_at, queued_at = key("sessions_running"), key("sessions_queued")
            assert client.zcard(running_at) == self._running(level)
            found = [name.decode() for name in client.zrange(queued_at, 0, -1)]
            waiting = [name for name, waits_at in self.queued.items() if waits_at == level]
            assert found == waiting, "in the order in which they came"
            assert not found or 0 < self.limits.of(level) <= self._running(level), f"{found} wait at {level}, with room"
            queued += found
        assert sorted(queued) == sorted(self.queued)
        running = {name.decode() for name in client.zrange(key("sessions_running"), 0, -1)}
        assert running == self.sessions.keys() - set(self.queued) - self.never_ran
        for name in self.queued:
            assert not self.sessions[name].claimed

    @invariant()
    def states_agree(self) -> None:
        key, client = self.live.space.key, self.live.client
        for name, session in self.sessions.items():
            own = {unit.decode(): value.decode().split("|") for unit, value in client.hgetall(key("own", name)).items()}
            assert {unit: (v[0], int(v[1]), int(v[2]), int(v[3])) for unit, v in own.items()} == {
                unit: (held.life, held.attempt, held.count, held.retry) for unit, held in session.claimed.items()
            }
            for queue in QUEUES:
                members = {member.decode() for member in client.zrange(key("ready", name, queue), 0, -1)}
                plain = {f"{u}|{w.attempt}|{w.count}|{w.retry}" for u, w in session.ready.get(queue, {}).items()}
                shown = {f"i:{a}" for a, items in session.items.items() if items.queue == queue and items.claimable}
                assert members == plain | shown
            for action, items in session.items.items():
                returned = {m.decode() for m in client.zrange(key("returned", name, action), 0, -1)}
                if len(items.settled) < items.size:
                    assert returned == {f"{u}|{w.attempt}|{w.count}|{w.retry}" for u, w in items.returned.items()}
                    bits = client.bitcount(key("bits", name, action))
                    assert bits == len(items.settled)
            assert int(client.hget(key("session", name), "open")) == session.open
            assert client.zcard(key("deferred", name)) == len(session.deferred)

    @invariant()
    def limits_hold_and_permits_are_counted(self) -> None:
        """No more permits are in use than a limit allows; while it was lowered below its use, no more than before."""
        key, client = self.live.space.key, self.live.client
        held = {level: self._held(level) for level in LEVELS}
        for level in LEVELS:
            assert client.zcard(key("permits", level)) == held[level]
            most = self.limits.of(level)
            assert most == int(client.hget(key("limits"), level) or 0)
            assert not most or held[level] <= max(most, self.held_before[level]), f"{level}; {self._fleet()}"
        for name, session in self.sessions.items():
            held[name] = len(session.claimed)
            assert held[name] <= max(session.limit, self.held_before.get(name, 0))
        self.held_before = held

    @invariant()
    def nobody_waits_while_a_slot_and_a_permit_are_free(self) -> None:
        key, client = self.live.space.key, self.live.client
        for queue in QUEUES:
            if client.zcard(key("inflight", queue)) >= self.slots:
                continue
            for name, session in self.sessions.items():
                if name in self.queued or self._reached(session):
                    continue
                coming = int(client.hget(key("session", name), f"pub:{queue}") or 0)
                assert not session.wants_runner(queue, coming, self._turn(name)), (
                    f"{name} has ready work on {queue} and gets no runner; {self._fleet()}"
                )

    @invariant()
    def a_permit_is_kept_only_for_a_queue_with_ready_units(self) -> None:
        kept = {name.decode() for name in self.live.client.zrange(self.live.space.key("turns"), 0, -1)}
        assert kept == {name for name in self.sessions if self._turn(name)}
        for name in kept:
            assert self.sessions[name].ready_units(str(self._turn(name)))
            assert self.sessions[name].may_claim or self.sessions[name].is_over

    @invariant()
    def a_runner_of_a_chord_is_parked_or_on_its_way_or_at_work(self) -> None:
        key, client = self.live.space.key, self.live.client
        in_flight = {name.decode() for queue in QUEUES for name in client.zrange(key("inflight", queue), 0, -1)}
        for name, session in self.sessions.items():
            if not session.header:
                continue
            messages = {
                runner.decode(): text.decode() for runner, text in client.hgetall(key("messages", name)).items()
            }
            assert messages == {runner: message_of(runner) for runner in session.come}
            parked = {runner.decode() for runner in client.zrange(key("parked", name), 0, -1)}
            registered = {
                field.decode() for field in client.hkeys(key("runners", name)) if not field.endswith(b":call")
            }
            coming = {publication.runner for publication in self.published if publication.flow_session_id == name}
            held = {holder.runner.runner for holder in self.holders.values() if holder.runner.flow_session_id == name}
            assert parked == session.parked
            assert registered == coming | held | self.too_late.get(name, set())
            assert registered <= in_flight
            assert not coming & held
            if session.goes_on:
                assert not parked & registered
                assert parked | registered == session.come

    def teardown(self) -> None:
        """From any state, everything ends, and nothing is left behind."""
        if not hasattr(self, "live"):
            return
        for why, workflow in [("session", ""), *(("workflow", workflow) for workflow in WORKFLOWS), ("all", "")]:
            self._resume(why, sorted(self.sessions), workflow)
        for _ in range(10_000):
            self.wake()
            self.reap()
            self._deliver()
            some_have_ended = any(not session.goes_on for session in self.sessions.values())
            if not self.holders and not self.queued and not some_have_ended:
                break
            for name in list(self.holders):
                self._work_off(name)
            self.states_agree()
            if self.queued or some_have_ended:
                self.close()
        stuck = {name: session for name, session in self.sessions.items() if session.goes_on}
        assert not stuck, f"sessions that do not end: {stuck}; {self._fleet()}"
        for name in list(self.sessions):
            self._close(name)
        limits = self.limits.given["global"], self.limits.given["sessions"]
        assert self.live.beat_worker(WORKER, QUEUES, self.slots, LEASE_US, *limits) == (), (
            "it forgets runners of closed sessions"
        )
        left = {
            k.decode().removeprefix(self.live.space.prefix)
            for k in self.live.client.scan_iter(f"{self.live.space.prefix}*")
        }
        assert not [key for key in self.limits.given if "key:" in key]
        assert sorted(self.live.client.hkeys(self.live.space.key("limits_given"))) == sorted(
            level.encode() for level, most in self.limits.given.items() if most
        )
        lasting = {
            "queues",
            "limits",
            "limits:given",
            "limits:set",
            "excess",
            "workers",
            "clock",
            "status",
            "reaper",
            "repairs",
            "outage",
        }
        lasting |= {f"worker:{WORKER}:queues"}
        lasting |= {f"slots:{queue}" for queue in QUEUES} | {f"slots:{queue}:total" for queue in QUEUES}
        assert {k for k in left if not k.startswith(("last:", "closed:", "crowded:"))} <= lasting
        if left:
            self.live.client.unlink(*(f"{self.live.space.prefix}{k}" for k in left))
        self.live.forget_time()
        self.live.close()

    # Helpers

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

    def _work_off(self, name: str) -> None:
        holder = self.holders[name]
        session = self.sessions[holder.runner.flow_session_id]
        was_over = not session.goes_on
        settlements = [self._finish(session, claim) for claim in holder.held.values()]
        holder.held.clear()
        holder.calls += 1
        answer = self.live.settle_branch(holder.runner, settlements, call=holder.calls)
        self._left(holder, answer)
        self._publish(answer.publications)
        for claim in answer.claims:
            session.claim(
                holder.runner.queue, claim.unit, holder.runner.life, claim.attempt, claim.count, claim.retry, 1
            )
            holder.held[claim.unit] = claim
        if answer.verdict is not Verdict.GO:
            assert answer.verdict in ((Verdict.STOP, Verdict.GONE) if was_over else (Verdict.STOP, Verdict.ENDED))
            del self.holders[name]

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

    def _left(self, holder: Holder, answer: Next) -> None:
        """What becomes of a runner of a chord that has left."""
        session = self.sessions[holder.runner.flow_session_id]
        if answer.verdict is Verdict.ENDED:
            session.ender = holder.runner.runner
        elif session.header and answer.verdict in (Verdict.STOP, Verdict.YIELD):
            session.parked.add(holder.runner.runner)

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

    def _settlement(self, data: st.DataObject, session: ModelSession, claim: Claim) -> Settlement:
        verb = data.draw(st.sampled_from(["finish", "finish", "finish", "defer", "back"]))
        if verb == "back":
            session.back(claim.unit)
            return Settlement(claim, "back")
        if verb == "defer" and claim.kind is not UnitKind.FINISH:
            session.defer(claim.unit, claim.retry + 1)
            return Settlement(claim, "defer", delay_us=0, retry=claim.retry + 1)
        if claim.kind is UnitKind.CHUNK:
            number = data.draw(st.integers(0, claim.count))
            if number < claim.count and data.draw(st.booleans()):
                session.settle_items_and_defer(claim.unit, number, claim.retry + 1)
                return Settlement(
                    claim, "items", settled=number, counts={"succeeded": number}, rest=Rest.DEFER,
                    retry=claim.retry + 1,
                )  # fmt: skip
            session.settle_items(claim.unit, number)
            return Settlement(claim, "items", settled=number, counts={"succeeded": number})
        return self._finish(session, claim, data.draw(st.sampled_from(list(Outcome))))

    def _finish(self, session: ModelSession, claim: Claim, outcome: Outcome = Outcome.SUCCESS) -> Settlement:
        if claim.kind is UnitKind.CHUNK:
            session.settle_items(claim.unit, claim.count)
            return Settlement(claim, "items", settled=claim.count, counts={"succeeded": claim.count})
        branch = session.plan[claim.name]
        if claim.kind is UnitKind.BRANCH and branch.size:
            session.expand(claim.unit)
            return Settlement(claim, "expand", size=branch.size, max_concurrent=branch.most)
        session.done(claim.unit, outcome)
        steps = tuple(
            JoinStep(name, session.plan[name].predecessors, session.plan[name].queue) for name in branch.successors
        )
        return Settlement(claim, "done", outcome=outcome, successors=steps)

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

    def _check_verdict(
        self, holder: Holder, session: ModelSession, answer: Next, mode: Mode, want: int, *, was_over: bool
    ) -> None:
        name = holder.runner.runner
        if was_over:
            assert answer.verdict in ((Verdict.GONE,) if session.header else (Verdict.STOP, Verdict.YIELD))
        elif not session.goes_on:
            assert answer.verdict is Verdict.ENDED
            parked = f"signature of {holder.runner.flow_session_id}"
            assert answer.signature == ("" if session.header else parked), "a chord publishes its body by itself"
        if answer.verdict in (Verdict.ENDED, Verdict.STOP, Verdict.YIELD, Verdict.GONE):
            assert not holder.held
            del self.holders[name]
        if answer.verdict is Verdict.GO:
            assert answer.claims
        if mode is Mode.GO and session.may_claim and session.open and len(holder.held) < want:
            limit = session.limit_on(holder.runner.queue, self._turn(holder.runner.flow_session_id))
            assert (
                session.ready_units(holder.runner.queue) == 0 or len(session.claimed) >= limit or self._reached(session)
            ), "a unit was ready, permits were free, and the runner did not get it"

    def _check_order(self, runner: Runner, session: ModelSession, answer: Next, had_slots: list[str]) -> None:
        """Who took the last permit was not so much younger than what is ready on a queue with a free slot."""
        if not answer.claims or len(session.claimed) < session.limit:
            return
        for queue in had_slots:
            key = self.live.space.key("ready", runner.flow_session_id, queue)
            for _, ready_us in self.live.client.zrange(key, 0, 0, withscores=True):
                assert queue == runner.queue or answer.claims[0].ready_us - ready_us < TURN_AFTER_US, (
                    f"the permit belonged to {queue}"
                )

    def _turn(self, name: str) -> str | None:
        """The queue that a permit of the session is kept for."""
        turn = self.live.client.hget(self.live.space.key("session", name), "turn")
        return turn.decode() if turn else None

    def _in_flight(self, queue: str) -> int:
        return int(self.live.client.zcard(self.live.space.key("inflight", queue)))

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

    def _give_way(self, new: ModelSession, when_full: str) -> list[str]:
        """Older sessions of its workflow are stopped to make room for a new one, as its definition says."""
        ousted: list[str] = []
        levels = [level for level in new.session_levels if self._is_full(level)]
        if when_full == "keep_newest":
            waiting = [name for name, level in self.queued.items() if level == levels[0]]
            ousted = [name for name in waiting if self.sessions[name].workflow == new.workflow]
        for name in ousted:
            self._stop(name)
        if when_full != "cancel_running":
            return ousted
        for level in levels:
            begun = [name for name in self.begun if name in self.sessions]
            at_work = [name for name in begun if level in self.sessions[name].session_levels]
            staying = [name for name in at_work if self.sessions[name].status == "running" and self.sessions[name].open]
            queued = [name for name, queued_at in self.queued.items() if queued_at == level]
            running, waiting = (
                [name for name in names if self.sessions[name].workflow == new.workflow] for names in (staying, queued)
            )
            excess = max(0, len(staying) + len(waiting) + 1 - self.limits.of(level))
            for name in [*running, *waiting][:excess]:
                self._stop(name)
                ousted.append(name)
        return ousted

    def _stop(self, name: str) -> None:
        """Nothing more of the session is claimed."""
        self.sessions[name].status = "cancelled"
        self.sessions[name].has_deadline = self.sessions[name].is_delayed = False
        if name in self.queued:
            del self.queued[name]
            self.never_ran.add(name)

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


def test_transitions_follow_the_model(redis_url: str) -> None:
    Transitions.redis_url = redis_url
    run_state_machine_as_test(
        Transitions,
        settings=settings(max_examples=EXAMPLES, stateful_step_count=STEPS, suppress_health_check=list(HealthCheck)),
    )
