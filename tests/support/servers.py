"""Fixtures: one real Redis and one real PostgreSQL for the test session, a fresh migrated database for each module."""

from __future__ import annotations

import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import psycopg2
import pytest

from parallelizer.services.folder import prepare_folder
from parallelizer.services.postgres import EmbeddedPostgres
from parallelizer.services.valkey import EmbeddedValkey

TEMPLATE = "migrated"


@dataclass(frozen=True)
class DatabaseServer:
    """A PostgreSQL server of this test session; its databases are made and dropped by name."""

    server: EmbeddedPostgres

    def url_of(self, name: str) -> str:
        return self.server.url_of(name)

    def create(self, name: str, template: str = "template1") -> str:
        """Make a database and return its URL."""
        self._execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        return self.url_of(name)

    def drop(self, name: str) -> None:
        """Drop a database, cutting its connections."""
        self._execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def _execute(self, statement: str) -> None:
        with closing(psycopg2.connect(self.url_of("postgres"))) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(statement)


@pytest.fixture(scope="session", autouse=True)
def no_folders_left(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """For root, a stack in a temporary folder of pytest's (mode 0700) keeps PostgreSQL's data elsewhere."""
    yield
    for record in tmp_path_factory.getbasetemp().rglob("*.location"):
        shutil.rmtree(record.read_text().strip(), ignore_errors=True)


@pytest.fixture(scope="session")
def service_folder() -> Iterator[Path]:
    """A data folder that any user can reach (pytest's own is closed to the user that PostgreSQL runs as for root)."""
    folder = Path(tempfile.mkdtemp(prefix="parallelizer-tests-"))
    folder.chmod(0o711)
    yield prepare_folder(folder / "data")
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def redis_url(service_folder: Path) -> Iterator[str]:
    """A fresh Redis-compatible server for the session; tests stay apart by `namespace`."""
    server = EmbeddedValkey(service_folder)
    server.start()
    try:
        server.wait_ready()
        yield server.url
    finally:
        server.stop()


@pytest.fixture(scope="session")
def database_server(service_folder: Path) -> Iterator[DatabaseServer]:
    """A fresh PostgreSQL for the session, without any table."""
    server = EmbeddedPostgres(service_folder, durable=False)
    server.start()
    try:
        server.wait_ready()
        yield DatabaseServer(server)
    finally:
        server.stop()


@pytest.fixture(scope="session")
def migrated_template(database_server: DatabaseServer) -> str:
    """Name of a database with the newest schema; copying it is quicker than migrating."""
    from orchestration.store import migrate  # noqa: PLC0415 - unit tests load these fixtures without a database

    migrate.upgrade(database_server.create(TEMPLATE))
    return TEMPLATE


@pytest.fixture(scope="module")
def database_url(database_server: DatabaseServer, migrated_template: str) -> Iterator[str]:
    """A database with the newest schema and no rows, for this module alone."""
    name = f"m_{uuid.uuid4().hex[:12]}"
    yield database_server.create(name, migrated_template)
    database_server.drop(name)


@pytest.fixture
def empty_database_url(database_server: DatabaseServer) -> Iterator[str]:
    """A database without any table, for this test alone."""
    name = f"e_{uuid.uuid4().hex[:12]}"
    yield database_server.create(name)
    database_server.drop(name)


@pytest.fixture
def namespace() -> str:
    """A prefix for Redis keys that no other test uses."""
    return f"t{uuid.uuid4().hex[:12]}"
