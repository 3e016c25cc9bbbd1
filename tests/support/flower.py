"""The real `celery -A tasks flower`, as a process of its own, and a client that is signed in or not."""

from __future__ import annotations

import base64
import json
import re
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from tornado.web import create_signed_value

from parallelizer.services.folder import log_tail
from parallelizer.services.supervision import LoggedProgram, stop_programs
from tests.support.fleet import Fleet
from tests.support.waiting import wait_until

START_SECONDS = 90.0
COOKIE_SECRET = "only-for-tests"
ANN, BOB = "ann@example.com", "bob@example.com"
#: How people sign in → what Flower is started with.
MODES: Mapping[str, Mapping[str, str]] = {
    "nobody": {},
    "basic": {"FLOWER_BASIC_AUTH": f"{ANN}:secret,{BOB}:secret"},
    "oauth": {"FLOWER_AUTH": f"{ANN}|{BOB}", "FLOWER_AUTH_PROVIDER": "flower.views.auth.GoogleLoginHandler"},
}


@dataclass
class RunningFlower:
    """A Flower that answers."""

    #: With the prefix, without a slash at the end.
    url: str
    mode: str
    program: LoggedProgram
    clients: list[httpx.Client] = field(default_factory=list)

    @property
    def log(self) -> str:
        return self.program.log.read_text()

    def credentials(self, user: str | None = ANN) -> dict[str, str]:
        """Headers of a user; None: of nobody."""
        if user is None or self.mode == "nobody":
            return {}
        if self.mode == "basic":
            return {"Authorization": "Basic " + base64.b64encode(f"{user}:secret".encode()).decode()}
        return {"Cookie": f"user={create_signed_value(COOKIE_SECRET, 'user', user).decode()}"}

    def client(self, user: str | None = ANN) -> httpx.Client:
        """A browser of this user, as far as headers and cookies go."""
        client = httpx.Client(base_url=self.url, trust_env=False, timeout=20)
        for name, value in self.credentials(user).items():
            if name == "Cookie":
                client.cookies.set("user", value.partition("=")[2])
            else:
                client.headers[name] = value
        self.clients.append(client)
        return client

    def token(self, client: httpx.Client) -> dict[str, str]:
        """The header with which a page proves that it is ours."""
        client.get("/flow")
        return {"X-XSRFToken": client.cookies.get("_xsrf") or ""}

    def first_event(self, client: httpx.Client, path: str, name: str, **query: Any) -> Any:
        """The first event of this name in a stream."""
        with client.stream("GET", path, params=query) as answer:
            assert answer.status_code == 200, answer.read()
            assert answer.headers["content-type"] == "text/event-stream"
            found = ""
            for line in answer.iter_lines():
                if line.startswith("event: "):
                    found = line[7:]
                elif line.startswith("data: ") and found == name:
                    return json.loads(line[6:])
        raise AssertionError(f"the stream {path} ended without the event {name}")


def flower_program(fleet: Fleet, *options: str, **environment: str) -> LoggedProgram:
    """Flower on a free port, which has not been started."""
    command = [sys.executable, "-m", "celery", "-A", "tasks", "flower", "--port=0", *options]
    every = {**fleet.environment, "FLOWER_COOKIE_SECRET": COOKIE_SECRET, "PYTHONUNBUFFERED": "1", **environment}
    number = len(list((fleet.folder / "log").glob("flower-*.log"))) + 1
    return LoggedProgram(f"flower-{number}", command, every, Path.cwd(), fleet.folder)


@contextmanager
def running_flower(
    fleet: Fleet, mode: str = "nobody", prefix: str = "", *options: str, **environment: str
) -> Iterator[RunningFlower]:
    """A Flower that answers, and ends with the block."""
    if prefix:
        options = (f"--url_prefix={prefix}", *options)
    program = flower_program(fleet, *options, **MODES[mode], **environment)
    program.start()
    running = RunningFlower("", mode, program)
    try:
        wait_until(
            lambda: program.has_exited() or "Visit me at" in running.log, "Flower says where it is", START_SECONDS
        )
        found = re.search(r"Visit me at (https?://[^/\s]+)", running.log)
        assert found is not None, log_tail(program.log, 60)
        running.url = found[1] + (f"/{prefix}" if prefix else "")
        yield running
    finally:
        for client in running.clients:
            client.close()
        stop_programs([program], 5.0, threading.Event(), lambda: None)
