"""Calls of `http.request` as the engine makes them, and a name service that a test answers for."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from typing import Any

import pytest

from orchestration.engine.invoke import CallContext
from parallelizer.actions.http import request

LOOPBACK = ("127.0.0.0/8",)


def context(networks: tuple[str, ...] = LOOPBACK) -> CallContext:
    """What the action finds in `ctx`."""
    logger = logging.LoggerAdapter(logging.getLogger("test"), {})
    return CallContext("session", "workflow", "a", None, 1, "session/a", logger, {"http_allowed_networks": networks})


def call(url: str, networks: tuple[str, ...] = LOOPBACK, **inputs: Any) -> dict[str, Any]:
    """An event loop for each call."""
    return asyncio.run(request(context(networks), url, **inputs))


def open_visits() -> int:
    """Connections that servers of this process still have: a thread each."""
    return sum("process_request_thread" in thread.name for thread in threading.enumerate())


class Names:
    """Answers look-ups of names from a list, one answer after another, and counts them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.answers: dict[str, list[list[str]]] = {}
        self.lookups: list[str] = []
        self._ask = socket.getaddrinfo
        monkeypatch.setattr(socket, "getaddrinfo", self._answer)

    def _answer(self, host: Any, port: Any, *args: Any, **options: Any) -> list[Any]:
        name = host.decode() if isinstance(host, bytes) else host
        self.lookups.append(name)
        if name not in self.answers:
            return self._ask(host, port, *args, **options)
        answers = self.answers[name]
        addresses = answers.pop(0) if len(answers) > 1 else answers[0]
        return [info for address in addresses for info in self._ask(address, port, type=socket.SOCK_STREAM)]
