"""Of several deliveries of a task's message one is at work, as long as its process and its worker live."""

from __future__ import annotations

from orchestration.state.holding import Holding, hold_message, release_message
from orchestration.state.live import LiveState
from orchestration.state.wire import lives_in
from tests.support.waiting import wait_until

S = "7d0f2c8e-5f43-4c0e-9d55-0f7a4c3b2a10"
WORKER, OTHER = "worker-1@host#ab", "worker-10@host#cd"
FIRST, SECOND = lives_in(WORKER, 7) + "one", lives_in(OTHER, 7) + "two"
LEASE = 60.0


def test_the_second_delivery_waits_for_the_end_of_the_first(live: LiveState) -> None:
    assert hold_message(live, S, FIRST, LEASE)
    assert hold_message(live, S, FIRST, LEASE), "the same call again, since its reply was lost"
    assert not hold_message(live, S, SECOND, LEASE)
    release_message(live, S, SECOND)
    assert not hold_message(live, S, SECOND, LEASE), "who is not at work can't release it"
    release_message(live, S, FIRST)
    assert hold_message(live, S, SECOND, LEASE)


def test_a_worker_releases_what_its_dead_process_was_at(live: LiveState) -> None:
    assert hold_message(live, S, FIRST, LEASE)
    release_message(live, S, lives_in(WORKER, 8))
    release_message(live, S, lives_in(WORKER, 70))
    assert not hold_message(live, S, SECOND, LEASE), "those were other processes"
    release_message(live, S, lives_in(WORKER, 7))
    assert hold_message(live, S, SECOND, LEASE)


def test_a_lease_that_nobody_renews_ends_and_only_its_own_worker_renews_it(
    live: LiveState, redis_url: str, namespace: str
) -> None:
    key = live.space.key("holder", S)
    assert hold_message(live, S, FIRST, 1.0)
    Holding(redis_url, namespace, OTHER, LEASE).hold([], [], 1, [S])
    assert live.client.pttl(key) <= 1000
    Holding(redis_url, namespace, "worker-1@host#a", LEASE).hold([], [], 1, [S])
    assert live.client.pttl(key) <= 1000, "its name only begins alike"
    Holding(redis_url, namespace, WORKER, LEASE).hold([], [], 1, [S])
    assert live.client.pttl(key) > 50_000
    live.client.pexpire(key, 1)
    wait_until(lambda: hold_message(live, S, SECOND, LEASE), "the lease has ended", 5)
