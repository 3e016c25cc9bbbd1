"""Whether Redis and PostgreSQL answer, and one sentence when they don't: which one, where, what to do.

Passwords never get into a message: only `host:port` and the name of the database are taken from a URL.
"""

from __future__ import annotations

from urllib.parse import urlsplit

import psycopg2
import redis

from orchestration.errors import ServiceUnreachable

#: Seconds to wait for an answer before a service counts as out of reach.
CONNECT_SECONDS = 5


def place_of(url: str) -> str:
    """Where a URL points, fit for a message: `host:port/database` or the socket's path."""
    parts = urlsplit(url)
    if parts.scheme == "unix" or not parts.hostname:
        return parts.path or "localhost"
    default = 6379 if parts.scheme.startswith("redis") else 5432
    return f"{parts.hostname}:{parts.port or default}{parts.path}"


def redis_answers(url: str) -> None:
    """Return when Redis answers and takes our password.

    Raises: ServiceUnreachable
    """
    try:
        with open_redis(url) as client:
            client.ping()
    except redis.AuthenticationError as error:
        raise ServiceUnreachable(
            f"Redis at {place_of(url)} refuses the user or password in REDIS_URL; correct REDIS_URL"
        ) from error
    except (redis.RedisError, OSError) as error:
        raise ServiceUnreachable(
            f"Redis at {place_of(url)} does not answer ({_first_line(error)}); "
            "start it or correct REDIS_URL (unset, `parallelizer up` starts a server of its own)"
        ) from error


def database_answers(url: str) -> None:
    """Return when PostgreSQL answers, takes our password and has the database.

    Raises: ServiceUnreachable
    """
    try:
        psycopg2.connect(url, connect_timeout=CONNECT_SECONDS).close()
    except psycopg2.OperationalError as error:
        raise ServiceUnreachable(
            f"PostgreSQL at {place_of(url)} does not answer ({_first_line(error)}); "
            "start it or correct DATABASE_URL (unset, `parallelizer up` starts a server of its own)"
        ) from error


def open_redis(url: str) -> redis.Redis:
    """A client that gives up after `CONNECT_SECONDS` and does not try again."""
    return redis.Redis.from_url(
        url, socket_timeout=CONNECT_SECONDS, socket_connect_timeout=CONNECT_SECONDS, retry=None, decode_responses=True
    )


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
