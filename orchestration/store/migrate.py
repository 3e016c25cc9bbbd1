"""Brings the schema of a database up to date; called by `up`, `migrate`, `doctor` and the tests.

Several processes may do it at once: one works, the others wait for it and find nothing left to do.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import psycopg2
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from orchestration.errors import ServiceUnreachable, SettingsError
from orchestration.store.pool import Database, connection_parameters, place_of
from orchestration.store.retention import ensure_partitions

if TYPE_CHECKING:
    from alembic.config import Config
    from alembic.script import ScriptDirectory

# Alembic is imported where it is used: every command of the CLI loads this module, few need it, and it takes 0.3 s.

#: Any number that nobody else takes in this database: "pz migrate" in ASCII, cut to 63 bits.
ADVISORY_LOCK = 0x707A206D69677261


def upgrade(database_url: str) -> tuple[str | None, str]:
    """The schema is the newest this version knows, and the next days have their partitions.

    Returns: revision before (None: an empty database) and after.
    Raises: ServiceUnreachable: no answer, or no right to create tables. SettingsError: the database was migrated by a
        newer version of this software.
    """
    with _connected(database_url) as connection:
        connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": ADVISORY_LOCK})
        connection.commit()
        try:
            before = _revision(connection)
            newest = head()
            if before is not None and before not in _known():
                raise SettingsError(
                    f"the database has schema revision {before}, and this version knows none beyond {newest}: "
                    "install the version that made it, or a newer one"
                )
            if before != newest:
                from alembic import command  # noqa: PLC0415

                config = _config()
                config.attributes["connection"] = connection
                command.upgrade(config, "head")
                connection.commit()
        finally:
            connection.rollback()
            connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": ADVISORY_LOCK})
            connection.commit()
    database = Database(database_url, pool_size=1, application_name="parallelizer migrate")
    try:
        ensure_partitions(database)
    finally:
        database.close()
    return before, newest


def current(database_url: str) -> str | None:
    """The revision of a database, None when it has no schema.

    Raises: ServiceUnreachable: no answer.
    """
    with _connected(database_url) as connection:
        return _revision(connection)


def head() -> str:
    """The newest revision that this version knows."""
    revision = _scripts().get_current_head()
    assert revision is not None
    return revision


def _known() -> set[str]:
    return {script.revision for script in _scripts().walk_revisions()}


def _scripts() -> ScriptDirectory:
    from alembic.script import ScriptDirectory  # noqa: PLC0415

    return ScriptDirectory.from_config(_config())


def _config() -> Config:
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", "orchestration.store:migrations")
    config.set_main_option("path_separator", "os")
    return config


def _revision(connection: Connection) -> str | None:
    from alembic.runtime.migration import MigrationContext  # noqa: PLC0415

    revision = MigrationContext.configure(connection).get_current_revision()
    connection.rollback()
    return revision


@contextmanager
def _connected(database_url: str) -> Iterator[Connection]:
    parameters = connection_parameters(database_url)
    engine = create_engine("postgresql+psycopg2://", creator=lambda: psycopg2.connect(**parameters), poolclass=NullPool)
    try:
        with engine.connect() as connection:
            yield connection
    except (DBAPIError, psycopg2.Error) as error:
        reason = str(getattr(error, "orig", error)).strip().partition("\n")[0]
        raise ServiceUnreachable(
            f"PostgreSQL at {place_of(parameters)} did not let us read or change its schema: {reason}; "
            "start it, correct DATABASE_URL, or use a role that may create tables"
        ) from None
    finally:
        engine.dispose()
