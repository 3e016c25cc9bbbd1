"""The data folder of a stack: who may read it, the secrets and ports kept in it, the lock that one stack holds.

<data_dir>/lock           held by the process that runs the stack
<data_dir>/stack.json     the running stack (see state.py)
<data_dir>/secrets/       one file each, mode 0600
<data_dir>/ports/         the port each server had last
<data_dir>/log/           one file for each server and worker
<data_dir>/redis/         the Redis-compatible server's data
<data_dir>/postgres/      PostgreSQL's data, or postgres.location: the folder that holds it
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from orchestration.errors import SettingsError

#: A log file above this size is set aside, bytes; one old part is kept.
LOG_BYTES = 32 * 1024 * 1024


def prepare_folder(data_dir: Path) -> Path:
    """Make the data folder, or what it lacks; return its real path.

    A new folder is closed to others and kept out of version control; one that holds something else already keeps its
    mode and its `.gitignore`: it may be a project.
    Raises: SettingsError: it can't be made or written to.
    """
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        data_dir = data_dir.resolve()
        if not any(data_dir.iterdir()):
            # As root, PostgreSQL's own user must be able to pass through.
            data_dir.chmod(0o711 if os.geteuid() == 0 else 0o700)
            (data_dir / ".gitignore").write_text("*\n")
        for name in ("secrets", "ports", "log"):
            (data_dir / name).mkdir(mode=0o700, exist_ok=True)
        (data_dir / "lock").touch(mode=0o600)
    except OSError as error:
        raise SettingsError(
            f"the data folder {data_dir} can't be used ({error.strerror}); name another one with --data-dir or DATA_DIR"
        ) from error
    return data_dir


def kept_secret(data_dir: Path, name: str) -> str:
    """The secret of this name, made at random on first use."""
    path = data_dir / "secrets" / name
    try:
        found = path.read_text().strip()
    except FileNotFoundError:
        found = ""
    if not found:
        found = secrets.token_urlsafe(24)
        write_private(path, found)
    return found


def write_private(path: Path, text: str) -> None:
    """Put a file in place whole, mode 0600 from its first byte."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.new")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    partial.replace(path)


def kept_port(data_dir: Path, name: str) -> int:
    """A free port on 127.0.0.1: the one of last time if nobody took it."""
    path = data_dir / "ports" / name
    try:
        last = int(path.read_text())
    except (FileNotFoundError, ValueError):
        last = 0
    port = _free_port(last) or _free_port(0)
    path.write_text(str(port))
    return port


def forget_port(data_dir: Path, name: str) -> None:
    """Take another port next time: somebody was quicker."""
    (data_dir / "ports" / name).unlink(missing_ok=True)


def open_log(data_dir: Path, name: str) -> BinaryIO:
    """The log file of this name for appending; the caller closes it."""
    path = log_path(data_dir, name)
    trim_log(path)
    return path.open("ab")


def trim_log(path: Path) -> None:
    """Set a log aside when it is too large; its writer may go on writing (it appends; a few lines may be lost)."""
    if path.exists() and path.stat().st_size > LOG_BYTES:
        shutil.copyfile(path, path.with_suffix(".log.1"))
        os.truncate(path, 0)


def log_path(data_dir: Path, name: str) -> Path:
    return data_dir / "log" / f"{name}.log"


def log_tail(path: Path, lines: int = 12, limit: int = 16_384) -> str:
    """The last lines of a log file, for an error message."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - limit))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
    return "\n".join(text.splitlines()[-lines:])


class FollowedLog:
    """The lines that are added to a log file from now on."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = path.stat().st_size if path.exists() else 0
        self._partial = b""

    def new_lines(self) -> list[str]:
        """Whole lines since the last call."""
        try:
            with self._path.open("rb") as file:
                if self._path.stat().st_size < self._offset:
                    self._offset = 0  # set aside by `trim_log`
                file.seek(self._offset)
                added = file.read()
        except FileNotFoundError:
            return []
        self._offset += len(added)
        *lines, self._partial = (self._partial + added).split(b"\n")
        return [line.decode(errors="replace") for line in lines]


@contextmanager
def locked(data_dir: Path) -> Iterator[bool]:
    """Hold the folder's lock in the block; gives False when another process has it. The lock dies with its process."""
    with (data_dir / "lock").open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def _free_port(wanted: int) -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError:
            return 0
        return int(probe.getsockname()[1])
