"""Connections to PostgreSQL where threads are greenlets (Celery's pool gevent): psycopg2 waits in C unless
it is told how.
"""

from __future__ import annotations

from typing import Any

import psycopg2
from psycopg2 import extensions


def wait_as_greenlets() -> None:
    """From now on, other greenlets run while a connection of this process waits."""
    extensions.set_wait_callback(_wait)


def _wait(connection: Any, timeout: float | None = None) -> None:
    """A connection to PostgreSQL waits; other greenlets run meanwhile."""
    from gevent.socket import wait_read, wait_write  # noqa: PLC0415 - an extra

    while True:
        state = connection.poll()
        if state == extensions.POLL_OK:
            return
        if state == extensions.POLL_READ:
            wait_read(connection.fileno(), timeout=timeout)
        elif state == extensions.POLL_WRITE:
            wait_write(connection.fileno(), timeout=timeout)
        else:
            raise psycopg2.OperationalError(f"the connection can't wait for {state!r}")
