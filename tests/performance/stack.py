"""What a benchmark runs on: servers and one worker of its own, in a temporary folder, and nothing of it left behind.

The servers are as durable as those of `parallelizer up`: PostgreSQL with fsync, Redis with its append-only file. All
programs are tethered to this process, so even its `kill -9` ends them.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from config.settings import CONFIG_FILE_VARIABLE, Settings, get_settings
from orchestration.store import migrate
from parallelizer.services.folder import log_tail, prepare_folder
from parallelizer.services.postgres import EmbeddedPostgres
from parallelizer.services.supervision import LoggedProgram, stop_programs
from parallelizer.services.valkey import EmbeddedValkey
from parallelizer.services.workers import registered_workers, start_and_wait, worker_program

ROOT = Path(__file__).resolve().parents[2]
#: Processes of the worker; the goals are stated for two.
CONCURRENCY = 2
NAMESPACE = "bench"
APPLICATION = "tests.performance.raw_tasks"
#: The worker is idle, or was given up by Ctrl-C, when it is told to end.
GRACE_SECONDS = 3.0
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class WorkerLost(Exception):
    """The worker has ended in the middle of a measurement; the message holds the end of its log."""


@dataclass(frozen=True, slots=True)
class BenchStack:
    """The running stack; its URLs are also in this process's environment, for the Celery application."""

    redis_url: str
    database_url: str
    worker: LoggedProgram
    folder: Path

    def check_worker(self) -> None:
        """Return when the worker runs.

        Raises: WorkerLost
        """
        if self.worker.has_exited():
            raise WorkerLost(f"{self.worker.name} {self.worker.describe_exit()}:\n{log_tail(self.worker.log, 30)}")


@contextmanager
def bench_stack() -> Iterator[BenchStack]:
    """Run the stack in the block; a signal that ends the program raises KeyboardInterrupt in it. Main thread only.

    Raises: ServiceUnreachable: a server or the worker did not come up.
    """
    before = {number: signal.signal(number, signal.default_int_handler) for number in _ENDING}
    exits = ExitStack()
    try:
        yield _start(exits)
    finally:
        for number in _ENDING:
            signal.signal(number, signal.SIG_IGN)  # the end is not to be cut short
        exits.close()
        for number, handler in before.items():
            signal.signal(number, handler)


def _start(exits: ExitStack) -> BenchStack:
    """Start everything; how to end each part is known to `exits` before it is started."""
    folder = Path(tempfile.mkdtemp(prefix="parallelizer-bench-"))
    exits.callback(_remove, folder)
    folder.chmod(0o711)  # for root: the user that PostgreSQL runs as passes through
    data_dir = prepare_folder(folder / "data")
    valkey, postgres = EmbeddedValkey(data_dir), EmbeddedPostgres(data_dir)
    for server in (valkey, postgres):
        exits.callback(server.stop)
        server.start()
    for server in (valkey, postgres):
        server.wait_ready()
    migrate.upgrade(postgres.url)
    _set_environment(REDIS_URL=valkey.url, DATABASE_URL=postgres.url, NAMESPACE=NAMESPACE, DATA_DIR=str(data_dir))
    worker = _worker(data_dir, folder)
    exits.callback(stop_programs, [worker], GRACE_SECONDS, threading.Event(), lambda: None)
    registered = partial(registered_workers, valkey.url, NAMESPACE, NAMESPACE)
    start_and_wait([worker], registered, threading.Event(), lambda: None)
    return BenchStack(valkey.url, postgres.url, worker, folder)


def _worker(data_dir: Path, folder: Path) -> LoggedProgram:
    environment = {
        **os.environ, "PYTHONPATH": str(ROOT),
        "LOG_LEVEL": "warning",  # Celery logs two lines for each task: that would slow plain tasks only
    }  # fmt: skip
    program = worker_program(
        1, group=NAMESPACE, concurrency=CONCURRENCY, pool="prefork", environment=environment, data_dir=data_dir,
        application=APPLICATION,
    )  # fmt: skip
    return replace(program, folder=folder)  # away from the user's .env


def _set_environment(**variables: str) -> None:
    """These settings and no others: neither the user's environment nor a file of settings has a say."""
    for name in Settings.model_fields:
        os.environ.pop(name.upper(), None)
    os.environ.pop(CONFIG_FILE_VARIABLE, None)
    os.environ.update(variables)
    get_settings.cache_clear()


def _remove(folder: Path) -> None:
    """Remove the folder, and what lies elsewhere because PostgreSQL's user can't reach it."""
    for record in folder.glob("data/*.location"):
        shutil.rmtree(record.read_text().strip(), ignore_errors=True)
    shutil.rmtree(folder)
