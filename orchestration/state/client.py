"""The Redis client of a process: one for each URL, made after the fork, patient with a server that restarts."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from orchestration.errors import ServiceUnreachable
from orchestration.state.patience import Keep, Patience

T = TypeVar("T")
RedisError = redis.exceptions.RedisError

_clients: dict[tuple[str, int, Patience], redis.Redis] = {}

#: Calls that were sent and not answered, for each thread.
MOST_DUE = 64
_BROKEN: Final = (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError, OSError)
#: What Redis answers when it can't do now what it could before: its memory is full, its disk is, it is a replica, it
#: runs a long script, or has lost its replicas.
_LATER_ERRORS: Final = (
    redis.exceptions.OutOfMemoryError, redis.exceptions.ReadOnlyError, redis.exceptions.TryAgainError,
    redis.exceptions.ClusterDownError, redis.exceptions.MasterDownError,
)  # fmt: skip
_LATER_WORDS: Final = ("OOM", "READONLY", "MISCONF", "BUSY ", "NOREPLICAS", "MASTERDOWN")


def is_away(error: Exception) -> bool:
    """Whether a call of Redis that raised this may succeed later as it is."""
    if isinstance(error, (*_BROKEN, *_LATER_ERRORS)):
        return True
    return isinstance(error, redis.exceptions.ResponseError) and str(error).startswith(_LATER_WORDS)


#: Every call is idempotent, so a lost reply is no reason to give up: about 20 s in all.
PATIENCE: Final = Patience(is_away)


class _ByPatience(Retry):
    """How the driver repeats a plain command."""

    def __init__(self, patience: Patience) -> None:
        super().__init__(NoBackoff(), 0)
        self._patience = patience

    def __deepcopy__(self, _memo: object) -> _ByPatience:
        return self  # it has no state

    def call_with_retry(
        self, do: Callable[[], T], fail: Callable[..., Any], is_retryable: Callable[[Exception], bool] | None = None,
        with_failure_count: bool = False,
    ) -> T:  # fmt: skip
        failures = 0

        def attempt() -> T:
            nonlocal failures
            try:
                return do()
            except _BROKEN as error:
                failures += 1
                if with_failure_count:
                    fail(error, failures)
                else:
                    fail(error)
                if is_retryable is not None and not is_retryable(error):
                    raise _Final(error) from error
                raise

        try:
            return self._patience.run(attempt)
        except _Final as final:
            raise final.error from None


class _Final(Exception):
    """An error that the driver does not want repeated."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


def connect(url: str, patience: Patience = PATIENCE) -> redis.Redis:
    """The client for `url` in this process; made at the first call."""
    key = (url, os.getpid(), patience)
    client = _clients.get(key)
    if client is None:
        client = _clients[key] = redis.Redis.from_url(
            url, socket_timeout=10, socket_connect_timeout=5, socket_keepalive=True, health_check_interval=30,
            retry=_ByPatience(patience),
        )  # fmt: skip
    return client


@dataclass(slots=True)
class _Sent:
    """A call whose reply has not been read."""

    sha: str
    source: str
    arguments: Sequence[str | bytes | int | float]
    answered: Callable[[Any], None]
    keep: Keep | None


class ScriptCaller:
    """Calls scripts over a connection of the calling thread's own, without the client's pool.

    Saves 25 of 75 µs a call (measured with redis-py 8.1). What goes wrong is repeated as long as `patience` has it:
    scripts are idempotent.

    `send` does not wait for the reply: the bytes are with the kernel when it returns, and of a process that is killed
    then at most the last calls are lost, which the server has not read (see engine/checkpoints.py); so the steps of a
    linear branch need not wait for a round trip each. Only the first call of a script on a connection waits: a server
    that does not know the script says so in the reply.

    `keep` of a call puts what it tells where it outlives this process; called when Redis does not take it.
    """

    def __init__(self, client: Any, patience: Patience = PATIENCE) -> None:
        self._client = client
        self._patience = patience
        self._own = threading.local()

    def call(
        self, sha: str, source: str, arguments: Sequence[str | bytes | int | float], keep: Keep | None = None
    ) -> Any:
        """Run a script and return its reply; what was sent before is answered first.

        Args: arguments: number of keys, keys, values.
        Raises: redis.exceptions.ResponseError: the script's own error.
        """
        if self._due:
            self.await_replies()
        try:
            return self._once(sha, source, arguments)
        except Exception as error:
            if not is_away(error):
                raise
        return self._patience.repeat(lambda: self._once(sha, source, arguments), keep)

    def send(
        self,
        sha: str,
        source: str,
        arguments: Sequence[str | bytes | int | float],
        answered: Callable[[Any], None],
        keep: Keep | None = None,
    ) -> None:
        """Send a call of a script; its reply is read later by this thread, before its next call at the latest.

        Args: answered: called with the reply, in the order of sending.
        """
        if sha not in self._known:
            answered(self.call(sha, source, arguments, keep))
            self._known.add(sha)
            return
        if len(self._due) >= MOST_DUE:
            self.await_replies()
        self._due.append(_Sent(sha, source, arguments, answered, keep))
        connection = self._connection()
        try:
            connection.send_command("EVALSHA", sha, *arguments, check_health=False)
        except _BROKEN:
            self._cut(connection)
            self._repeat_due()
        except BaseException:
            self._cut(connection)
            raise

    def await_replies(self) -> None:
        """Read the replies to all that this thread has sent.

        Raises: redis.exceptions.RedisError: a script's own error, or Redis stays away; what was sent is forgotten.
        """
        due, connection = self._due, self._connection()
        try:
            while due:
                reply = connection.read_response()
                due.popleft().answered(reply)
        except BaseException as error:
            self._cut(connection)
            if isinstance(error, redis.exceptions.NoScriptError) or (isinstance(error, Exception) and is_away(error)):
                self._repeat_due()
                return
            due.clear()
            raise

    def close(self) -> None:
        """Close this thread's connection; a later call makes it anew."""
        connection = getattr(self._own, "connection", None)
        if connection is not None:
            self._cut(connection)

    def _repeat_due(self) -> None:
        """Do again what may not have arrived."""
        due = self._due

        def keep_all() -> None:
            for sent in due:
                if sent.keep is not None:
                    sent.keep()

        def again() -> Any:
            return self._once(due[0].sha, due[0].source, due[0].arguments)

        try:
            while due:
                due[0].answered(self._patience.repeat(again, keep_all))
                due.popleft()
        finally:
            due.clear()

    @property
    def _due(self) -> deque[_Sent]:
        try:
            due: deque[_Sent] = self._own.due
        except AttributeError:
            due = self._own.due = deque()
        return due

    @property
    def _known(self) -> set[str]:
        """Scripts that the server is known to have since this thread's connection was made."""
        try:
            known: set[str] = self._own.known
        except AttributeError:
            known = self._own.known = set()
        return known

    def _cut(self, connection: Any) -> None:
        """Give the connection up; the next call makes it anew, to a server that may have restarted."""
        connection.disconnect()
        self._known.clear()

    def _connection(self) -> Any:
        connection = getattr(self._own, "connection", None)
        if connection is None:
            pool = self._client.connection_pool
            # not by the pool's own method, which counts: threads that come and go would use its maximum up
            connection = self._own.connection = pool.connection_class(
                **{**pool.connection_kwargs, "retry": Retry(NoBackoff(), 0)}
            )
        return connection

    def _once(self, sha: str, source: str, arguments: Sequence[str | bytes | int | float]) -> Any:
        """Run a script; after an error the connection is either in step, or cut."""
        connection = self._connection()
        try:
            connection.send_command("EVALSHA", sha, *arguments, check_health=False)
            try:
                return connection.read_response()
            except redis.exceptions.NoScriptError:  # the server has restarted, say
                connection.send_command("EVAL", source, *arguments, check_health=False)
                return connection.read_response()
        except redis.exceptions.ReadOnlyError:
            self._cut(connection)  # to meet the new primary
            raise
        except redis.exceptions.ResponseError:
            raise
        except BaseException:
            self._cut(connection)  # a time limit raised here: the reply to come is not the next call's
            raise


def check(url: str) -> None:
    """Return when Redis answers.

    Raises: ServiceUnreachable: it does not; the message says where and what to do.
    """
    try:
        redis.Redis.from_url(url, socket_timeout=3, socket_connect_timeout=3, retry=Retry(NoBackoff(), 0)).ping()
    except (redis.exceptions.RedisError, OSError) as error:
        raise ServiceUnreachable(
            f"Redis at {place(url)} does not answer ({error}); start it or correct REDIS_URL"
        ) from None


def place(url: str) -> str:
    """Host and port of a URL, or its path: what may be shown, without the password."""
    parts = urlsplit(url)
    return f"{parts.hostname}:{parts.port or 6379}" if parts.hostname else parts.path
