"""Servers of one program's own, in a temporary folder, and nothing of them left behind.

As durable as those of `parallelizer up`: PostgreSQL with fsync, Redis with its append-only file. All programs are
tethered to this process, so even its `kill -9` ends them.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from config.settings import CONFIG_FILE_VARIABLE, Settings, get_settings
from orchestration.store import migrate
from parallelizer.services.folder import prepare_folder
from parallelizer.services.postgres import EmbeddedPostgres
from parallelizer.services.valkey import EmbeddedValkey

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, slots=True)
class OwnServers:
    """The running servers, whose URLs are also in this process's environment."""

    valkey: EmbeddedValkey
    postgres: EmbeddedPostgres
    data_dir: Path
    folder: Path
    namespace: str


@contextmanager
def own_servers(namespace: str, exits: ExitStack) -> Iterator[OwnServers]:
    """Run them in the block. Main thread only.

    A signal that ends the program raises KeyboardInterrupt in the block.
    Args: exits: what else ends with the block, before them; its callbacks are not cut short by signals.
    Raises: ServiceUnreachable: a server did not come up.
    """
    before = {number: signal.signal(number, signal.default_int_handler) for number in _ENDING}
    servers = ExitStack()
    try:
        yield _start(namespace, servers)
    finally:
        for number in _ENDING:
            signal.signal(number, signal.SIG_IGN)
        exits.close()
        servers.close()
        for number, handler in before.items():
            signal.signal(number, handler)


def _start(namespace: str, exits: ExitStack) -> OwnServers:
    """Start the servers; how to end each part is known to `exits` before it is started."""
    folder = Path(tempfile.mkdtemp(prefix=f"parallelizer-{namespace}-"))
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
    # TMPDIR: a worker that has to be killed leaves folders there, which go with ours
    _set_environment(
        REDIS_URL=valkey.url, DATABASE_URL=postgres.url, NAMESPACE=namespace, DATA_DIR=str(data_dir),
        TMPDIR=str(folder),
    )  # fmt: skip
    return OwnServers(valkey, postgres, data_dir, folder, namespace)


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
