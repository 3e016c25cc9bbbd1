"""Our application with a plain task beside it, for tests of delivery (`celery -A tests.support.delivery_app worker`).

With DELIVERY=vanilla in the environment its workers read messages by Celery's own Redis transport, with a visibility
timeout of `VISIBILITY_SECONDS`: what docs/reliability.md says of plain Celery was seen so.
"""

from __future__ import annotations

import os
import time
from typing import Any

import kombu.transport

from tasks import app
from tasks.transport import deliveries
from tests.support.journal import write_line

__all__ = ["app", "note"]
#: As short as a test can wait for.
VISIBILITY_SECONDS = 4


def _be_vanilla(*_: Any, **__: Any) -> None:
    kombu.transport.TRANSPORT_ALIASES["redis"] = "kombu.transport.redis:Transport"
    kombu.transport._transport_cache.clear()
    options = app.conf.broker_transport_options
    app.conf.broker_transport_options = {
        **options,
        "visibility_timeout": VISIBILITY_SECONDS,
        "unacked_restore_interval": 1,
        "unacked_restore_throttle": 1,
    }


if os.environ.get("DELIVERY") == "vanilla":
    deliveries.serve = _be_vanilla  # type: ignore[method-assign]
    _be_vanilla()


@app.task(name="test.note")
def note(path: str, mark: str, seconds: float = 0.0) -> None:
    """Write to a journal when it starts and when it ends."""
    write_line(path, f"start {mark} {os.getpid()}")
    time.sleep(seconds)
    write_line(path, f"end {mark} {os.getpid()}")
