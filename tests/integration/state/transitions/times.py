"""Rules of time: what is ready waits, deadlines pass, and what is due is woken."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from orchestration.vocabulary import JoinStep, Outcome, Settlement
from tests.integration.state.transitions.machine import LEASE_US, QUEUES, WORKER, Machine


class TimeRules(Machine):
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
    @rule()
    def wake(self) -> None:
        publications, wait_us, _ = self.live.wake_sessions()
        for name, session in self.sessions.items():
            if session.is_over and session.has_deadline and session.goes_on:
                self._stop(name)
            elif session.is_over:
                session.has_deadline = False  # nobody looks any more whether it has passed
            session.wake()
        # of one that has ended nobody needs to look
        must_wait = any(session.has_deadline and session.goes_on for session in self.sessions.values())
        assert wait_us is not None or not must_wait
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
