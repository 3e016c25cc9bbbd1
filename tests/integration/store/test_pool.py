"""Connections: shared by threads, never by processes, replaced when they were cut."""

from __future__ import annotations

import os
import threading
from contextlib import closing
from urllib.parse import urlsplit

import psycopg2
import pytest

from orchestration.errors import ServiceUnreachable, SettingsError
from orchestration.store import answers, pool
from orchestration.store.pool import Database
from tests.integration.store.gate import Gate
from tests.support.proxy import Proxy
from tests.support.servers import DatabaseServer


def test_a_transaction_is_committed_at_its_end(database: Database) -> None:
    with database.transaction() as cursor:
        cursor.execute("INSERT INTO workflows (name) VALUES ('committed')")
    assert database.fetch("SELECT count(*) FROM workflows WHERE name = 'committed'") == [(1,)]


def test_a_transaction_that_raises_leaves_nothing_and_its_connection_is_used_again(database: Database) -> None:
    def insert_and(statement: str) -> None:
        with database.transaction() as cursor:
            cursor.execute("INSERT INTO workflows (name) VALUES ('rolled back')")
            cursor.execute(statement)
            raise KeyError

    with pytest.raises(KeyError):
        insert_and("SELECT 1")
    with pytest.raises(psycopg2.errors.DivisionByZero):
        insert_and("SELECT 1 / 0")
    assert database.fetch("SELECT count(*) FROM workflows WHERE name = 'rolled back'") == [(0,)]


def test_connections_that_were_cut_while_idle_are_replaced_unnoticed(database_url: str) -> None:
    database = Database(database_url, pool_size=2)
    before = _backend(database)
    Database(database_url).execute("SELECT pg_terminate_backend(%s, 5000)", (before,))
    with database.transaction() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        assert cursor.fetchone() != (before,)
    Database(database_url).execute("SELECT pg_terminate_backend(%s, 5000)", (_backend(database),))
    assert database.execute("SELECT 1") == [(1,)]


def test_a_query_whose_connection_breaks_is_asked_again_but_a_change_is_not(database_url: str) -> None:
    database = Database(database_url, pool_size=1)
    suicide = "SELECT pg_terminate_backend(pg_backend_pid()) WHERE %s = pg_backend_pid()"
    assert database.fetch(suicide, (_backend(database),)) == []  # the second time, the process is another one
    with pytest.raises(ServiceUnreachable):
        database.execute(suicide, (_backend(database),))


def test_a_server_that_comes_back_is_found_again(database_url: str) -> None:
    with Gate(database_url) as gate:
        database = Database(gate.url)
        database.check()
        gate.close()
        with pytest.raises(ServiceUnreachable) as caught:
            database.check()
        host, port = urlsplit(gate.url).hostname, urlsplit(gate.url).port
        assert f"{host}:{port}" in str(caught.value)
        assert "DATABASE_URL" in str(caught.value)
        assert str(urlsplit(database_url).password) not in str(caught.value)
        gate.open()
        database.check()


def test_a_url_that_is_none_is_refused_without_being_repeated() -> None:
    with pytest.raises(SettingsError) as caught:
        Database("postgresql://user:se%cret@host/name")
    assert "cret" not in str(caught.value)


def test_a_wrong_password_is_told_as_such(database_url: str) -> None:
    wrong = database_url.replace(str(urlsplit(database_url).password), "not-the-password")
    with pytest.raises(ServiceUnreachable, match="password authentication failed") as caught:
        Database(wrong).check()
    assert "not-the-password" not in str(caught.value)


def test_a_database_without_schema_says_what_to_run(empty_database_url: str) -> None:
    with pytest.raises(ServiceUnreachable, match="parallelizer migrate"):
        Database(empty_database_url).fetch("SELECT * FROM tasks")


def test_a_statement_that_runs_too_long_is_ended(database_url: str) -> None:
    with pytest.raises(ServiceUnreachable, match="statement timeout"):
        Database(database_url, statement_timeout_seconds=0.05).execute("SELECT pg_sleep(10)")


def test_an_answer_that_never_comes_is_not_waited_for(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Something on the way loses it and keeps the connection open, so that no keepalive notices."""
    monkeypatch.setattr(answers, "BEYOND_SECONDS", 0.5)
    with (
        Proxy(database_url).running() as proxy,
        closing(Database(proxy.url, statement_timeout_seconds=0.5)) as database,
    ):
        database.check()
        proxy.go_silent()
        with pytest.raises(ServiceUnreachable, match="can't go on"):
            database.execute("SELECT 1")
        proxy.heal()
        database.check()


def test_after_a_fail_over_connections_to_the_old_primary_are_not_used_again(
    empty_database_url: str, database_server: DatabaseServer
) -> None:
    admin, database = Database(database_server.url_of("postgres")), Database(empty_database_url, pool_size=2)
    database.execute("CREATE TABLE seen (n int)")
    name = urlsplit(empty_database_url).path.removeprefix("/")
    admin.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
    admin.execute("SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = %s", (name,))
    for _ in range(2):
        with pytest.raises(ServiceUnreachable, match="read-only"):
            database.execute("INSERT INTO seen VALUES (1)")
        with pytest.raises(ServiceUnreachable, match="read-only"), database.transaction() as cursor:
            cursor.execute("INSERT INTO seen VALUES (1)")
    admin.execute(f'ALTER DATABASE "{name}" RESET default_transaction_read_only')
    database.execute("INSERT INTO seen VALUES (2)")
    with database.transaction() as cursor:
        cursor.execute("INSERT INTO seen VALUES (3)")
    assert database.fetch("SELECT n FROM seen ORDER BY n") == [(2,), (3,)]
    database.close()
    admin.close()


def test_no_more_connections_than_allowed_are_made(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "CHECKOUT_SECONDS", 0.01)
    database = Database(database_url, pool_size=1)
    with database.transaction(), pytest.raises(ServiceUnreachable, match="DATABASE_POOL_SIZE"):
        database.check()
    database.check()


def test_threads_share_a_pool(database_url: str) -> None:
    database = Database(database_url, pool_size=3)
    seen: list[object] = []

    def ask() -> None:
        for number in range(50):
            with database.transaction() as cursor:
                cursor.execute("SELECT pg_backend_pid(), %s", (number,))
                seen.append(cursor.fetchone())

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 400
    assert len({row[0] for row in seen if isinstance(row, tuple)}) <= 3


def test_a_forked_child_has_connections_of_its_own_and_leaves_its_parents_alone(database_url: str) -> None:
    database = Database(database_url, pool_size=1)
    ours = _backend(database)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writer, str(_backend(database)).encode())
            database.close()
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert int(os.read(reader, 20)) != ours
    assert _backend(database) == ours
    os.close(reader)
    os.close(writer)


def test_a_stream_gives_all_rows_in_batches(database: Database) -> None:
    with database.stream("SELECT n FROM generate_series(1, 1000) AS n", rows_at_once=99) as rows:
        assert [row[0] for row in rows] == list(range(1, 1001))


def _backend(database: Database) -> int:
    return int(database.execute("SELECT pg_backend_pid()")[0][0])
