"""What else needs to know that threads are greenlets, on Celery's pool gevent: PostgreSQL's driver and event loops.

Celery has replaced the standard library's sockets, threads and locks before our modules are imported. What is left:
psycopg2 waits in C unless it is told how to wait, and asyncio remembers for each thread which loop runs in it, where
several may, one in each greenlet.
"""

from __future__ import annotations

from asyncio import _get_running_loop, _set_running_loop
from typing import Any

from orchestration.store.green import wait_as_greenlets


def adapt() -> None:
    """Let this process's connections and event loops wait as greenlets do."""
    import greenlet  # noqa: PLC0415 - comes with an extra

    wait_as_greenlets()
    greenlet.settrace(_switched)


def _switched(_event: str, greenlets: tuple[Any, Any]) -> None:
    """One greenlet leaves, another goes on: each has its own running loop, or none."""
    left, entered = greenlets
    loop = _get_running_loop()
    if loop is not None or hasattr(left, "running_loop"):
        left.running_loop = loop
    _set_running_loop(getattr(entered, "running_loop", None))
