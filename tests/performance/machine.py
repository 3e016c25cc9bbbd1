"""What a figure depends on besides our code: the machine, who else uses it, the versions below us, the servers."""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from importlib.metadata import version

import psutil

from orchestration.store.pool import Database
from parallelizer.services.reach import open_redis
from tests.performance.stack import BenchStack


def describe(stack: BenchStack, database: Database) -> dict[str, object]:
    """Names and values for the report; nothing that names the machine."""
    with open_redis(stack.redis_url) as client:
        server = client.info("server")
        append_only = client.config_get("append*")
    name = "valkey" if "valkey_version" in server else "redis"
    settings = {
        each: database.fetch(f"SHOW {each}")[0][0] for each in ("server_version", "fsync", "synchronous_commit")
    }
    return {
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "file_system": _file_system(stack),
        "python": platform.python_version(),
        "celery": version("celery"),
        "kombu": version("kombu"),
        name: server[f"{name}_version"],
        "appendonly": append_only["appendonly"],
        "appendfsync": append_only["appendfsync"],
        "postgresql": settings["server_version"],
        "fsync": settings["fsync"],
        "synchronous_commit": settings["synchronous_commit"],
        "load_before": round(os.getloadavg()[0], 2),
    }


def _file_system(stack: BenchStack) -> str:
    """Where the data are: on tmpfs, fsync costs nothing."""
    above = [part for part in psutil.disk_partitions(all=True) if stack.folder.is_relative_to(part.mountpoint)]
    return max(above, key=lambda part: len(part.mountpoint)).fstype if above else "unknown"


class OthersWatch:
    """How much of the machine's processors others use: neither this process nor what it has started."""

    def __init__(self) -> None:
        self._before = self._read()

    def share(self) -> float:
        """Of all processors, since this watch was made: 0 to 1."""
        total, busy, ours = (after - before for before, after in zip(self._before, self._read(), strict=True))
        return min(1.0, max(0.0, (busy - ours) / total)) if total > 0 else 0.0

    @staticmethod
    def _read() -> tuple[float, float, float]:
        """Seconds of processors so far: all there are, those that were busy, those that we used."""
        times = psutil.cpu_times()
        total = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
        idle = times.idle + getattr(times, "iowait", 0.0)
        this = psutil.Process()
        ours = 0.0
        for process in (this, *this.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                # with those of its children that have ended: they are in no list any more
                ours += sum(process.cpu_times()[:4])
        return total, total - idle, ours
