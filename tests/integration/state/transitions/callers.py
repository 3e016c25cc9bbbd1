"""Rules of callers: a session is opened, and sent to its end."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from orchestration.state.records import NewSession
from orchestration.vocabulary import Verdict
from tests.integration.state.transitions.machine import KEYS, LEASE_US, QUEUES, SOME_LIMIT, WORKFLOWS, Holder, Machine
from tests.support.live_model import ModelBranch, ModelSession


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


class CallerRules(Machine):
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

    @precondition(lambda self: any(not session.goes_on for session in self.sessions.values()))
    @rule()
    def close(self) -> None:
        for name in [name for name, session in self.sessions.items() if not session.goes_on]:
            self._close(name)
