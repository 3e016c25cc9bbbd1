"""What a fleet has left behind: rows in PostgreSQL, keys and messages in Redis."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg2
import redis

from orchestration.state.keys import KeySpace
from tests.support.fleet import Fleet
from tests.support.waiting import wait_until

FINAL = ("succeeded", "failed", "timed_out", "skipped", "upstream_failed", "cancelled")
#: Kept for a time or for good when all sessions have ended, by their names behind the namespace.
LASTING = ("slots:", "workers", "worker:", "queues", "limits", "excess", "clock", "status", "last:", "crowded:",
           "closed:", "rate:", "reaper", "repairs", "outage", "epoch", "ticks", "looking",
           "sessions:held")  # fmt: skip


@dataclass(frozen=True)
class TaskRow:
    """A row of `tasks`; `item` is -1 for an action itself."""

    action: str
    item: int
    status: str
    attempt: int
    queue: str
    worker: str
    started_at: datetime | None
    finished_at: datetime | None
    result: Any
    error: Any


class Records:
    """Reads what there is of a fleet's sessions."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    def rows(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """What a statement gives."""
        with closing(psycopg2.connect(self._fleet.database_url)) as connection, connection.cursor() as cursor:
            cursor.execute(statement, values)
            return cursor.fetchall()

    def change(self, statement: str) -> None:
        """Execute a statement that gives nothing."""
        with (
            closing(psycopg2.connect(self._fleet.database_url)) as connection,
            connection,
            connection.cursor() as cursor,
        ):
            cursor.execute(statement)

    def tasks(self, flow_session_id: str, number: int) -> dict[tuple[str, int], TaskRow]:
        """The tasks of a session by (action, item), when PostgreSQL has so many that have ended."""
        wait_until(lambda: self._ended(flow_session_id) >= number, f"{number} ended tasks in PostgreSQL")
        rows = self.rows(
            "SELECT action, item, status, attempt, queue, worker, started_at, finished_at, result, error"
            " FROM tasks WHERE flow_session_id = %s",
            flow_session_id,
        )
        return {(row[0], row[1]): TaskRow(*row) for row in rows}

    def sessions(self) -> int:
        """How many sessions PostgreSQL has."""
        return int(self.rows("SELECT count(*) FROM flow_sessions")[0][0])

    def wait_idle(self, queues: Sequence[str] = ("branches",)) -> None:
        """Return when no message waits, runs or was taken by a worker that is no more."""
        with closing(redis.Redis.from_url(self._fleet.redis_url)) as client:
            wait_until(lambda: not client.hlen("unacked") and not any(map(client.llen, queues)), "no message left")

    def messages_of(self, flow_session_id: str, queue: str) -> int:
        """How many of a session's messages wait in a queue or are at work; also of workers that are no more."""
        with closing(redis.Redis.from_url(self._fleet.redis_url)) as client:
            texts = [*client.hvals("unacked"), *client.lrange(queue, 0, -1)]
        return sum(flow_session_id.encode() in text for text in texts)

    def live_keys(self) -> list[str]:
        """Names of keys that belong to a session, or hold something of one: none when all have ended."""
        return live_keys(self._fleet.redis_url, self._fleet.namespace)

    def wait_nothing_live(self) -> None:
        """Return when no session has a key in Redis; fail with the names of those that stay."""
        try:
            wait_until(lambda: not self.live_keys(), "no key of a session", seconds=10)
        except AssertionError:
            raise AssertionError(f"left in Redis: {self.live_keys()}") from None

    def _ended(self, flow_session_id: str) -> int:
        found = self.rows(
            "SELECT count(*) FROM tasks WHERE flow_session_id = %s AND status = ANY(%s)", flow_session_id, list(FINAL)
        )
        return int(found[0][0])


def live_keys(redis_url: str, namespace: str) -> list[str]:
    """Names of a namespace's keys that belong to a session, or hold something of one, without the prefix."""
    prefix = KeySpace(namespace).prefix
    with closing(redis.Redis.from_url(redis_url, decode_responses=True)) as client:
        names = [name.removeprefix(prefix) for name in client.scan_iter(f"{prefix}*", count=1000)]
    return sorted(name for name in names if not name.startswith(LASTING))


def most_at_once(rows: Sequence[TaskRow]) -> int:
    """How many of these tasks ran at the same moment, at most."""
    changes = [(row.started_at, 1) for row in rows if row.started_at] + [
        (row.finished_at, -1) for row in rows if row.finished_at
    ]
    running = most = 0
    for _, change in sorted(changes, key=lambda each: (each[0], each[1])):
        running += change
        most = max(most, running)
    return most
