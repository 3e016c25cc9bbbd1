"""The servers that every other test stands on."""

from __future__ import annotations

from contextlib import closing

import psycopg2
import redis


def test_redis_keeps_everything_and_evicts_nothing(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        assert client.config_get("appendonly") == {"appendonly": "yes"}


def test_postgres_speaks_utf8_and_utc(empty_database_url: str) -> None:
    with closing(psycopg2.connect(empty_database_url)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT current_setting('server_encoding'), current_setting('TimeZone'), datcollate"
                       " FROM pg_database WHERE datname = current_database()")  # fmt: skip
        assert cursor.fetchone() == ("UTF8", "UTC", "C")


def test_a_database_for_a_module_is_migrated(database_url: str) -> None:
    with closing(psycopg2.connect(database_url)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM alembic_version")
        assert cursor.fetchone() == (1,)
