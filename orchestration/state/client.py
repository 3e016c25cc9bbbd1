"""The Redis client of a process: one for each URL, made after the fork, patient with a server that restarts."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

import redis
from redis.backoff import ExponentialWithJitterBackoff, NoBackoff
from redis.retry import Retry

from orchestration.errors import ServiceUnreachable

RedisError = redis.exceptions.RedisError

_clients: dict[tuple[str, int], redis.Redis] = {}

#: Calls that were sent and not answered, for each thread.
MOST_DUE = 64
_BROKEN: Final = (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError, OSError)
#: Every call is idempotent, so a lost reply is no reason to give up: about 20 s in all.
_RETRIES, _FIRST_WAIT_SECONDS, _LONGEST_WAIT_SECONDS = 14, 0.05, 2.0


def connect(url: str) -> redis.Redis:
    """The client for `url` in this process; made at the first call."""
    key = (url, os.getpid())
    client = _clients.get(key)
    if client is None:
        retry = Retry(ExponentialWithJitterBackoff(base=_FIRST_WAIT_SECONDS, cap=_LONGEST_WAIT_SECONDS), _RETRIES)
        client = _clients[key] = redis.Redis.from_url(
            url, socket_timeout=10, socket_connect_timeout=5, socket_keepalive=True, health_check_interval=30,
            retry=retry,
            retry_on_error=[redis.exceptions.ConnectionError, redis.exceptions.TimeoutError,
                            redis.exceptions.BusyLoadingError],
        )  # fmt: skip
    return client


@dataclass(slots=True)
class _Sent:
    """A call whose reply has not been read."""

    sha: str
    source: str
    arguments: Sequence[str | bytes | int | float]
    answered: Callable[[Any], None]


class ScriptCaller:
    """Calls scripts over a connection of the calling thread's own, without the client's pool.

    Saves 25 of 75 µs a call (measured with redis-py 8.1). What goes wrong on that connection is done again through the
    client, which retries: scripts are idempotent.

    `send` does not wait for the reply: the bytes are with the kernel when it returns, and of a process that is killed
    then at most the last calls are lost, which the server has not read (see engine/checkpoints.py); so the steps of a
    linear branch need not wait for a round trip each. Only the first call of a script on a connection waits: a server
    that does not know the script says so in the reply.
    """

    def __init__(self, client: Any) -> None:
        self._client = client
        self._own = threading.local()

    def call(self, sha: str, source: str, arguments: Sequence[str | bytes | int | float]) -> Any:
        """Run a script and return its reply; what was sent before is answered first.

        Args: arguments: number of keys, keys, values.
        Raises: redis.exceptions.ResponseError: the script's own error.
        """
        if self._due:
            self.await_replies()
        connection = self._connection()
        try:
            connection.send_command("EVALSHA", sha, *arguments, check_health=False)
            return connection.read_response()
        except redis.exceptions.NoScriptError:
            return self._client.execute_command("EVAL", source, *arguments)
        except redis.exceptions.ResponseError:
            raise
        except _BROKEN:
            self._cut(connection)
            return self._again(sha, source, arguments)
        except BaseException:
            self._cut(connection)  # a time limit raised here: the reply to come is not the next call's
            raise

    def send(
        self,
        sha: str,
        source: str,
        arguments: Sequence[str | bytes | int | float],
        answered: Callable[[Any], None],
    ) -> None:
        """Send a call of a script; its reply is read later by this thread, before its next call at the latest.

        Args: answered: called with the reply, in the order of sending.
        """
        if sha not in self._known:
            answered(self.call(sha, source, arguments))
            self._known.add(sha)
            return
        if len(self._due) >= MOST_DUE:
            self.await_replies()
        self._due.append(_Sent(sha, source, arguments, answered))
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
                try:
                    reply = connection.read_response()
                except redis.exceptions.NoScriptError:
                    reply = self._client.execute_command("EVAL", due[0].source, *due[0].arguments)
                due.popleft().answered(reply)
        except _BROKEN:
            self._cut(connection)
            self._repeat_due()
        except BaseException:
            self._cut(connection)
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
        try:
            while due:
                sent = due[0]
                sent.answered(self._again(sent.sha, sent.source, sent.arguments))
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
            connection = self._own.connection = pool.connection_class(**pool.connection_kwargs)
        return connection

    def _again(self, sha: str, source: str, arguments: Sequence[str | bytes | int | float]) -> Any:
        try:
            return self._client.execute_command("EVALSHA", sha, *arguments)
        except redis.exceptions.NoScriptError:  # the server restarted and has forgotten it
            return self._client.execute_command("EVAL", source, *arguments)


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
