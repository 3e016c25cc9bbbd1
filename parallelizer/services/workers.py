"""Celery workers as programs: their command, their environment, and how one knows that they are ready.

A worker is ready when it has registered its slots: it then has a lease in Redis under its own name.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from orchestration.errors import ServiceUnreachable
from orchestration.state.keys import KeySpace
from parallelizer.services.flag import Waitable
from parallelizer.services.folder import log_tail
from parallelizer.services.reach import open_redis
from parallelizer.services.supervision import LoggedProgram

POOLS = ("prefork", "threads", "gevent", "solo")
#: How long workers may take to register, seconds; imports of users' modules count.
READY_SECONDS = 60.0


def worker_program(
    number: int,
    *,
    group: str,
    concurrency: int,
    pool: str,
    environment: Mapping[str, str],
    data_dir: Path,
    queues: Sequence[str] = (),
    application: str = "tasks",
) -> LoggedProgram:
    """A worker that has not been started.

    Args: group: part of the workers' names, so that several stacks on one host can share a Redis.
        environment: all of it; must name the two services. queues: by default those of the Celery app.
        application: module of the Celery app: ours, or one that has imported it and has tasks of its own.
    """
    name = f"worker-{number}"
    command = [
        sys.executable, "-m", "celery", "-A", application, "worker", "--hostname", f"{name}.{group}@%h",
        "--loglevel", "INFO", "--concurrency", str(concurrency), "--pool", pool,
        # Workers know of each other through Redis; asking around would delay each start by a second.
        "--without-mingle", "--without-gossip",
        *(["--queues", ",".join(queues)] if queues else []),
    ]  # fmt: skip
    return LoggedProgram(name, command, {**environment, "PYTHONUNBUFFERED": "1"}, Path.cwd(), data_dir)


def flower_program(port: int, *, environment: Mapping[str, str], data_dir: Path) -> LoggedProgram:
    """Flower with our pages, which has not been started; without authentication it is for this machine only."""
    command = [sys.executable, "-m", "celery", "-A", "tasks", "flower", f"--port={port}"]
    return LoggedProgram("flower", command, {**environment, "PYTHONUNBUFFERED": "1"}, Path.cwd(), data_dir)


def registered_workers(redis_url: str, namespace: str, group: str) -> dict[str, float]:
    """Workers of a group that have a lease → its expiry in µs since the epoch."""
    with open_redis(redis_url) as client:
        leases = client.zrange(KeySpace(namespace).key("workers"), 0, -1, withscores=True)
    return {str(name): float(lease) for name, lease in leases if f".{group}@" in str(name)}


def start_and_wait(
    workers: Sequence[LoggedProgram],
    registered: Callable[[], dict[str, float]],
    stopping: Waitable,
    every_look: Callable[[], None],
    look_seconds: float = 0.05,
) -> None:
    """Start workers and return when each has registered, or when `stopping` is set.

    Args: registered: see `registered_workers`; leases of earlier workers of the same names don't count.
    Raises: ServiceUnreachable: one ended, or they took longer than `READY_SECONDS`; the message holds its log's end.
    """
    before = registered()
    for worker in workers:
        worker.start()
    deadline = time.monotonic() + READY_SECONDS
    while not stopping.wait(look_seconds):
        every_look()
        now = registered()
        if all(_has_new_lease(worker, before, now) for worker in workers):
            return
        for worker in workers:
            if worker.has_exited():
                raise ServiceUnreachable(
                    f"{worker.name} {worker.describe_exit()}; see {worker.log}:\n{log_tail(worker.log)}"
                )
            if time.monotonic() > deadline:
                raise ServiceUnreachable(
                    f"{worker.name} did not register within {READY_SECONDS:g} s; see {worker.log}:\n"
                    f"{log_tail(worker.log)}"
                )


def _has_new_lease(worker: LoggedProgram, before: Mapping[str, float], now: Mapping[str, float]) -> bool:
    return any(name.startswith(f"{worker.name}.") and lease > before.get(name, 0.0) for name, lease in now.items())
