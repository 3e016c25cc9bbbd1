"""The time of day by Redis: for moments that Celery writes into a message on one host and reads on another.

A host's own clock may be wrong. Nobody waits long for the answer: with Redis away the last known difference holds, and
where there is none, the host's clock does.
"""

from __future__ import annotations

import logging
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Final

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from orchestration.state.clock import RedisClock

TIMEOUT_SECONDS: Final = 1.0
#: After a question that nobody answered, nanoseconds.
ASK_AGAIN_NS: Final = 10_000_000_000

_log = logging.getLogger(__name__)


class WallClock:
    """The clock of one process and its children; threads may use it at once. It keeps no connection."""

    def __init__(self, redis_url: str) -> None:
        self._redis_url = redis_url
        self._clock = RedisClock()
        self._asking = threading.Lock()
        self._ask_ns = 0

    def now(self) -> datetime:
        """What time it is."""
        return datetime.now(UTC) + self._error()

    def on_this_host(self, moment: datetime) -> datetime:
        """What this host's clock will show at that moment."""
        return moment - self._error()

    def _error(self) -> timedelta:
        """Redis's time less this host's."""
        # the lock is for the question alone: who comes meanwhile goes by what is known
        if not self._clock.is_fresh(time.monotonic_ns()) and self._asking.acquire(blocking=False):
            try:
                if time.monotonic_ns() >= self._ask_ns:
                    self._ask()
            finally:
                self._asking.release()
        if not self._clock.is_known:
            return timedelta()
        return timedelta(microseconds=self._clock.us(time.monotonic_ns()) - time.time_ns() // 1000)

    def _ask(self) -> None:
        client = redis.Redis.from_url(
            self._redis_url, socket_timeout=TIMEOUT_SECONDS, socket_connect_timeout=TIMEOUT_SECONDS,
            retry=Retry(NoBackoff(), 0),
        )  # fmt: skip
        try:
            client.ping()  # connected: what follows is one round trip
            before_ns = time.monotonic_ns()
            seconds, microseconds = client.time()
            self._clock.observe(int(seconds) * 1_000_000 + int(microseconds), before_ns, time.monotonic_ns())
        except (redis.exceptions.RedisError, OSError) as error:
            self._ask_ns = time.monotonic_ns() + ASK_AGAIN_NS
            _log.debug("Redis does not tell the time: %s", error)
        finally:
            client.close()
