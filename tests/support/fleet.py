"""Fixtures with real workers: `celery -A tasks worker` processes that can't outlive the test session.

`fleet` is for one test, `module_fleet` for all tests of a module that only use the workers. When a test fails, the end
of each worker's log is part of the report.
"""

from __future__ import annotations

import os
import signal
import threading
import uuid
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from parallelizer.services.folder import log_tail, prepare_folder
from parallelizer.services.supervision import LoggedProgram, stop_programs
from parallelizer.services.workers import registered_workers, start_and_wait, worker_program
from tests.support.rabbitmq import given_broker

LOG_LINES = 60


class Fleet:
    """Workers that share two services and a namespace."""

    def __init__(self, redis_url: str, database_url: str, namespace: str, folder: Path) -> None:
        self.redis_url = redis_url
        self.database_url = database_url
        self.namespace = namespace
        self.folder = prepare_folder(folder)
        #: A broker beside Redis; empty: Redis is the broker too.
        self.broker_url = given_broker()
        self.workers: list[LoggedProgram] = []

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to use this fleet; also for clients that a test starts."""
        return {**os.environ, **self.settings}

    @property
    def settings(self) -> dict[str, str]:
        """What of it says where the fleet is, for commands that are started without the rest."""
        return {
            "REDIS_URL": self.redis_url,
            "DATABASE_URL": self.database_url,
            "NAMESPACE": self.namespace,
            "DATA_DIR": str(self.folder),
            **({"BROKER_URL": self.broker_url} if self.broker_url else {}),
        }

    def start(
        self,
        count: int = 1,
        *,
        concurrency: int = 2,
        pool: str = "prefork",
        queues: tuple[str, ...] = (),
        application: str = "tasks",
        **settings: str,
    ) -> list[LoggedProgram]:
        """Start workers and return when they are ready.

        Args: application: module of the Celery app, for example one with tasks of its own.
            settings: environment of these workers, for example `ACTION_MODULES="tests.support.actions"`.
        """
        first = len(self.workers) + 1
        new = [
            worker_program(
                number,
                group=self.namespace,
                concurrency=concurrency,
                pool=pool,
                environment={**self.environment, **settings},
                data_dir=self.folder,
                queues=queues,
                application=application,
            )
            for number in range(first, first + count)
        ]
        self.workers += new
        registered = partial(registered_workers, self.redis_url, self.namespace, self.namespace)
        start_and_wait(new, registered, threading.Event(), lambda: None)
        return new

    def kill(self, worker: LoggedProgram) -> None:
        """`kill -9` of the worker's main process; returns when it is gone."""
        worker.send(signal.SIGKILL)
        assert worker.process is not None
        worker.process.wait()

    def stop(self, grace_seconds: float = 10.0) -> None:
        """No worker runs any more: SIGTERM, and SIGKILL after the grace."""
        stop_programs(self.workers, grace_seconds, threading.Event(), lambda: None)

    def logs(self) -> str:
        """The end of each worker's log."""
        return "\n".join(f"--- {worker.name}\n{log_tail(worker.log, LOG_LINES)}" for worker in self.workers)


@contextmanager
def running_fleet(redis_url: str, database_url: str, namespace: str, folder: Path) -> Iterator[Fleet]:
    """A fleet without workers yet; those that are started in the block are ended with it."""
    fleet = Fleet(redis_url, database_url, namespace, folder)
    try:
        yield fleet
    finally:
        fleet.stop()


@pytest.fixture
def fleet(redis_url: str, database_url: str, namespace: str, tmp_path: Path) -> Iterator[Fleet]:
    """An empty fleet for this test: `fleet.start(2, concurrency=2)`."""
    with running_fleet(redis_url, database_url, namespace, tmp_path / "fleet") as started:
        yield started


@pytest.fixture(scope="module")
def module_fleet(redis_url: str, database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """An empty fleet for this module, in a namespace of its own."""
    namespace = f"m{uuid.uuid4().hex[:12]}"
    with running_fleet(redis_url, database_url, namespace, tmp_path_factory.mktemp("fleet")) as started:
        yield started


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.CallInfo[None], None]:
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    if not report.failed:
        return
    for value in getattr(item, "funcargs", {}).values():
        if isinstance(value, Fleet):
            report.sections.append(("workers' logs", value.logs()))
