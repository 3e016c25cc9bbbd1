"""Rules of faults: processes die, messages and places are lost, and the reaper repairs what it finds."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from orchestration.vocabulary import Verdict
from tests.integration.state.transitions.machine import LEASE_US, LEVELS, QUEUES, WORKER, Machine

#: Causes of repairs that the machine provokes.
REPAIRED = ("completion", "header", "runner", "admission", "wake-up", "time limit")
#: Those for what only takes long.
LATE = {"completion", "header"}


class FaultRules(Machine):
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

    @precondition(lambda self: self.sessions)
    @rule()
    def reap(self) -> None:
        """What is whole is left as it is, but for completions that take long."""
        assert {cause for cause, _ in self._reap()} <= LATE

    def _repair(self, cause: str, name: str) -> None:
        """The reaper finds this, and nothing else but what takes long."""
        assert [repair for repair in self._reap() if repair[0] not in LATE] == [(cause, name)]

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
