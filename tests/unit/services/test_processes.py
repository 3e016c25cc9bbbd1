"""Processes are recognised by id and start time, and tethered to the one that started them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from parallelizer.services.processes import is_alive, mark_process, start_tethered, stop_leftover, stop_process

SLEEPER = ["/bin/sleep", "600"]
PARENT = """
import os, signal, sys
from pathlib import Path
from parallelizer.services.processes import start_tethered
child = start_tethered(["/bin/sleep", "600"], death_signal=signal.SIGTERM, environment={}, folder=Path("/"), output=2)
print(child.pid, flush=True)
signal.pause()
"""


def _sleeper(tmp_path: Path) -> subprocess.Popen[bytes]:
    return start_tethered(
        SLEEPER, death_signal=signal.SIGKILL, environment={}, folder=tmp_path, output=subprocess.DEVNULL
    )


def test_a_mark_is_of_one_process_only() -> None:
    mark = mark_process(os.getpid())
    assert mark is not None
    assert is_alive(mark)
    assert not is_alive(replace(mark, started=mark.started - 100)), "the id belonged to another process before"


def test_a_process_that_ended_is_not_alive(tmp_path: Path) -> None:
    process = _sleeper(tmp_path)
    mark = mark_process(process.pid)
    assert mark is not None
    process.kill()
    psutil.Process(process.pid).status()  # not waited for: a zombie
    process.wait()
    assert not is_alive(mark)
    assert mark_process(process.pid) is None


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent died")
def test_a_tethered_program_ends_when_its_parent_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    child.wait(10)
    assert not child.is_running()


def test_a_tethered_program_does_not_get_the_terminals_signals(tmp_path: Path) -> None:
    process = _sleeper(tmp_path)
    assert os.getsid(process.pid) == process.pid
    stop_process(process, [(signal.SIGTERM, 10)])
    assert process.returncode == -signal.SIGTERM


def test_a_pid_file_that_names_a_stranger_is_dropped_and_the_stranger_lives(tmp_path: Path) -> None:
    process = _sleeper(tmp_path)
    pid_file = tmp_path / "server.pid"
    try:
        pid_file.write_text(f"{process.pid}\n")
        stop_leftover(pid_file, "postgres", tmp_path, signal.SIGTERM, 1)
        assert not pid_file.exists()
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("text", ["", "not a number\n", "999999999\n"])
def test_a_senseless_pid_file_is_dropped(tmp_path: Path, text: str) -> None:
    pid_file = tmp_path / "server.pid"
    pid_file.write_text(text)
    stop_leftover(pid_file, "postgres", tmp_path, signal.SIGTERM, 1)
    assert not pid_file.exists()
