"""What workers say of the messages that they hold is gone when it is no longer true, also if nobody says so."""

from __future__ import annotations

from contextlib import closing

import redis

from orchestration.state.holding import Holding
from orchestration.state.keys import KeySpace

LEASE_US, LEASE_MS = 10_000_000, 10_000


def test_it_is_forgotten_when_the_last_of_it_has_passed(redis_url: str, namespace: str) -> None:
    holding, key = Holding(redis_url, namespace), KeySpace(namespace).key("held_sessions")
    with closing(redis.Redis.from_url(redis_url, decode_responses=True)) as client:
        holding.hold(["one", "two"], [], LEASE_US)
        holding.hold(["three"], ["two"], LEASE_US // 10)
        assert client.zrange(key, 0, -1) == ["three", "one"]
        assert LEASE_MS / 2 < client.pttl(key) <= LEASE_MS
        holding.hold([], ["one", "three"], LEASE_US)
        assert not client.exists(key)
