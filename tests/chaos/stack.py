"""What a campaign breaks: servers of its own and several workers, some of which are dead or frozen at any moment."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import redis

from orchestration.state.keys import KeySpace
from parallelizer.services.supervision import LoggedProgram, stop_programs
from parallelizer.services.workers import registered_workers, start_and_wait, worker_program
from tests.chaos.actions import EPOCH_VARIABLE, JOURNAL_VARIABLE
from tests.support import skewed_clock
from tests.support.hosts import Host
from tests.support.own_servers import OwnServers, own_servers
from tests.support.proxy import Cuts, Proxy
from tests.support.skewed_clock import SkewedClock

NAMESPACE: Final = "chaos"
#: With the actions that run.
MODULES: Final = ("tests.chaos.actions", "tests.chaos.deadly_actions")
ROOT: Final = Path(__file__).resolve().parents[2]
#: Of a fleet, where nothing else is said.
WORKERS: Final = (("prefork", 2), ("prefork", 2), ("threads", 4))
#: The place among them of the one whose host's clock is wrong, and by how much; where libfaketime is found.
WRONG_CLOCK, WRONG_SECONDS = 1, 3600.0
GRACE_SECONDS: Final = 10.0
#: Places of the workers that reach the servers themselves; all others do by way of the proxies.
DIRECT: Final = frozenset({0})


@dataclass(slots=True)
class ChaosStack:
    """The servers and workers of a campaign; all methods are for the main thread (tether.py)."""

    servers: OwnServers
    journal: Path
    #: Between workers and servers.
    redis_proxy: Proxy
    postgres_proxy: Proxy
    #: Pool and concurrency of each worker.
    pools: Sequence[tuple[str, int]] = WORKERS
    direct: frozenset[int] = DIRECT
    #: What was cut at requests, for each time that a fault of this kind was injected.
    cuts: list[Cuts] = field(default_factory=list)
    workers: list[LoggedProgram] = field(default_factory=list)
    #: Frozen by SIGSTOP at this moment.
    frozen: set[str] = field(default_factory=set)
    #: The clock of workers' hosts that is wrong, by their place.
    clocks: dict[int, SkewedClock] = field(default_factory=dict)
    #: The host of workers that do not run on this one, by their place.
    hosts: dict[int, Host] = field(default_factory=dict)
    #: Settings of all workers beside those of the campaign.
    settings: dict[str, str] = field(default_factory=dict)
    _epoch: float = field(default_factory=lambda: time.time() - time.monotonic())
    _started: int = 0

    @property
    def redis_url(self) -> str:
        return self.servers.valkey.url

    @property
    def database_url(self) -> str:
        return self.servers.postgres.url

    @property
    def ports(self) -> dict[str, int]:
        """Where the servers listen: redis and postgres."""
        found = {"redis": urlsplit(self.redis_url).port, "postgres": urlsplit(self.database_url).port}
        return {name: port for name, port in found.items() if port is not None}

    def redis(self, *, decode_responses: bool = False) -> redis.Redis:
        """A client of its own; close it."""
        return redis.Redis.from_url(self.redis_url, socket_timeout=5, decode_responses=decode_responses)

    def repairs(self) -> Counter[str]:
        """What was repaired so far, by cause."""
        with closing(self.redis(decode_responses=True)) as client:
            found = client.hgetall(KeySpace(NAMESPACE).key("repairs"))
        return Counter({str(cause): int(number) for cause, number in found.items()})

    def start_workers(self) -> None:
        """All workers are ready."""
        self.workers += [self._worker(place) for place in range(len(self.pools))]
        registered = partial(registered_workers, self.redis_url, NAMESPACE, NAMESPACE)
        start_and_wait(self.workers, registered, threading.Event(), lambda: None)

    def replace_worker(self, worker: LoggedProgram) -> None:
        """Another one of its kind is started in the place of one that is to end; nobody waits for it."""
        place = self.workers.index(worker)
        self.workers[place] = self._worker(place)
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

    def _worker(self, place: int) -> LoggedProgram:
        self._started += 1
        pool, concurrency = self.pools[place]
        clock, host = self.clocks.get(place), self.hosts.get(place)
        proxied = {"REDIS_URL": self.redis_proxy.url, "DATABASE_URL": self.postgres_proxy.url}
        environment = {
            **os.environ, "PYTHONPATH": str(ROOT), "ACTION_MODULES": ",".join(MODULES),
            JOURNAL_VARIABLE: str(self.journal), EPOCH_VARIABLE: repr(self._epoch), "MAX_BRANCH_CRASHES": "100",
            "STATEMENT_TIMEOUT_SECONDS": "10", "METRICS_PORT": "0", "LOG_LEVEL": "warning,tasks.metrics=info",
            **({} if place in self.direct or host is not None else proxied), **self.settings,
        }  # fmt: skip
        if clock is not None:
            environment = clock.around(environment)
        if host is not None:
            environment = host.around(environment)
        program = worker_program(
            self._started, group=NAMESPACE, concurrency=concurrency, pool=pool, environment=environment,
            data_dir=self.servers.data_dir,
        )  # fmt: skip
        command = program.command if host is None else host.command(program.command)
        return replace(program, command=command, folder=self.servers.folder)  # away from the user's .env


@contextmanager
def chaos_stack(
    pools: Sequence[tuple[str, int]] = WORKERS, *, direct: frozenset[int] = DIRECT, **settings: str
) -> Iterator[ChaosStack]:
    """Servers in the block, no worker yet; see `own_servers`. `settings`: of the workers, by environment variable."""
    exits = ExitStack()
    with own_servers(NAMESPACE, exits) as servers:
        redis_proxy = exits.enter_context(Proxy(servers.valkey.url).running())
        postgres_proxy = exits.enter_context(Proxy(servers.postgres.url).running())
        stack = ChaosStack(servers, servers.folder / "journal", redis_proxy, postgres_proxy, pools, direct)
        stack.settings.update(settings)
        preloaded = skewed_clock.library()
        if preloaded is not None:
            stack.clocks[WRONG_CLOCK] = SkewedClock(servers.folder / "clock", preloaded, WRONG_SECONDS)
        exits.callback(stack.stop_workers)
        _connect_client(stack.redis_url)
        yield stack


def _connect_client(redis_url: str) -> None:
    """This process sends its runs to these servers, though it may have sent others to those of a stack before."""
    from tasks import app, engine  # noqa: PLC0415 - after the environment is set

    app.conf.update(broker_url=redis_url, result_backend=redis_url)
    app._after_fork()  # forgets all connections
    engine._processor = None
    engine.get_hasty_live.cache_clear()
