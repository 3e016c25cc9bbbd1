"""The spool: files on local disk for status updates that neither Redis nor PostgreSQL takes now.

A folder of append-only files, each of which one process writes. A record is

    length of the content, 4 bytes · CRC-32 of the content, 4 bytes · content: an entry as JSON (parse.py)

numbers with the first byte first. A record is on disk (fsync) when `append` returns. Upkeep processes replay the files
and remove them; rows are idempotent, so a file that is replayed twice does no harm.

What if it dies here: a process that is killed in the middle of an `append` leaves part of a record behind. What stands
before it is replayed, and the file is kept as `….torn` for people to look at. A replay that dies begins again.
"""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
import struct
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from orchestration.errors import SpoolFull
from orchestration.telemetry.probes import probe, probed

_log = logging.getLogger(__name__)
_HEAD: Final = struct.Struct(">II")
_SUFFIX: Final = ".spool"
#: A file that has become so large gets a successor: what is replayed at once is bounded so.
SEGMENT_BYTES: Final = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a replay has done: records, and files of which the end could not be read."""

    records: int = 0
    torn_files: int = 0


def record_of(content: bytes) -> bytes:
    """The record that holds some content, which is not empty."""
    return _HEAD.pack(len(content), zlib.crc32(content)) + content


def read_records(data: bytes) -> tuple[list[bytes], int]:
    """The contents of all records up to the first that is not whole, and how many bytes they take."""
    found: list[bytes] = []
    at = 0
    while len(data) - at > _HEAD.size:
        size, checksum = _HEAD.unpack_from(data, at)
        content = data[at + _HEAD.size : at + _HEAD.size + size]
        # no content is empty, but a file system that loses its last writes gives zeros
        if not size or len(content) < size or zlib.crc32(content) != checksum:
            break
        found.append(content)
        at += _HEAD.size + size
    return found, at


class Spool:
    """The spool in one folder; any number of processes and threads may use it at once.

    Args: folder: made when first needed. most_bytes: of all its files together, about.
    """

    def __init__(self, folder: Path, most_bytes: int) -> None:
        self._folder = folder
        self._most_bytes = most_bytes
        self._lock = threading.Lock()
        self._path: Path | None = None
        self._pid = 0

    @probed("spool.append")
    def append(self, content: bytes) -> None:
        """The content is on disk.

        Raises: SpoolFull: it would be larger than it may. OSError: the disk does not take it.
        """
        record = record_of(content)
        with self._lock:
            size_bytes = self.size_bytes()
            if size_bytes + len(record) > self._most_bytes:
                raise SpoolFull(
                    f"{self._folder} holds {size_bytes} bytes, and may hold SPOOL_MAX_BYTES={self._most_bytes}; "
                    "see why PostgreSQL is out of reach"
                )
            with self._own_file() as descriptor:
                before = os.fstat(descriptor).st_size
                try:
                    _write_all(descriptor, record)
                    probe("spool.written")
                    os.fsync(descriptor)
                except OSError:
                    os.ftruncate(descriptor, before)
                    raise
                if before + len(record) >= SEGMENT_BYTES:
                    self._path = None

    def replay(self, write: Callable[[Sequence[bytes]], None]) -> Replayed:
        """Hand all that is in the folder to `write`, a file at a time, and remove it.

        Raises: what `write` raises; that file stays.
        """
        records = torn = 0
        for path in self._files():
            with _locked(path, os.O_RDWR) as descriptor:
                if descriptor is None:
                    continue  # somebody writes it, or replays it
                data = _read_all(descriptor)
                contents, good_bytes = read_records(data)
                write(contents)
                probe("spool.replayed")
                records += len(contents)
                if good_bytes < len(data):
                    torn += 1
                    aside = path.with_suffix(".torn")
                    path.rename(aside)
                    _log.error(
                        "%s ends in the middle of a record: %d of %d bytes could be read; it is kept",
                        aside, good_bytes, len(data),
                    )  # fmt: skip
                else:
                    path.unlink()
        if records or torn:
            _sync_folder(self._folder)
        return Replayed(records, torn)

    def size_bytes(self) -> int:
        """Bytes that wait to be replayed."""
        return sum(size for path in self._files() if (size := _size_of(path)))

    def files(self) -> int:
        """How many files there are to be replayed."""
        return len(self._files())

    def _files(self) -> list[Path]:
        return sorted(self._folder.glob(f"*{_SUFFIX}"))

    @contextmanager
    def _own_file(self) -> Iterator[int]:
        """This process's file, locked; another one when it was replayed meanwhile, or just is."""
        if self._pid != os.getpid():
            self._path, self._pid = None, os.getpid()
        while True:
            if self._path is None:
                self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._path = self._folder / f"{os.getpid()}-{secrets.token_hex(8)}{_SUFFIX}"
                os.close(os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
                _sync_folder(self._folder)
            with _locked(self._path, os.O_WRONLY | os.O_APPEND) as descriptor:
                if descriptor is not None:
                    yield descriptor
                    return
            self._path = None


@contextmanager
def _locked(path: Path, flags: int) -> Iterator[int | None]:
    """The file, open and locked; None when it is gone, or locked by others. Nobody waits."""
    try:
        descriptor = os.open(path, flags)
    except FileNotFoundError:
        yield None
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
            return
        yield descriptor if _is_at(path, descriptor) else None
    finally:
        os.close(descriptor)


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _write_all(descriptor: int, data: bytes) -> None:
    written = 0
    while written < len(data):
        written += os.write(descriptor, data[written:])


def _read_all(descriptor: int) -> bytes:
    with os.fdopen(os.dup(descriptor), "rb") as file:
        return file.read()


def _size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
