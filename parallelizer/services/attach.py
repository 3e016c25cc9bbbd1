"""How other commands get at a stack: the URLs of the one that is there, or a stack for one run."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from config.settings import Settings, get_settings
from parallelizer.services.folder import open_log
from parallelizer.services.record import read_record
from parallelizer.services.stack import Stack, StackPlan

#: How long a stack for one run waits for its workers to end, seconds: the run is over, or was given up by Ctrl-C.
GRACE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class TemporaryStack:
    """A stack that lives as long as its block."""

    redis_url: str
    database_url: str
    #: Folder of the log files.
    logs: Path


def stack_urls(data_dir: Path, settings: Settings | None = None) -> tuple[str, str] | None:
    """REDIS_URL and DATABASE_URL of the settings, for what is not set those of the stack that runs in `data_dir`.

    Returns: both URLs, or None: one is not set, and no stack runs there.
    """
    settings = settings or get_settings()
    record = read_record(data_dir)
    redis_url = settings.redis_url or (record.redis_url if record else None)
    database_url = settings.database_url or (record.database_url if record else None)
    return (redis_url, database_url) if redis_url and database_url else None


@contextmanager
def temporary_stack(settings: Settings, workers: int = 1, concurrency: int | None = None) -> Iterator[TemporaryStack]:
    """Run a stack in the block, quietly; its data stay in `settings.data_dir`.

    Args: concurrency: slots of each worker; by default one for each processor.
    Raises: StackRunning: the data folder has a stack. ServiceUnreachable: a server or a worker did not come up.
    """
    plan = StackPlan(workers=workers, grace_seconds=GRACE_SECONDS, temporary=True)
    if concurrency is not None:
        plan = StackPlan(workers=workers, concurrency=concurrency, grace_seconds=GRACE_SECONDS, temporary=True)
    life = _StackLife(settings, plan)
    life.start()
    try:
        life.wait_ready()
        stack = life.stack
        yield TemporaryStack(stack.redis_url, stack.database_url, stack.data_dir / "log")
    finally:
        life.end()


class _StackLife(threading.Thread):
    """Starts, watches and stops one stack, all in one thread: its programs are tethered to it."""

    def __init__(self, settings: Settings, plan: StackPlan) -> None:
        super().__init__(name="stack", daemon=False)
        self.stack = Stack(settings, plan, self._announce, lambda _name, _line: None)
        self._ready = threading.Event()
        self._error: BaseException | None = None

    def run(self) -> None:
        try:
            try:
                self.stack.start()
                self._ready.set()
                self.stack.watch()
            finally:
                self.stack.stop()
        except BaseException as error:  # noqa: BLE001 - handed to the thread that waits
            self._error = error
        finally:
            self._ready.set()

    def wait_ready(self) -> None:
        self._ready.wait()
        if self._error is not None:
            raise self._error

    def end(self) -> None:
        self.stack.request_stop()
        try:
            self.join()
        except KeyboardInterrupt:
            self.stack.request_stop()  # hurry
            self.join()
            raise

    def _announce(self, message: str) -> None:
        with open_log(self.stack.data_dir, "stack") as log:
            log.write(f"{datetime.now(UTC).isoformat(timespec='milliseconds')} {message}\n".encode())
