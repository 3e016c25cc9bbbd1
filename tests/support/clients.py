"""Client processes: other programs than the test and the workers, that send workflows and read their results."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.fleet import Fleet
from tests.support.skewed_clock import SkewedClock

LOOP = Path(__file__).with_name("client_loop.py")
#: What every client has: `app`, and signatures of `run_workflow`: `send` as by `.si()`, `follow` as by `.s()`.
OURS = """
from celery import chain, chord, group
from celery.result import AsyncResult
from tasks import app, run_workflow
send, follow = run_workflow.si, run_workflow.s
"""
BARE = """
import os
import celery
from celery import chain, chord, group
from celery.result import AsyncResult
app = celery.Celery("elsewhere", broker=os.environ["REDIS_URL"], backend=os.environ["REDIS_URL"], set_as_current=True)
app.conf.update(task_default_queue="branches", result_accept_content=["json"])
def send(*args, **kwargs): return app.signature("tasks.run_workflow", args, kwargs, immutable=True)
def follow(*args, **kwargs): return app.signature("tasks.run_workflow", args, kwargs)
"""


class RaisedInClient(Exception):
    """What a client's code raised, told by name: the class itself may exist there only."""

    def __init__(self, module: str, kind: str, message: str) -> None:
        super().__init__(f"{module}.{kind}: {message}")
        self.module = module
        self.kind = kind
        self.message = message


class Client:
    """One running client process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def run(self, code: str, **names: object) -> Any:
        """Run `code`, which sees `names` and gives JSON to `result`; returns that.

        Raises: RaisedInClient: the code raised.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"code": textwrap.dedent(code), "names": names}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, f"the client ended with {self._process.wait()}"
        answer = json.loads(line)
        if "error" in answer:
            raise RaisedInClient(*answer["error"])
        return answer["value"]


@contextmanager
def running_client(fleet: Fleet, *, bare: bool = False, clock: SkewedClock | None = None) -> Iterator[Client]:
    """A client of the fleet's services for the time of the block.

    Args: bare: it has Celery and the URL of Redis, and nothing of ours; else `from tasks import app, run_workflow`.
        clock: of its host, where that is wrong.
    """
    environment = dict(fleet.environment) if clock is None else clock.around(fleet.environment)
    if bare:
        del environment["DATABASE_URL"], environment["NAMESPACE"], environment["DATA_DIR"]
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(
            [sys.executable, str(LOOP), *(["bare"] if bare else [])],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=folder,
        ) as process,
    ):  # fmt: skip
        client = Client(process)
        client.run(BARE if bare else OURS)
        try:
            yield client
        finally:
            process.communicate(timeout=30)
