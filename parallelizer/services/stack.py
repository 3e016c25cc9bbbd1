"""A whole stack on one machine: the servers that no URL names, the schema, and Celery workers, supervised.

    start    folder locked → servers started side by side → both answer → schema migrated → stack.json → workers
    watch    a dead worker or server is started again with backoff; log lines are shown
    stop     workers end what they run, within the grace → servers → stack.json removed → lock given back

If this process dies at any point, the kernel ends everything it started (tether.py); the lock goes with it, and the
next start replays PostgreSQL's and Valkey's logs.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from config.settings import Settings
from orchestration.errors import SettingsError
from orchestration.store import migrate
from parallelizer.services.flag import Flag
from parallelizer.services.folder import locked, prepare_folder, trim_log
from parallelizer.services.packages import strange_packages
from parallelizer.services.postgres import EmbeddedPostgres
from parallelizer.services.processes import mark_process
from parallelizer.services.reach import database_answers, redis_answers
from parallelizer.services.record import StackRecord, read_record, remove_record, write_record
from parallelizer.services.supervision import LoggedProgram, Watch, stop_programs
from parallelizer.services.valkey import EmbeddedValkey
from parallelizer.services.workers import flower_program, registered_workers, start_and_wait, worker_program

#: Seconds between two looks at the programs and their logs.
LOOK_SECONDS = 0.1


class StackRunning(SettingsError):
    """The data folder is taken: another process runs a stack in it. Use that one, stop it, or choose another folder."""


@dataclass(frozen=True, slots=True)
class StackPlan:
    """What to start."""

    workers: int = 1
    #: Slots of each worker.
    concurrency: int = field(default_factory=lambda: os.cpu_count() or 1)
    pool: str = "prefork"
    #: How long workers may go on with what they run when the stack stops, seconds.
    grace_seconds: float = 30.0
    #: Port of Flower with our pages; None: it is not started.
    flower_port: int | None = None
    #: Made by `parallelizer run` for one run.
    temporary: bool = False


class Stack:
    """One stack; all methods but `request_stop` are called from one thread.

    Args: announce: gets a sentence about what happens to the stack. show: gets a worker's name and a line of its log.
    """

    def __init__(
        self, settings: Settings, plan: StackPlan, announce: Callable[[str], None], show: Callable[[str, str], None]
    ) -> None:
        self._settings = settings
        self._plan = plan
        self._announce = announce
        self._show = show
        self._exits = ExitStack()
        self._stopping = Flag()
        self._hurry = Flag()
        self._watches: list[Watch] = []
        self._servers: list[EmbeddedValkey | EmbeddedPostgres] = []
        self.data_dir = settings.data_dir
        self.workers: list[LoggedProgram] = []
        self._pages: list[LoggedProgram] = []
        self.redis_url = settings.redis_url or ""
        self.database_url = settings.database_url or ""

    def request_stop(self) -> None:
        """Ask for the end; asking again hurries. Safe from a signal handler and from another thread."""
        if self._stopping.is_set():
            self._hurry.set()
        self._stopping.set()

    @property
    def stop_requested(self) -> bool:
        return self._stopping.is_set()

    def start(self) -> None:
        """Start everything and return when all workers have registered (or a stop was requested).

        Raises: SettingsError: another package hides one of ours, or the folder can't be used. StackRunning: it has a
            stack. ServiceUnreachable: a server or the workers did not come up;
            what had been started is ended by `stop`, which the caller calls in any case.
        """
        if strangers := strange_packages(Path.cwd()):
            raise SettingsError("\n".join(strangers))
        self.data_dir = prepare_folder(self._settings.data_dir)
        if not self._exits.enter_context(locked(self.data_dir)):
            raise StackRunning(_running_message(self.data_dir))
        self._start_servers()
        migrate.upgrade(self.database_url)
        supervisor = mark_process(os.getpid())
        assert supervisor is not None  # it is this process
        record = StackRecord(
            supervisor, self.redis_url, self.database_url, self._plan.workers, ready=False,
            temporary=self._plan.temporary,
        )  # fmt: skip
        write_record(self.data_dir, record)
        self._exits.callback(remove_record, self.data_dir)
        self._start_workers()
        if not self.stop_requested:
            write_record(self.data_dir, replace(record, ready=True))

    def watch(self) -> None:
        """Keep everything alive until a stop is requested."""
        while not self._stopping.wait(LOOK_SECONDS):
            now = time.monotonic()
            for watch in self._watches:
                watch.check(now, self._announce)
            self._look_at_logs()

    def stop(self) -> None:
        """Nothing that was started runs any more; the data stay."""
        self._stopping.set()
        with self._exits:  # all is stopped, the last entered first, whatever fails on the way
            for server in self._servers:
                self._exits.callback(server.stop)
            self._exits.callback(
                stop_programs, [*self.workers, *self._pages], self._plan.grace_seconds, self._hurry, self._look_at_logs,
            )  # fmt: skip
            if any(worker.is_running() for worker in self.workers):
                self._announce(f"stopping; workers may finish what they run, for {self._plan.grace_seconds:g} s")

    def _start_servers(self) -> None:
        if not self.redis_url:
            valkey = EmbeddedValkey(self.data_dir)
            self._servers.append(valkey)
            valkey.start()
        if not self.database_url:
            postgres = EmbeddedPostgres(self.data_dir)
            self._servers.append(postgres)
            postgres.start()
        for server in self._servers:
            server.wait_ready()
            self._watches.append(Watch(server, time.monotonic()))
            if isinstance(server, EmbeddedValkey):
                self.redis_url = server.url
            else:
                self.database_url = server.url
        redis_answers(self.redis_url)
        database_answers(self.database_url)

    def _start_workers(self) -> None:
        environment = {
            **os.environ,
            "REDIS_URL": self.redis_url,
            "DATABASE_URL": self.database_url,
            "DATA_DIR": str(self.data_dir),
        }
        group = hashlib.sha256(str(self.data_dir).encode()).hexdigest()[:6]
        self.workers = [
            worker_program(
                number, group=group, concurrency=self._plan.concurrency, pool=self._plan.pool,
                environment=environment, data_dir=self.data_dir,
            )
            for number in range(1, self._plan.workers + 1)
        ]  # fmt: skip
        registered = partial(registered_workers, self.redis_url, self._settings.namespace, group)
        self._watches += [Watch(worker, time.monotonic()) for worker in self.workers]
        start_and_wait(self.workers, registered, self._stopping, self._look_at_logs)
        if self._plan.flower_port is not None and not self.stop_requested:
            pages = flower_program(self._plan.flower_port, environment=environment, data_dir=self.data_dir)
            pages.start()
            self._pages.append(pages)
            self._watches.append(Watch(pages, time.monotonic()))

    def _look_at_logs(self) -> None:
        for program in (*self.workers, *self._pages):
            trim_log(program.log)
            for line in program.new_lines():
                self._show(program.name, line)


def _running_message(data_dir: Path) -> str:
    record = read_record(data_dir)
    if record is None:
        return f"another process is starting or stopping a stack in {data_dir}; try again in a moment"
    if record.temporary:
        return (
            f"`parallelizer run` (process {record.supervisor.pid}) has a stack of its own in {data_dir}; wait for it, "
            "use another --data-dir, or keep one stack for several runs with `parallelizer up`"
        )
    return (
        f"a stack is running in {data_dir} (process {record.supervisor.pid}); "
        "`parallelizer down` stops it, another --data-dir gives a second one"
    )
