"""Copies of a message that was sent again, as the first reply was lost. Each is delivered and settled by itself."""

from __future__ import annotations

import redis
from kombu.utils.json import loads

from tasks.transport import scripts


def held_copies(client: redis.Redis, task: str, task_id: str) -> int:
    """How many messages of this task with this id workers hold: the one that is at work here is one of them.

    A worker that is lost holds its messages until its lease is over, and then they come again.
    Raises: redis.exceptions.RedisError: the broker is out of reach.
    """
    found: dict[bytes, bytes] = {}
    cursor: bytes | int = 0
    while True:
        cursor, *pairs = scripts.copies(client, task_id, cursor)
        found.update(zip(pairs[::2], pairs[1::2], strict=True))
        if int(cursor) == 0:
            return sum(_is_of(text, task, task_id) for text in found.values())


def _is_of(text: bytes, task: str, task_id: str) -> bool:
    headers = loads(text).get("headers", {})
    return bool(headers.get("task") == task and headers.get("id") == task_id)
