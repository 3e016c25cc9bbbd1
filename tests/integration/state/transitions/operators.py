"""Rules of operators: sessions are cancelled, paused and resumed, and limits are changed."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from orchestration.state.records import LimitChange
from tests.integration.state.transitions.machine import (
    LEASE_US,
    LEVELS,
    QUEUES,
    SESSION_LEVELS,
    SOME_LIMIT,
    WORKER,
    WORKFLOWS,
    Machine,
)
from tests.support.live_model import ModelSession


class OperatorRules(Machine):
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
            assert self.live.heed_cancel(holder.runner)
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
            untouched = self._untouched(session, why, workflow)
            if untouched:
                assert word == untouched
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

    def _untouched(self, session: ModelSession, why: str, workflow: str) -> str:
        """The word for a session that can't be paused or resumed for this reason; empty: it can."""
        if why == "workflow" and session.workflow != workflow:
            return "other"
        if not session.goes_on:
            return "ended"
        return "cancelled" if session.status == "cancelled" else ""

    def _resume(self, why: str, chosen: list[str], workflow: str = "") -> None:
        self.paused.discard(f"workflow:{workflow}" if why == "workflow" else why)
        found, publications = self.live.resume_sessions(why, chosen, workflow)
        for name, word in zip(chosen, found, strict=True):
            session = self.sessions[name]
            untouched = self._untouched(session, why, workflow)
            if untouched:
                assert word == untouched
            else:
                left = session.paused - {why}
                assert word == ("before" if why not in session.paused else "still" if left else "resumed")
                session.paused = left
        self._publish(publications)

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
