"""A cgroup with a limit of memory: its largest process is killed by the kernel when that is reached."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

MEGABYTE = 1024 * 1024
_ROOT = Path("/sys/fs/cgroup")
_FIRST = _ROOT / "memory"
#: A group is busy for a moment after its last process has ended, seconds.
BUSY_SECONDS = 5.0


def why_none() -> str:
    """Why no group can be made here; empty: one can."""
    if os.geteuid() != 0:
        return "needs root, to make a cgroup with a limit of memory"
    if (_FIRST / "memory.limit_in_bytes").exists():
        return "" if os.access(_FIRST, os.W_OK) else f"needs {_FIRST} to be writable"
    enabled = _ROOT / "cgroup.subtree_control"
    if not enabled.exists() or "memory" not in enabled.read_text().split():
        return "needs cgroups with the memory controller, mounted at /sys/fs/cgroup"
    return "" if os.access(_ROOT, os.W_OK) else f"needs {_ROOT} to be writable"


class MemoryGroup:
    """Processes and all that they start, which may use so much memory together; cgroup v1 or v2."""

    def __init__(self, name: str, most_megabytes: int) -> None:
        is_first = _FIRST.is_dir()
        self._parent = _FIRST if is_first else _ROOT
        self._folder = self._parent / f"{name}-{os.getpid()}"
        self._limits = ("memory.limit_in_bytes",) if is_first else ("memory.max",)
        self._most_bytes = most_megabytes * MEGABYTE

    def __enter__(self) -> Self:
        self._folder.mkdir()
        for name in self._limits:
            (self._folder / name).write_text(str(self._most_bytes))
        return self

    def add(self, pids: Iterable[int]) -> None:
        """These processes are in it from now on; what they used before does not count."""
        self._move(pids, self._folder)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        deadline = time.monotonic() + BUSY_SECONDS
        while True:
            self._move(map(int, (self._folder / "cgroup.procs").read_text().split()), self._parent)
            with suppress(OSError):
                self._folder.rmdir()
                return
            assert time.monotonic() < deadline, f"{self._folder} can't be removed"
            time.sleep(0.05)

    @staticmethod
    def _move(pids: Iterable[int], folder: Path) -> None:
        for pid in pids:
            with suppress(ProcessLookupError):
                (folder / "cgroup.procs").write_text(str(pid))
