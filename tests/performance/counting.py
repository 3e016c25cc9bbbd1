"""Exact counts around a measurement: tasks the worker has run, messages left in the broker, rows in PostgreSQL.

A rate means nothing unless all of the work was done: each sample checks its counts, and a wrong one ends the benchmark.
"""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from orchestration.state.stream import StatusStream
from orchestration.store.pool import Database
from parallelizer.services.reach import open_redis
from tests.performance.raw_tasks import app
from tests.performance.stack import NAMESPACE, BenchStack

#: Between two looks at Redis; a look costs it a fiftieth of this.
LOOK_SECONDS = 0.005
#: Longer than any measurement.
WAIT_SECONDS = 600.0
#: Kombu's hash of messages that were delivered and not yet acknowledged.
UNACKNOWLEDGED = "unacked"
_OF_SESSIONS = """FROM tasks WHERE flow_session_id = ANY (%s) AND status = 'succeeded'
    AND session_day IN (SELECT session_day FROM session_days WHERE flow_session_id = ANY (%s))
"""
_ROWS = f"SELECT count(*) {_OF_SESSIONS}"
_COMMITTED = f"SELECT extract(epoch FROM max(pg_xact_commit_timestamp(xmin)))::float8 {_OF_SESSIONS}"


class WrongCount(Exception):
    """The work was not done exactly once, or not in time: the figures would mean nothing."""


def expect(what: str, found: object, wanted: object) -> None:
    """Raise WrongCount unless both are equal."""
    if found != wanted:
        raise WrongCount(f"wrong count: {what}: {found}, expected {wanted}")


class Counters:
    """The counts of one stack."""

    def __init__(self, stack: BenchStack) -> None:
        self.stack = stack
        self._redis = open_redis(stack.redis_url)
        self._stream = StatusStream(stack.redis_url, NAMESPACE)
        self.database = Database(stack.database_url, pool_size=1, application_name="parallelizer-bench")
        self._queue = str(app.conf.task_default_queue)

    def close(self) -> None:
        """Give the connections back, Celery's too."""
        self._redis.close()
        self._stream.close()
        self.database.close()
        gc.collect()
        consumer = app.backend.result_consumer
        consumer.stop()
        consumer.subscribed_to.clear()  # else a result that goes with the interpreter looks for its server again
        app.close()

    def tasks_run(self) -> dict[str, int]:
        """Celery tasks that the worker has begun in its life, by name: messages, as none was delivered twice.

        Called between measurements: it waits for an idle worker, and frees what the last one left in memory here.
        """
        self.wait_broker_empty()
        gc.collect()
        return dict(self._stats()["total"])

    def tasks_since(self, before: Mapping[str, int]) -> dict[str, int]:
        """What has been begun since `tasks_run` gave `before`."""
        now = self.tasks_run()
        return {name: count - before.get(name, 0) for name, count in now.items() if count != before.get(name, 0)}

    def pool_processes(self) -> list[int]:
        """Ids of the worker's children that run tasks; on prefork only."""
        return list(self._stats()["pool"]["processes"])

    def redis_bytes(self) -> int:
        """What Redis has allocated for all that it holds."""
        return int(self._redis.info("memory")["used_memory"])

    def wait_broker_empty(self) -> None:
        """All messages have been run: with late acknowledgement, none waits and none is unacknowledged."""
        # in two looks: between taking a message and noting it as unacknowledged, Kombu has it in neither place
        earlier = -1

        def empty() -> bool:
            nonlocal earlier
            before, earlier = earlier, self._messages_left()
            return before == earlier == 0

        self._wait("the broker is empty", empty)

    def wait_recorded(self) -> None:
        """Every status update that was sent is in PostgreSQL: an update leaves the stream after its commit."""
        self._wait("the status stream is empty", lambda: self._stream.length() == 0)

    def committed_at(self, flow_session_ids: Sequence[str]) -> float:
        """When the last row of these was committed, seconds since 1970 by PostgreSQL, which is on this machine."""
        ids = list(flow_session_ids)
        return float(self.database.fetch(_COMMITTED, (ids, ids))[0][0])

    def rows(self, flow_session_ids: Sequence[str]) -> int:
        """Tasks of these flow sessions that PostgreSQL has as succeeded."""
        ids = list(flow_session_ids)
        return int(self.database.fetch(_ROWS, (ids, ids))[0][0])

    def _stats(self) -> dict[str, Any]:
        replies = app.control.inspect(timeout=30, limit=1).stats() or {}
        expect("workers that answer", len(replies), 1)
        return dict(next(iter(replies.values())))

    def _messages_left(self) -> int:
        pipeline: Any = self._redis.pipeline(transaction=True)
        waiting, unacknowledged = pipeline.llen(self._queue).hlen(UNACKNOWLEDGED).execute()
        return int(waiting) + int(unacknowledged)

    def _wait(self, what: str, condition: Callable[[], bool]) -> None:
        deadline, pause = time.monotonic() + WAIT_SECONDS, threading.Event()
        while not condition():
            self.stack.check_worker()
            if time.monotonic() > deadline:
                raise WrongCount(f"after {WAIT_SECONDS:g} s still not: {what}")
            pause.wait(LOOK_SECONDS)
