"""Actions that break what Celery does after them in their process (ACTION_MODULES=tests.support.chord_faults).

Each breaks it once: in the process that was the first to make the file `marker`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import redis
from celery import current_app
from celery.backends.redis import RedisBackend
from kombu.exceptions import OperationalError
from kombu.messaging import Producer

from orchestration import action


def _is_first(marker: str) -> bool:
    try:
        Path(marker).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def _fail_after(kind: type, name: str, after: int, counts: Callable[..., bool], fail: Callable[[], None]) -> None:
    """Right after so many calls of a method that count (0: before the first), it fails, and works again."""
    original = getattr(kind, name)
    done = 0

    def end() -> None:
        setattr(kind, name, original)
        fail()

    def broken(*args: Any, **kwargs: Any) -> Any:
        nonlocal done
        if not counts(*args, **kwargs):
            return original(*args, **kwargs)
        if after == 0:
            end()
        answer = original(*args, **kwargs)
        done += 1
        if done == after:
            end()
        return answer

    setattr(kind, name, broken)


def _die() -> None:
    os._exit(9)


@action("test.fail_to_publish")
def fail_to_publish(marker: str, after: int, dies: bool) -> None:
    """After so many messages to runners the process dies, or the broker is away for a moment."""

    def is_runner(*_: object, **kwargs: Any) -> bool:
        return bool(kwargs["headers"]["task"] == "tasks.run_branches")

    def away() -> None:
        raise OperationalError("the broker was cut off")

    if _is_first(marker):
        _fail_after(Producer, "publish", after, is_runner, _die if dies else away)


@action("test.fail_to_count")
def fail_to_count(marker: str, after: int, dies: bool) -> None:
    """After so many parts of chords were counted the process dies, or the result back end is away for a moment."""

    def away() -> None:
        raise redis.exceptions.ConnectionError("the result back end was cut off")

    if _is_first(marker):
        _fail_after(RedisBackend, "on_chord_part_return", after, lambda *_, **__: True, _die if dies else away)


@action("test.lose_messages")
def lose_messages(queue: str) -> int:
    """Take all that waits in a queue of the broker; returns how many messages are lost."""
    with current_app.connection_for_write() as connection:
        return int(connection.default_channel.queue_purge(queue))
