"""An engine whose steps a test takes one by one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.stepping import SteppingEngine


@pytest.fixture
def engine(redis_url: str, database_url: str, namespace: str) -> Iterator[SteppingEngine]:
    stepping = SteppingEngine(redis_url, database_url, namespace)
    yield stepping
    stepping.close()
