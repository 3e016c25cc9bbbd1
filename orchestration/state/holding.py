"""Says in Redis whose messages a worker holds; for its main process, which must not wait."""

from __future__ import annotations

from collections.abc import Sequence

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from orchestration.state.keys import KeySpace
from orchestration.state.scripts import load_script
from orchestration.telemetry.probes import probe

TIMEOUT_SECONDS = 1.0


class Holding:
    """Calls one script, over a connection of its own, without trying again."""

    def __init__(self, redis_url: str, namespace: str) -> None:
        self._space = KeySpace(namespace)
        self._client = redis.Redis.from_url(
            redis_url, socket_timeout=TIMEOUT_SECONDS, socket_connect_timeout=TIMEOUT_SECONDS,
            retry=Retry(NoBackoff(), 0),
        )  # fmt: skip

    def hold(self, flow_session_ids: Sequence[str], left: Sequence[str], lease_us: int) -> None:
        """The messages of these sessions are in the hands of a worker that lives: for so long they are not lost.

        Args: left: those that it held before and does not hold any more.
        Raises: RedisError: nobody knows.
        """
        script, number = load_script("hold_sessions"), str(len(flow_session_ids))
        probe(script.before)
        self._client.eval(script.source, 1, self._space.prefix, str(lease_us), number, *flow_session_ids, *left)
        probe(script.after)
