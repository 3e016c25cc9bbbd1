"""Rules of runners: they come, claim, settle, flush and leave; their calls are repeated, or are somebody else's."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from orchestration.state.records import Runner
from orchestration.state.wire import kept_claim
from orchestration.vocabulary import Claim, JoinStep, Mode, Next, Outcome, Rest, Settlement, UnitKind, Verdict
from tests.integration.state.transitions.machine import LEASE_US, QUEUES, Holder, Machine
from tests.support.checkpoint import checkpoint
from tests.support.live_model import ModelSession

#: Modes whose effect does not depend on the time of day, so that an example can be repeated.
MODES = [Mode.GO, Mode.GO, Mode.GO, Mode.TICK, Mode.SLICE, Mode.LEAVE]
#: By so much older, ready units of another queue have the next permit of their session, if that queue has a free slot.
TURN_AFTER_US = 250_000


class RunnerRules(Machine):
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

    def _left(self, holder: Holder, answer: Next) -> None:
        """What becomes of a runner of a chord that has left."""
        session = self.sessions[holder.runner.flow_session_id]
        if answer.verdict is Verdict.ENDED:
            session.ender = holder.runner.runner
        elif session.header and answer.verdict in (Verdict.STOP, Verdict.YIELD):
            session.parked.add(holder.runner.runner)

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
