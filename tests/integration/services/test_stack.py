"""A stack that stops ends everything it started, also when something fails on the way."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from config.settings import load_settings
from parallelizer.services.folder import prepare_folder
from parallelizer.services.stack import Stack, StackPlan
from parallelizer.services.supervision import LoggedProgram
from parallelizer.services.valkey import EmbeddedValkey


def test_workers_and_servers_are_ended_even_when_nothing_can_be_said_about_it(tmp_path: Path) -> None:
    def announce(_message: str) -> None:
        raise RuntimeError("no place to write to")

    folder = prepare_folder(tmp_path / "data")
    stack = Stack(load_settings(data_dir=folder), StackPlan(), announce, lambda _name, _line: None)
    worker = LoggedProgram(
        "worker-1", [sys.executable, "-c", "import time; time.sleep(600)"], dict(os.environ), tmp_path, folder
    )
    server = EmbeddedValkey(folder)
    stack.workers.append(worker)
    stack._servers.append(server)
    server.start()
    server.wait_ready()
    worker.start()
    with pytest.raises(RuntimeError, match="no place"):
        stack.stop()
    assert worker.has_exited()
    assert server.has_exited()
