"""Rate limits: `take_rate` against the model, and what a limit promises: never too many, in order, nothing wasted."""

from __future__ import annotations

import uuid

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from orchestration.state.live import LiveState
from orchestration.state.scripts import load_script
from tests.support.rate_model import ModelLimit, ModelRates

#: µs; no test takes so long that a token comes back meanwhile.
INTERVAL_US = 60_000_000


class Rates:
    """Limits in Redis, whose time a test lets pass."""

    def __init__(self, live: LiveState, limits: dict[str, ModelLimit]) -> None:
        self.live = live
        self.model = ModelRates(limits)

    def take(self, token: str, *names: str) -> int:
        """As `LiveState.take_rate`; the model agrees."""
        values: list[str | bytes | int | float] = [token]
        for name in names:
            values += (name, self.model.limits[name].interval, self.model.limits[name].burst)
        wait_us, now_us = load_script("take_rate").run(self.live.scripts, self.live.space, values)
        assert wait_us == self.model.take(token, list(names), now_us)
        return int(wait_us)

    def pass_time(self, us: int) -> None:
        """So much later: seen from then, all that is kept was so much earlier."""
        key, client = self.live.space.key, self.live.client
        for name in self.model.limits:
            for field in ("tat", "line"):
                if client.hexists(key("rate", name), field):
                    client.hincrby(key("rate", name), field, -us)
        for token in self.model.places:
            client.incrby(key("rate_place", token), -us)
        self.model.pass_time(us)


class RateMachine(RuleBasedStateMachine):
    redis_url = ""

    @initialize(bursts=st.lists(st.integers(1, 4), min_size=2, max_size=2), slower=st.integers(1, 3))
    def begin(self, bursts: list[int], slower: int) -> None:
        limits = {
            "a": ModelLimit(INTERVAL_US, bursts[0]),
            "w": ModelLimit(INTERVAL_US * slower, bursts[1]),
        }
        self.rates = Rates(LiveState(self.redis_url, f"r{uuid.uuid4().hex[:12]}"), limits)
        self.calls = 0

    @rule(names=st.sampled_from([("a",), ("w",), ("a", "w")]))
    def come(self, names: tuple[str, ...]) -> None:
        """A call comes, and again, because the reply was lost."""
        self.calls += 1
        token = f"{self.calls}|{'|'.join(names)}"
        wait = self.rates.take(token, *names)
        assert abs(self.rates.take(token, *names) - wait) < INTERVAL_US / 2

    @rule(data=st.data())
    def come_back(self, data: st.DataObject) -> None:
        """One that waits asks again, perhaps too early."""
        waiting = sorted(self.rates.model.places)
        if waiting:
            token = data.draw(st.sampled_from(waiting))
            self.rates.take(token, *token.split("|")[1:])

    @rule(us=st.sampled_from([1_000_000, INTERVAL_US // 2, INTERVAL_US, 5 * INTERVAL_US]))
    def pass_time(self, us: int) -> None:
        self.rates.pass_time(us)

    @invariant()
    def never_more_than_the_rate_allows(self) -> None:
        if hasattr(self, "rates"):
            for limit in self.rates.model.limits.values():
                limit.check()

    def teardown(self) -> None:
        """Whoever comes when it is due, in the order of the line, is let in before long."""
        if not hasattr(self, "rates"):
            return
        for _ in range(1000):
            if not self.rates.model.places:
                break
            token = min(self.rates.model.places, key=self.rates.model.places.__getitem__)
            wait = self.rates.take(token, *token.split("|")[1:])
            if wait:
                self.rates.pass_time(wait)
        assert not self.rates.model.places
        self.rates.live.close()


def test_rates_follow_the_model(redis_url: str) -> None:
    RateMachine.redis_url = redis_url
    run_state_machine_as_test(
        RateMachine,
        settings=settings(max_examples=100, stateful_step_count=30, suppress_health_check=list(HealthCheck)),
    )


def test_no_token_is_wasted_when_all_come_in_their_turn(live: LiveState) -> None:
    """20 calls at once, burst 5: five begin, then one each interval."""
    rates = Rates(live, {"a": ModelLimit(INTERVAL_US, 5)})
    waits = [rates.take(f"{number}", "a") for number in range(20)]
    assert waits[:5] == [0] * 5
    assert [round(wait / INTERVAL_US) for wait in waits[5:]] == list(range(1, 16))
    for number in range(5, 20):
        rates.pass_time(INTERVAL_US)
        assert rates.take(f"{number}", "a") == 0


def test_a_limit_that_has_no_token_costs_none_of_another(live: LiveState) -> None:
    rates = Rates(live, {"a": ModelLimit(INTERVAL_US, 1), "w": ModelLimit(INTERVAL_US, 1)})
    assert rates.take("first", "a") == 0
    assert rates.take("both", "a", "w") > 0
    assert "w" in rates.model.limits
    assert rates.model.limits["w"].begun == []


def test_who_comes_later_is_due_later(live: LiveState) -> None:
    rates = Rates(live, {"a": ModelLimit(INTERVAL_US, 1)})
    waits = [rates.take(f"{number}", "a") for number in range(4)]
    assert waits == sorted(waits)
    rates.pass_time(INTERVAL_US)
    assert rates.take("a newcomer", "a") > 2.5 * INTERVAL_US
