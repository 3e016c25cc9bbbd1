"""Live state of a namespace of its own, whose connections are closed when the test ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from orchestration.state.live import LiveState


@pytest.fixture
def live(redis_url: str, namespace: str) -> Iterator[LiveState]:
    with closing(LiveState(redis_url, namespace)) as state:
        yield state
