"""A door in front of a server: closing it cuts every connection and refuses new ones, until it is opened again."""

from __future__ import annotations

import contextlib
import socket
import threading
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit


class Gate:
    """Forwards TCP connections to a server while it is open; made open."""

    def __init__(self, url: str) -> None:
        #: The next data with this in it reaches the server, and its client is cut off before the answer.
        self.cut_behind: bytes | None = None
        self._parts = urlsplit(url)
        self._connections: list[socket.socket] = []
        self._listener: socket.socket | None = None
        self._lock = threading.Lock()
        self._port = 0
        self.open()

    @property
    def url(self) -> str:
        """The server's URL, through the gate."""
        account = self._parts.netloc.rpartition("@")[0]
        return self._parts._replace(netloc=f"{account}@127.0.0.1:{self._port}").geturl()

    def open(self) -> None:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self._port))
        listener.listen()
        self._port = listener.getsockname()[1]
        self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def close(self) -> None:
        with self._lock:
            listener, self._listener = self._listener, None
            if listener is not None:
                _end(listener)
            for connection in self._connections:
                _end(connection)
            self._connections.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                inside, _ = listener.accept()
            except OSError:
                return
            with self._lock:
                if self._listener is not listener:
                    _end(inside)
                    return
                outside = socket.create_connection((self._parts.hostname or "", self._parts.port or 0))
                self._connections += [inside, outside]
            for source, target in ((inside, outside), (outside, inside)):
                threading.Thread(target=self._pump, args=(source, target, source is inside), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket, is_from_client: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if is_from_client and self.cut_behind is not None and self.cut_behind in data:
                    self.cut_behind = None
                    _end(source)
                    target.sendall(data)
                    target.shutdown(socket.SHUT_WR)
                    return  # the server acts on it, and ends its side
                target.sendall(data)
        _end(source)
        _end(target)


def _end(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
