"""Fixtures for `http.request`: a site, and names."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.http_calls import Names
from tests.support.web import Site, serve_site


@pytest.fixture
def site() -> Iterator[Site]:
    with serve_site() as served:
        yield served


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    return Names(monkeypatch)
