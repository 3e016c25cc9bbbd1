"""Actions that break the way from the end of a run to its caller (ACTION_MODULES=tests.support.completion_faults).

Each is the last one of its run: its own process then ends the session. One is the first, which loses what follows. What
it breaks holds for this run alone.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from celery import current_app
from celery.backends.redis import RedisBackend
from kombu.messaging import Producer

from orchestration import ActionContext, action


def _on_message(is_meant: Callable[[dict[str, Any]], bool], publish: Callable[..., Any]) -> None:
    """Messages with such headers are published so by this process from now on."""
    original = Producer.publish

    def published(self: Producer, *args: Any, **kwargs: Any) -> Any:
        if is_meant(kwargs["headers"]):
            return publish(lambda: original(self, *args, **kwargs))
        return original(self, *args, **kwargs)

    Producer.publish = published  # type: ignore[method-assign]


def _on_completion(flow_session_id: str, publish: Callable[..., Any]) -> None:
    """The completion of the session is published so by this process from now on."""
    meant = ("tasks.complete_workflow", flow_session_id)
    _on_message(lambda headers: (headers["task"], headers["id"]) == meant, publish)


@action("test.lose_header")
def lose_header(ctx: ActionContext) -> None:
    """All messages to the runners of the run's chord are lost."""
    group = f"{ctx.flow_session_id}.header"
    _on_message(lambda headers: headers.get("group") == group, lambda _: None)


@action("test.lose_completion")
def lose_completion(ctx: ActionContext) -> None:
    """The message of the completion is lost."""
    _on_completion(ctx.flow_session_id, lambda _: None)


@action("test.complete_twice")
def complete_twice(ctx: ActionContext) -> None:
    """The completion is published twice."""
    _on_completion(ctx.flow_session_id, lambda publish: [publish(), publish()])


@action("test.lose_chord")
def lose_chord(ctx: ActionContext) -> int:
    """What Celery keeps of the run's chord is lost; returns how many keys it was."""
    client = current_app.backend.client
    keys = list(client.scan_iter(f"celery-taskset-meta-{ctx.flow_session_id}.header*"))
    return int(client.delete(*keys)) if keys else 0


@action("test.lose_host")
def lose_host(ctx: ActionContext) -> None:
    """All processes of the worker are killed when the completion is to be published."""
    _on_completion(ctx.flow_session_id, lambda _: os.killpg(os.getpgrp(), signal.SIGKILL))


@action("test.die_delivering")
def die_delivering(marker: str) -> None:
    """The process dies, once, when it is to store the next result, which what follows has been called with."""
    original = RedisBackend.mark_as_done

    def die(self: RedisBackend, *args: Any, **kwargs: Any) -> Any:
        if not Path(marker).exists():
            Path(marker).touch()
            os._exit(9)
        return original(self, *args, **kwargs)

    RedisBackend.mark_as_done = die
