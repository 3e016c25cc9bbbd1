"""What a benchmark runs on: servers and one worker of its own, and nothing of it left behind.

The servers stay the same while workers of several kinds take turns, one at a time.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from orchestration.store.pool import Database
from parallelizer.services.folder import log_tail
from parallelizer.services.postgres import EmbeddedPostgres
from parallelizer.services.supervision import LoggedProgram, stop_programs
from parallelizer.services.workers import registered_workers, start_and_wait, worker_program
from tests.support.own_servers import own_servers

ROOT = Path(__file__).resolve().parents[2]
NAMESPACE = "bench"
APPLICATION = "tests.performance.raw_tasks"
ACTIONS = "tests.performance.bench_actions"
#: The last worker is idle, or was given up by Ctrl-C, when it is told to end.
GRACE_SECONDS = 3.0
#: One that makes room for another ends in order: else its slots would draw runners until its lease is over.
TURN_SECONDS = 30.0


class WorkerLost(Exception):
    """The worker has ended in the middle of a measurement; the message holds the end of its log."""


@dataclass(frozen=True, slots=True)
class WorkerKind:
    """How a worker is started."""

    pool: str
    concurrency: int
    settings: Mapping[str, str] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """As on a command line."""
        settings = "".join(f"{name}={value} " for name, value in self.settings.items())
        return f"{settings}-P {self.pool} -c {self.concurrency}"


#: What the goals are stated for.
PREFORK = WorkerKind("prefork", 2)
#: The same, with every fork shared.
FORKING = WorkerKind("prefork", 2, {"INLINE_FORK_MS": "0"})
THREADS = WorkerKind("threads", 10)


@dataclass(slots=True)
class BenchStack:
    """The running servers, whose URLs are also in this process's environment, and the worker that has its turn."""

    redis_url: str
    database_url: str
    data_dir: Path
    folder: Path
    _kind: WorkerKind | None = None
    _worker: LoggedProgram | None = None
    _ending: list[LoggedProgram] = field(default_factory=list)
    _started: int = 0

    def use(self, kind: WorkerKind) -> None:
        """A worker of this kind is ready, and no other runs. The one before it is idle.

        Raises: ServiceUnreachable: it did not come up.
        """
        if self._kind == kind:
            return
        self._kind, last = None, self._worker
        if last is not None:
            last.send(signal.SIGTERM)  # it ends while the next one starts; nobody sends anything meanwhile
            self._ending.append(last)
        self._started += 1
        program = worker_program(
            self._started, group=NAMESPACE, concurrency=kind.concurrency, pool=kind.pool,
            environment=self._environment(kind), data_dir=self.data_dir, application=APPLICATION,
        )  # fmt: skip
        self._worker = replace(program, folder=self.folder)  # away from the user's .env
        registered = partial(registered_workers, self.redis_url, NAMESPACE, NAMESPACE)
        start_and_wait([self._worker], registered, threading.Event(), lambda: None)
        while self._ending:
            _await_end(self._ending[-1])
            self._ending.pop()
        self._kind = kind

    def check_worker(self) -> None:
        """Return when the worker runs.

        Raises: WorkerLost
        """
        worker = self._worker
        if worker is not None and worker.has_exited():
            raise WorkerLost(f"{worker.name} {worker.describe_exit()}:\n{log_tail(worker.log, 30)}")

    def stop_workers(self) -> None:
        """No worker runs."""
        programs = [*self._ending, *([self._worker] if self._worker is not None else [])]
        stop_programs(programs, GRACE_SECONDS, threading.Event(), lambda: None)

    @staticmethod
    def _environment(kind: WorkerKind) -> dict[str, str]:
        return {
            **os.environ, "PYTHONPATH": str(ROOT), "ACTION_MODULES": ACTIONS,
            "LOG_LEVEL": "warning",  # Celery logs two lines for each task: that would slow plain tasks only
            **kind.settings,
        }  # fmt: skip


def _await_end(program: LoggedProgram) -> None:
    """A program that was told to end has ended; a second SIGTERM would cut a worker's orderly end short."""
    assert program.process is not None
    with suppress(subprocess.TimeoutExpired):
        program.process.wait(TURN_SECONDS)
    program.sweep()


def _keep_commit_times(postgres: EmbeddedPostgres) -> None:
    """PostgreSQL knows from now on when each row was committed."""
    with closing(Database(postgres.url, pool_size=1)) as database:
        database.execute("ALTER SYSTEM SET track_commit_timestamp = on")
    postgres.stop()
    postgres.start()
    postgres.wait_ready()


@contextmanager
def bench_stack() -> Iterator[BenchStack]:
    """Run the servers in the block, no worker yet; see `own_servers`."""
    exits = ExitStack()
    with own_servers(NAMESPACE, exits) as own:
        _keep_commit_times(own.postgres)
        stack = BenchStack(own.valkey.url, own.postgres.url, own.data_dir, own.folder)
        exits.callback(stack.stop_workers)
        yield stack
