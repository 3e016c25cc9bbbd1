"""The `files.*` actions: what is in a folder. They read only, and never outside the folder they are given.

Paths in inputs and results are relative to the folder and written with `/`. Symbolic links are not followed:
neither to folders (a link may lead outside, or in a circle) nor to files.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import IO, TypedDict

from orchestration.registry import action

#: Large enough that reading is not the slow part, small enough for hundreds of branches at once.
CHUNK_BYTES = 1 << 20


class ListedFile(TypedDict):
    """One file found by `files.list`."""

    path: str
    bytes: int


class NotInFolder(ValueError):
    """The path leads out of the folder, or is not a regular file in it."""


@action("files.list")
def list_files(
    folder: str, pattern: str = "*", recursive: bool = True, exclude: Sequence[str] = ()
) -> list[ListedFile]:
    """List the regular files of a folder: path and size, in the byte order of the paths.

    Args: pattern: shell pattern for file names, as in `*.py`; with a `/` in it, for paths from the folder.
        recursive: whether to enter folders inside it.
        exclude: patterns of files and folders to leave out, read like `pattern`; `/build` is only the one at the top.
    Raises: FileNotFoundError, NotADirectoryError, PermissionError: the folder (or one in it) can't be listed.
    """
    root = _folder(folder)
    return sorted(_walk(root, pattern, recursive, tuple(exclude)), key=lambda file: file["path"].encode())


@action("files.hash")
def hash_file(folder: str, path: str, algorithm: str = "sha256") -> dict[str, str | int]:
    """Read one file of the folder: its hash, its size in bytes and its lines (as `wc -l` counts them).

    Args: algorithm: any that Python's `hashlib` knows and that has a fixed length; the result has a field of its name.
    Raises: NotInFolder: the path leads out of the folder, or to something that is no regular file. OSError: can't read.
    """
    if algorithm not in hashlib.algorithms_available or algorithm.startswith("shake"):
        usable = ", ".join(sorted(name for name in hashlib.algorithms_guaranteed if not name.startswith("shake")))
        raise ValueError(f"algorithm {algorithm!r} is not one of {usable}")
    digest = hashlib.new(algorithm, usedforsecurity=False)
    size_bytes = lines = 0
    with open_inside(folder, path) as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
            size_bytes += len(chunk)
            lines += chunk.count(b"\n")
    return {"path": path, algorithm: digest.hexdigest(), "bytes": size_bytes, "lines": lines}


def open_inside(folder: str, path: str) -> IO[bytes]:
    """Open a regular file of the folder for reading.

    Raises: NotInFolder: `path` is absolute, has `..`, passes through a link, or is no regular file.
    """
    parts = path.split("/")
    if not path or path.startswith("/") or ".." in parts or "\0" in path:
        raise NotInFolder(f"{path!r} is not a path inside the folder {folder}")
    full = Path(_folder(folder)).resolve() / path
    if full.resolve() != full:
        raise NotInFolder(f"{path!r} passes through a symbolic link, which is not followed")
    # O_NONBLOCK: opening a named pipe would otherwise wait for a writer.
    descriptor = os.open(full, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise NotInFolder(f"{path!r} is not a regular file")
    return os.fdopen(descriptor, "rb")


def _folder(folder: str) -> str:
    path = Path(folder)
    if not path.exists():
        raise FileNotFoundError(f"there is no folder {folder!r} on this worker; is the path absolute and right?")
    if not path.is_dir():
        raise NotADirectoryError(f"{folder!r} is a file, not a folder")
    return folder


def _walk(root: str, pattern: str, recursive: bool, exclude: tuple[str, ...]) -> Iterator[ListedFile]:
    pending = [""]
    while pending:
        here = pending.pop()
        with os.scandir(f"{root}/{here}") as entries:
            for entry in entries:
                path = f"{here}/{entry.name}" if here else entry.name
                if any(_matches(path, entry.name, excluded) for excluded in exclude):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    if recursive:
                        pending.append(path)
                elif entry.is_file(follow_symlinks=False) and _matches(path, entry.name, pattern):
                    yield {"path": _utf8(path), "bytes": entry.stat(follow_symlinks=False).st_size}


def _matches(path: str, name: str, pattern: str) -> bool:
    return fnmatchcase(path, pattern.lstrip("/")) if "/" in pattern else fnmatchcase(name, pattern)


def _utf8(path: str) -> str:
    try:
        path.encode()
    except UnicodeEncodeError:
        raise ValueError(f"the name {os.fsencode(path)!r} is not UTF-8; rename or exclude it") from None
    return path
