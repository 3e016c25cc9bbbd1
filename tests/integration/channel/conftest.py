from __future__ import annotations

from collections.abc import Iterator

import pytest

from orchestration.state.stream import StatusStream
from orchestration.store.pool import Database


@pytest.fixture(scope="module")
def database(database_url: str) -> Iterator[Database]:
    """A migrated database for this module."""
    database = Database(database_url)
    yield database
    database.close()


@pytest.fixture
def stream(redis_url: str, namespace: str) -> Iterator[StatusStream]:
    """An empty status stream."""
    stream = StatusStream(redis_url, namespace)
    yield stream
    stream.close()
