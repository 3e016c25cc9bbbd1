"""Ends statements whose answer does not come: whatever lost it, such as a proxy, may keep the connection open for ever.

PostgreSQL's own limit needs a server that has heard of the statement, and keepalives are answered by whoever is
nearest. The driver waits without any limit, so a thread of this process closes the socket under it: the statement then
fails as with any lost connection. (On gevent that thread waits with the driver.)
"""

from __future__ import annotations

import os
import socket
import threading
import time
from typing import Any, Final

import psycopg2.extensions

#: An answer may be late by this much beyond PostgreSQL's own limit, seconds.
BEYOND_SECONDS: Final = 5.0
LOOK_SECONDS: Final = 1.0


class _Watch:
    """The statements that run in this process."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Nothing runs; also in a forked child, where nobody else does what a parent's threads did."""
        #: When the answer is overdue, and the socket's number, by cursor.
        self._running: dict[int, tuple[float, int]] = {}
        self._lock = threading.Lock()
        self._is_wanted = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self, key: int, seconds: float, file_number: int) -> None:
        """The answer is overdue in so many seconds."""
        self._running[key] = time.monotonic() + seconds, file_number
        if not self._is_wanted.is_set():
            with self._lock:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._look, name="answers", daemon=True)
                    self._thread.start()
            self._is_wanted.set()

    def end(self, key: int) -> None:
        """It has come, or will not."""
        with self._lock:  # the socket is still that of this statement while it is closed
            del self._running[key]

    def _look(self) -> None:
        while True:
            self._is_wanted.wait()
            time.sleep(LOOK_SECONDS)
            with self._lock:
                now = time.monotonic()
                for due, file_number in self._running.values():
                    if due <= now:
                        _close(file_number)
            if not self._running:
                self._is_wanted.clear()
                if self._running:  # one began just now
                    self._is_wanted.set()


def _close(file_number: int) -> None:
    try:
        with socket.socket(fileno=os.dup(file_number)) as connection:
            connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # closed already


_watch = _Watch()
os.register_at_fork(after_in_child=_watch.reset)


def watched_cursor(seconds: float) -> type[psycopg2.extensions.cursor]:
    """A cursor whose statements fail when no answer has come `BEYOND_SECONDS` after PostgreSQL's limit of `seconds`."""
    most = seconds + BEYOND_SECONDS

    class WatchedCursor(psycopg2.extensions.cursor):
        def execute(self, query: Any, vars: Any = None) -> None:  # noqa: A002 - the driver's name
            _watch.begin(id(self), most, self.connection.fileno())
            try:
                super().execute(query, vars)
            finally:
                _watch.end(id(self))

    return WatchedCursor
