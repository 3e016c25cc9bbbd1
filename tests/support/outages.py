"""Services of a test's own, to be stopped, killed, frozen and started again while workers are at work."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis

from orchestration.store import migrate
from parallelizer.services.folder import prepare_folder
from parallelizer.services.postgres import EmbeddedPostgres
from parallelizer.services.valkey import EmbeddedValkey
from tests.support.fleet import Fleet, running_fleet

Server = EmbeddedValkey | EmbeddedPostgres


@contextmanager
def own_servers() -> Iterator[tuple[EmbeddedValkey, EmbeddedPostgres]]:
    """A Redis and a migrated PostgreSQL that nobody else uses."""
    folder = Path(tempfile.mkdtemp(prefix="parallelizer-outage-"))
    folder.chmod(0o711)
    data = prepare_folder(folder / "data")
    servers = EmbeddedValkey(data), EmbeddedPostgres(data)
    try:
        for server in servers:
            server.start()
            server.wait_ready()
        migrate.upgrade(servers[1].url)
        yield servers
    finally:
        for server in servers:
            _signal(server, signal.SIGCONT)
            server.stop()
        shutil.rmtree(folder)


@contextmanager
def fleet_on(
    servers: tuple[EmbeddedValkey, EmbeddedPostgres], namespace: str, folder: Path, broker_url: str = ""
) -> Iterator[Fleet]:
    """An empty fleet on these servers, with a broker beside them if one is given."""
    with running_fleet(servers[0].url, servers[1].url, namespace, folder) as fleet:
        fleet.broker_url = fleet.broker_url or broker_url
        yield fleet


@contextmanager
def frozen(server: Server) -> Iterator[None]:
    """The server answers nothing for the time of the block; connections stay."""
    _signal(server, signal.SIGSTOP)
    try:
        yield
    finally:
        _signal(server, signal.SIGCONT)


@contextmanager
def away(server: Server, number: signal.Signals = signal.SIGKILL) -> Iterator[None]:
    """The server is ended by a signal, and started again on its data and port after the block."""
    _signal(server, number)
    server.stop()
    try:
        yield
    finally:
        server.start()
        server.wait_ready()


def wait_on_disk(server: EmbeddedValkey) -> None:
    """Whatever was written so far is on its disk: a busy one is up to two seconds late, which a kill then loses."""
    with redis.Redis.from_url(server.url, single_connection_client=True) as client:
        client.incr("on_disk")
        client.execute_command("WAITAOF", 1, 0, 0)
        client.delete("on_disk")


def pass_seconds(seconds: float) -> None:
    """Let the outage last."""
    threading.Event().wait(seconds)


def _signal(server: Server, number: signal.Signals) -> None:
    if server.pid is not None and not server.has_exited():
        os.kill(server.pid, number)
