"""What a campaign breaks: servers of its own and several workers, some of which are dead or frozen at any moment."""

from __future__ import annotations

import os
import random
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Final

import redis

from parallelizer.services.supervision import LoggedProgram, stop_programs
from parallelizer.services.workers import registered_workers, start_and_wait, worker_program
from tests.chaos.actions import JOURNAL_VARIABLE
from tests.support.own_servers import OwnServers, own_servers

NAMESPACE: Final = "chaos"
ROOT: Final = Path(__file__).resolve().parents[2]
#: Of a fleet, where nothing else is said.
WORKERS: Final = (("prefork", 2), ("prefork", 2), ("threads", 4))
GRACE_SECONDS: Final = 10.0


@dataclass(slots=True)
class ChaosStack:
    """The servers and workers of a campaign; all methods are for the main thread (tether.py)."""

    servers: OwnServers
    journal: Path
    workers: list[LoggedProgram] = field(default_factory=list)
    #: Frozen by SIGSTOP at this moment.
    frozen: set[str] = field(default_factory=set)
    #: Pool and concurrency of each worker.
    pools: tuple[tuple[str, int], ...] = WORKERS
    #: Settings of workers that are started from now on.
    environment: dict[str, str] = field(default_factory=dict)
    _started: int = 0

    @property
    def redis_url(self) -> str:
        return self.servers.valkey.url

    @property
    def database_url(self) -> str:
        return self.servers.postgres.url

    def redis(self, *, decode_responses: bool = False) -> redis.Redis:
        """A client of its own; close it."""
        return redis.Redis.from_url(self.redis_url, socket_timeout=5, decode_responses=decode_responses)

    def start_workers(self) -> None:
        """All workers are ready."""
        self.workers += [self._worker(pool, concurrency) for pool, concurrency in self.pools]
        registered = partial(registered_workers, self.redis_url, NAMESPACE, NAMESPACE)
        start_and_wait(self.workers, registered, threading.Event(), lambda: None)

    def replace_worker(self, worker: LoggedProgram) -> None:
        """Another one of its kind is started in the place of one that is to end; nobody waits for it."""
        place = self.workers.index(worker)
        pool, concurrency = self.pools[place]
        self.workers[place] = self._worker(pool, concurrency)
        self.workers[place].start()

    def revive(self) -> list[LoggedProgram]:
        """Workers that have ended by themselves are replaced. Returns them."""
        dead = [worker for worker in self.workers if worker.has_exited()]
        for worker in dead:
            worker.sweep()
            self.replace_worker(worker)
        return dead

    def running(self, chance: random.Random) -> LoggedProgram | None:
        """One of the workers that run and are not frozen."""
        found = [each for each in self.workers if each.is_running() and each.name not in self.frozen]
        return chance.choice(found) if found else None

    def signal_server(self, pid: int | None, number: signal.Signals) -> None:
        """Send a signal to a server, if it runs."""
        if pid is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def stop_workers(self) -> None:
        """No worker runs."""
        for worker in self.workers:
            if worker.name in self.frozen and worker.process is not None:
                with suppress(ProcessLookupError):
                    os.killpg(worker.process.pid, signal.SIGCONT)
        stop_programs(self.workers, GRACE_SECONDS, threading.Event(), lambda: None)

    def _worker(self, pool: str, concurrency: int) -> LoggedProgram:
        self._started += 1
        environment = {
            **os.environ, "PYTHONPATH": str(ROOT), "ACTION_MODULES": "tests.chaos.actions",
            JOURNAL_VARIABLE: str(self.journal), "MAX_BRANCH_CRASHES": "100", "LOG_LEVEL": "warning",
            **self.environment,
        }  # fmt: skip
        program = worker_program(
            self._started, group=NAMESPACE, concurrency=concurrency, pool=pool, environment=environment,
            data_dir=self.servers.data_dir,
        )  # fmt: skip
        return replace(program, folder=self.servers.folder)  # away from the user's .env


@contextmanager
def chaos_stack() -> Iterator[ChaosStack]:
    """Servers in the block, no worker yet; see `own_servers`."""
    exits = ExitStack()
    with own_servers(NAMESPACE, exits) as servers:
        stack = ChaosStack(servers, servers.folder / "journal")
        exits.callback(stack.stop_workers)
        yield stack
