"""Flower in each way in which people sign in, with and without a prefix; no worker runs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.fleet import Fleet
from tests.support.flower import RunningFlower, running_flower


@pytest.fixture(
    scope="module",
    params=[
        ("nobody", ""),
        ("nobody", "monitor"),
        ("basic", ""),
        ("basic", "monitor"),
        ("oauth", ""),
        ("oauth", "monitor"),
    ],
    ids=lambda param: "-".join(filter(None, param)),
)
def flower(request: pytest.FixtureRequest, module_fleet: Fleet) -> Iterator[RunningFlower]:
    """A Flower of each kind."""
    mode, prefix = request.param
    # what Flower does for those who ask for its API without authentication must not open ours
    with running_flower(module_fleet, mode, prefix, FLOWER_UNAUTHENTICATED_API="true") as running:
        yield running
