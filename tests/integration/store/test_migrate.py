"""The schema is brought up to date, by whoever and how often it is asked for."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from orchestration.errors import ServiceUnreachable, SettingsError
from orchestration.store import migrate
from orchestration.store.pool import Database


def test_an_empty_database_gets_the_newest_schema(empty_database_url: str) -> None:
    assert migrate.current(empty_database_url) is None
    assert migrate.upgrade(empty_database_url) == (None, migrate.head())
    assert migrate.current(empty_database_url) == migrate.head()
    assert migrate.upgrade(empty_database_url) == (migrate.head(), migrate.head())


def test_several_processes_may_migrate_at_once(empty_database_url: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        ended = list(pool.map(migrate.upgrade, [empty_database_url] * 4))
    assert sorted(ended, key=str) == sorted([(None, migrate.head())] + [(migrate.head(), migrate.head())] * 3, key=str)


def test_the_working_directory_does_not_matter(
    empty_database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    migrate.upgrade(empty_database_url)
    assert list(tmp_path.iterdir()) == []


def test_a_database_of_a_newer_version_is_left_alone(empty_database_url: str) -> None:
    migrate.upgrade(empty_database_url)
    Database(empty_database_url).execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(SettingsError, match="9999"):
        migrate.upgrade(empty_database_url)


def test_a_server_out_of_reach_is_named_without_the_password() -> None:
    with pytest.raises(ServiceUnreachable, match=r"127\.0\.0\.1:9") as caught:
        migrate.upgrade("postgresql://somebody:secret@127.0.0.1:9/database")
    assert "secret" not in str(caught.value)
