"""Whose messages a worker holds, and which delivery of a message is at work."""

from __future__ import annotations

from collections.abc import Sequence

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from orchestration.state.keys import KeySpace
from orchestration.state.live import LiveState
from orchestration.state.scripts import load_script
from orchestration.telemetry.probes import probe

TIMEOUT_SECONDS = 1.0


class Holding:
    """For a worker's main process, which must not wait: one script, over a connection of its own, tried once.

    Args: worker: its name. holder_lease_seconds: how long a delivery that is at work in it stays so, from each call on.
    """

    def __init__(self, redis_url: str, namespace: str, worker: str, holder_lease_seconds: float) -> None:
        self._worker = worker
        self._holder_lease_ms = int(holder_lease_seconds * 1000)
        self._space = KeySpace(namespace)
        self._client = redis.Redis.from_url(
            redis_url, socket_timeout=TIMEOUT_SECONDS, socket_connect_timeout=TIMEOUT_SECONDS,
            retry=Retry(NoBackoff(), 0),
        )  # fmt: skip

    def hold(
        self, flow_session_ids: Sequence[str], left: Sequence[str], lease_us: int, tasks: Sequence[str] = ()
    ) -> None:
        """The messages of these sessions are in the hands of a worker that lives: for so long they are not lost.

        Args: left: those that it held before and does not hold any more. tasks: ids of those that are at work in it.
        Raises: RedisError: nobody knows.
        """
        script = load_script("hold_sessions")
        values = script.values(
            [*tasks, *flow_session_ids, *left], lease=lease_us, worker=f"{self._worker}/",
            holder_lease=self._holder_lease_ms, tasks=len(tasks), most=len(flow_session_ids),
        )  # fmt: skip
        probe(script.before)
        self._client.eval(script.source, 1, self._space.prefix, *map(str, values))
        probe(script.after)


def hold_message(live: LiveState, task: str, holder: str, lease_seconds: float) -> bool:
    """This delivery of a task's message is at work, unless another one is: then False."""
    return bool(
        load_script("hold_message")(live.scripts, live.space, task=task, holder=holder, lease=int(lease_seconds * 1000))
    )


def release_message(live: LiveState, task: str, holder: str) -> None:
    """It is not any more, and the next one may be.

    Args: holder: how its name begins (`lives_in`), or the whole.
    """
    load_script("release_message")(live.scripts, live.space, task=task, holder=holder)
