"""What must hold at all times."""

from __future__ import annotations

from hypothesis.stateful import invariant

from tests.integration.state.transitions.machine import LEVELS, QUEUES, SESSION_LEVELS, Machine, message_of


class Invariants(Machine):
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
