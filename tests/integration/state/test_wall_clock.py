"""The time of day by Redis, whatever this host's clock shows, and also when Redis is away."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import pytest

from orchestration.state import wall_clock
from orchestration.state.clock import FRESH_NS
from orchestration.state.wall_clock import WallClock

NOWHERE = "redis://127.0.0.1:1/0"
CLOSE = timedelta(seconds=1)


class _HostAhead:
    """The module `time` of a host whose clock is an hour ahead; `later_ns` have passed besides."""

    later_ns = 0

    def time_ns(self) -> int:
        return time.time_ns() + 3_600_000_000_000

    def monotonic_ns(self) -> int:
        return time.monotonic_ns() + self.later_ns


class _DateAhead(datetime):
    @classmethod
    def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
        return datetime.now(UTC) + timedelta(hours=1)


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> _HostAhead:
    ahead = _HostAhead()
    monkeypatch.setattr(wall_clock, "time", ahead)
    monkeypatch.setattr(wall_clock, "datetime", _DateAhead)
    return ahead


def test_it_is_redis_s_time_on_a_host_that_is_ahead(redis_url: str, host: _HostAhead) -> None:
    clock, now = WallClock(redis_url), datetime.now(UTC)
    assert abs(clock.now() - now) < CLOSE
    assert abs(clock.on_this_host(now) - now - timedelta(hours=1)) < CLOSE


def test_what_is_known_holds_while_redis_is_away(redis_url: str, host: _HostAhead) -> None:
    clock = WallClock(redis_url)
    clock.now()
    clock._redis_url = NOWHERE
    host.later_ns = 2 * FRESH_NS
    assert abs(clock.now() - datetime.now(UTC) - timedelta(microseconds=host.later_ns / 1000)) < CLOSE


def test_the_host_s_clock_holds_where_redis_has_never_answered(host: _HostAhead) -> None:
    clock = WallClock(NOWHERE)
    assert abs(clock.now() - datetime.now(UTC) - timedelta(hours=1)) < CLOSE
