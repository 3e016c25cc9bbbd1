"""What a figure depends on besides our code: the machine, the versions below us, how durable the servers are."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version

import psutil

from orchestration.store.pool import Database
from parallelizer.services.reach import open_redis
from tests.performance.stack import CONCURRENCY, BenchStack


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
        "worker": f"prefork -c {CONCURRENCY}",
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
