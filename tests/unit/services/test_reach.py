"""Where a URL points, in words that never hold a password."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest

from orchestration.errors import ServiceUnreachable
from parallelizer.services.reach import database_answers, place_of, redis_answers


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("redis://:secret@10.0.0.1:7000/3", "10.0.0.1:7000/3"),
        ("rediss://user:secret@cache.example", "cache.example:6379"),
        ("unix://:secret@/run/redis.sock", "/run/redis.sock"),
        ("postgresql://me:secret@db.example/app", "db.example:5432/app"),
        ("postgres://me:s%40cret@[::1]:5433/app", "::1:5433/app"),
    ],
)
def test_a_place_names_host_port_and_database(url: str, place: str) -> None:
    assert place_of(url) == place


@pytest.mark.parametrize(
    ("check", "url", "variable"),
    [
        (redis_answers, "redis://:secret@127.0.0.1:{port}/0", "REDIS_URL"),
        (database_answers, "postgresql://me:secret@127.0.0.1:{port}/app", "DATABASE_URL"),
    ],
)
def test_a_service_out_of_reach_is_one_sentence_with_place_and_remedy(
    check: Callable[[str], None], url: str, variable: str
) -> None:
    with socket.socket() as silent:  # bound but not listening: nobody else can answer there
        silent.bind(("127.0.0.1", 0))
        port = silent.getsockname()[1]
        with pytest.raises(ServiceUnreachable) as caught:
            check(url.format(port=port))
    message = str(caught.value)
    assert f"127.0.0.1:{port}" in message
    assert variable in message
    assert "secret" not in message
    assert "\n" not in message
