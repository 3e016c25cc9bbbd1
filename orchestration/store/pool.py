"""One pool of PostgreSQL connections per process: made at the first use, forgotten by forked children.

Everything in `store` goes through a `Database`. Connections are in autocommit mode, so a single statement is one round
trip; `transaction` says BEGIN itself. A connection that was cut while it lay idle is noticed before anything is sent
on it, and replaced once.
"""

from __future__ import annotations

import os
import select
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import date
from typing import Any, Protocol, TypeVar

import psycopg2
import psycopg2.extensions
import psycopg2.extras
from sqlalchemy.exc import TimeoutError as NoConnectionFree
from sqlalchemy.pool import PoolProxiedConnection, QueuePool

from orchestration.errors import ServiceUnreachable, SettingsError
from orchestration.store import json_text
from orchestration.store.answers import watched_cursor

Parameters = Sequence[Any] | Mapping[str, Any] | None
Row = tuple[Any, ...]
#: A flow session's day, the partition key: a date, or its ISO text.
Day = date | str
Connection = psycopg2.extensions.connection
T = TypeVar("T")

CONNECT_SECONDS = 5
#: Waits for a free connection of the pool; longer than any statement should take.
CHECKOUT_SECONDS = 30.0
#: Notices a host that is gone without a word within about 25 s.
KEEPALIVE = {
    "keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 25_000,
}  # fmt: skip
#: SQLSTATE classes after which the same statement may succeed: connection, transaction rollback (deadlock),
#: insufficient resources, operator intervention (shutdown, statement timeout), system error.
TEMPORARY_CLASSES = frozenset({"08", "40", "53", "57", "58"})
#: Lock not available; read-only transaction (a standby, or a fail-over under way).
TEMPORARY_CODES = frozenset({"55P03", "25006"})
#: Of a server that only reads: after a fail-over the primary is another one, or this one in a moment.
READ_ONLY_CODE = "25006"
#: Undefined table, column, function.
SCHEMA_CODES = frozenset({"42P01", "42703", "42883"})


class Cursor(Protocol):
    """What `transaction` hands out: the driver's cursor, as far as the store uses it."""

    @property
    def rowcount(self) -> int: ...
    def execute(self, query: str, vars: Any = None) -> None: ...  # noqa: A002 - the driver's name
    def fetchone(self) -> Row | None: ...
    def fetchall(self) -> list[Row]: ...
    def __iter__(self) -> Iterator[Row]: ...


class Database:
    """PostgreSQL, as one process sees it; safe for threads, and for forks at any moment.

    Args: url: as in DATABASE_URL. pool_size: most connections of this process. statement_timeout_seconds: PostgreSQL
        ends a statement that runs longer; one whose answer is later still is given up (answers.py).
        application_name: shown by `pg_stat_activity`. counts: METRICS_ENABLED.
    Raises: SettingsError: the URL can't be understood.
    """

    def __init__(
        self,
        url: str,
        pool_size: int = 4,
        statement_timeout_seconds: float = 60.0,
        application_name: str = "parallelizer",
        *,
        counts: bool = True,
    ) -> None:
        #: What ends is counted for metrics (totals.py), with the rows that are written here.
        self.counts = counts
        self._parameters = connection_parameters(url)
        options = self._parameters.get("options", "")
        self._parameters["options"] = (
            f"{options} -c statement_timeout={round(statement_timeout_seconds * 1000)} -c timezone=UTC".strip()
        )
        self._parameters.setdefault("application_name", application_name)
        self._cursor = watched_cursor(statement_timeout_seconds)
        self._pool_size = pool_size
        self._pool: QueuePool | None = None
        self._lock = threading.Lock()
        _databases.add(self)

    @property
    def place(self) -> str:
        """Host, port and database: what may be shown, without the password."""
        return place_of(self._parameters)

    def check(self) -> None:
        """Return when PostgreSQL answers.

        Raises: ServiceUnreachable: it does not; the message says where and what to do.
        """
        self.fetch("SELECT 1")

    @contextmanager
    def transaction(self) -> Iterator[Cursor]:
        """A cursor in a transaction: committed at the end, rolled back when the block raises.

        Raises: ServiceUnreachable: PostgreSQL is out of reach, or can't go on for a passing reason; the transaction
            was rolled back, unless the connection broke during the commit itself.
        """
        proxied, connection = self._begin()
        try:
            with connection.cursor() as cursor:
                yield cursor
                cursor.execute("COMMIT")
        except BaseException as error:
            self._abandon(proxied, connection)
            if isinstance(error, psycopg2.Error):
                self._leave_standby(proxied, error)
                raise self._explained(error) from error
            raise
        finally:
            proxied.close()

    def execute(self, statement: str, parameters: Parameters = None) -> list[Row]:
        """Run one statement, committed when this returns, in one round trip (0.15 ms measured).

        Returns: its rows, none for a statement without.
        Raises: ServiceUnreachable: see `transaction`; whether the statement took effect is not known if the
            connection broke while it ran.
        """
        return self._single(lambda cursor: _run(cursor, statement, parameters), attempts=1)

    def fetch(self, query: str, parameters: Parameters = None) -> list[Row]:
        """Like `execute`, for a query that changes nothing: repeated once if the connection breaks while it runs."""
        return self._single(lambda cursor: _run(cursor, query, parameters), attempts=2)

    @contextmanager
    def stream(self, query: str, parameters: Parameters = None, rows_at_once: int = 2000) -> Iterator[Iterator[Row]]:
        """The rows of a query, a batch at a time through a cursor in the server: memory does not grow with them."""
        with self.transaction() as cursor:
            cursor.execute(f"DECLARE rows NO SCROLL CURSOR FOR {query}", parameters)
            yield _batches(cursor, rows_at_once)

    def close(self) -> None:
        """Idle connections are closed; the next use makes a new pool."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.dispose()

    def _single(self, run: Callable[[Cursor], T], attempts: int) -> T:
        while True:
            attempts -= 1
            proxied, connection = self._checkout()
            try:
                with connection.cursor() as cursor:
                    return run(cursor)
            except BaseException as error:
                lost = connection.closed != 0
                self._abandon(proxied, connection)
                if isinstance(error, psycopg2.Error):
                    if lost and attempts:
                        continue
                    self._leave_standby(proxied, error)
                    raise self._explained(error) from error
                raise
            finally:
                proxied.close()

    def _begin(self) -> tuple[PoolProxiedConnection, Connection]:
        """A connection in a transaction; BEGIN is also the proof that it is alive."""
        proxied, connection = self._checkout()
        try:
            _begin(connection)
        except psycopg2.Error:
            proxied.invalidate()
            self.close()  # the others have most likely met the same end
            proxied, connection = self._checkout()
            try:
                _begin(connection)
            except psycopg2.Error as error:
                proxied.invalidate()
                raise self._explained(error) from error
        return proxied, connection

    def _checkout(self) -> tuple[PoolProxiedConnection, Connection]:
        """A connection that, as far as our side of the socket knows, is alive."""
        while True:
            try:
                proxied = self._current_pool().connect()
            except psycopg2.Error as error:
                raise ServiceUnreachable(
                    f"PostgreSQL at {self.place} can't be reached: {_reason(error)}; start it, or correct DATABASE_URL"
                ) from None
            except NoConnectionFree:
                raise ServiceUnreachable(
                    f"all {self._pool_size} connections of this process to PostgreSQL at {self.place} have been in use "
                    f"for {CHECKOUT_SECONDS:.0f} s; raise DATABASE_POOL_SIZE, or find the statement that blocks"
                ) from None
            connection: Connection = proxied.dbapi_connection  # type: ignore[assignment]
            if _is_alive(connection):
                return proxied, connection
            proxied.invalidate()

    def _current_pool(self) -> QueuePool:
        pool = self._pool
        if pool is None:
            with self._lock:
                pool = self._pool
                if pool is None:
                    pool = self._pool = QueuePool(
                        self._connect, pool_size=self._pool_size, max_overflow=0, timeout=CHECKOUT_SECONDS,
                        use_lifo=True, reset_on_return=None,
                    )  # fmt: skip
        return pool

    def _connect(self) -> Any:
        connection = psycopg2.connect(**self._parameters, cursor_factory=self._cursor)
        connection.autocommit = True
        psycopg2.extras.register_default_json(connection, loads=json_text.load)
        return connection

    def _abandon(self, proxied: PoolProxiedConnection, connection: Connection) -> None:
        """Leave no transaction behind: roll back, or drop the connection if that can't be done."""
        status = connection.info.transaction_status if not connection.closed else None
        if status == psycopg2.extensions.TRANSACTION_STATUS_IDLE:
            return
        if status in (psycopg2.extensions.TRANSACTION_STATUS_INTRANS, psycopg2.extensions.TRANSACTION_STATUS_INERROR):
            with suppress(psycopg2.Error), connection.cursor() as cursor:
                cursor.execute("ROLLBACK")
                return
        proxied.invalidate()

    def _leave_standby(self, proxied: PoolProxiedConnection, error: psycopg2.Error) -> None:
        """A session stays read-only for as long as it lives: the next call makes connections anew, to the primary."""
        if error.pgcode == READ_ONLY_CODE:
            proxied.invalidate()
            self.close()

    def _explained(self, error: psycopg2.Error) -> Exception:
        code = error.pgcode or ""
        if code in SCHEMA_CODES:
            return ServiceUnreachable(
                f"the schema of PostgreSQL at {self.place} is missing or not this version's ({_reason(error)}); "
                "run: parallelizer migrate"
            )
        # The driver's errors without a code are those of a broken connection.
        passing = not code and isinstance(error, psycopg2.OperationalError | psycopg2.InterfaceError)
        if passing or code[:2] in TEMPORARY_CLASSES or code in TEMPORARY_CODES:
            return ServiceUnreachable(
                f"PostgreSQL at {self.place} can't go on: {_reason(error)}; see whether it is up, then try again"
            )
        return error

    def _forget(self) -> None:
        """In a forked child: its parent's connections stay the parent's (the driver closes none made before a fork)."""
        self._pool = None
        self._lock = threading.Lock()


_databases: weakref.WeakSet[Database] = weakref.WeakSet()


def _forget_connections_of_parent() -> None:
    for database in list(_databases):
        database._forget()  # noqa: SLF001 - same module


os.register_at_fork(after_in_child=_forget_connections_of_parent)


def connection_parameters(url: str) -> dict[str, Any]:
    """The driver's parameters for a URL, with our time limits where the URL has none of its own.

    Raises: SettingsError: the URL can't be understood; the message does not repeat it.
    """
    try:
        given: dict[str, Any] = dict(psycopg2.extensions.parse_dsn(url))
    except psycopg2.ProgrammingError:
        raise SettingsError(
            "DATABASE_URL can't be understood; expected postgresql://user:password@host:port/database, "
            "with special characters percent-encoded"
        ) from None
    return {"connect_timeout": CONNECT_SECONDS, "client_encoding": "utf8", **KEEPALIVE, **given}


def place_of(parameters: Mapping[str, Any]) -> str:
    """Host, port and database of the driver's parameters."""
    host = parameters.get("host") or os.environ.get("PGHOST") or "the local socket"
    port = parameters.get("port") or os.environ.get("PGPORT") or "5432"
    name = parameters.get("dbname")
    return f"{host}:{port}" + (f" (database {name})" if name else "")


def _is_alive(connection: Connection) -> bool:
    """False when the server has closed its end: an idle connection has nothing to read but that."""
    if connection.closed:
        return False
    poller = select.poll()
    poller.register(connection.fileno(), select.POLLIN)
    for _ in range(3):
        if not poller.poll(0):
            return True
        # A notice or a parameter's change may wait there too: read it, then look again.
        try:
            connection.poll()
        except psycopg2.Error:
            return False
    return False


def _begin(connection: Connection) -> None:
    with connection.cursor() as cursor:
        cursor.execute("BEGIN")


def _run(cursor: Cursor, statement: str, parameters: Parameters) -> list[Row]:
    cursor.execute(statement, parameters)
    return cursor.fetchall() if cursor.description is not None else []  # type: ignore[attr-defined]


def _batches(cursor: Cursor, rows_at_once: int) -> Iterator[Row]:
    while True:
        cursor.execute(f"FETCH {rows_at_once} FROM rows")
        batch = cursor.fetchall()
        yield from batch
        if len(batch) < rows_at_once:
            return


def _reason(error: psycopg2.Error) -> str:
    """The first line of what PostgreSQL said."""
    text = str(error).strip()
    return text.partition("\n")[0] if text else type(error).__name__
