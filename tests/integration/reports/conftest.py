from __future__ import annotations

from collections.abc import Iterator

import pytest

from orchestration.store.pool import Database


@pytest.fixture(scope="module")
def database(database_url: str) -> Iterator[Database]:
    """A migrated database for this module."""
    database = Database(database_url)
    yield database
    database.close()
