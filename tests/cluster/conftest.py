"""Each module of cluster tests has a database of Redis to itself: messages of killed workers don't reach its own."""

from __future__ import annotations

import itertools
from contextlib import closing
from urllib.parse import urlsplit

import pytest
import redis

#: Redis has 16 databases, of which the first is everybody's.
_numbers = itertools.cycle(range(1, 16))


@pytest.fixture(scope="module")
def redis_url(redis_url: str) -> str:
    """An empty database of the session's server, for this module alone."""
    own = urlsplit(redis_url)._replace(path=f"/{next(_numbers)}").geturl()
    with closing(redis.Redis.from_url(own)) as client:
        client.flushdb()
    return own
