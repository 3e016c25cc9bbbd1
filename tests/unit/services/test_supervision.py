"""When a dead program is started again, and what is left behind when programs are stopped."""

from __future__ import annotations

import os
import signal
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from parallelizer.services.folder import prepare_folder
from parallelizer.services.supervision import (
    FIRST_WAIT,
    LONGEST_WAIT,
    PROVEN_AFTER,
    LoggedProgram,
    Watch,
    stop_programs,
)

STUBBORN = (
    "import signal, sys, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('up', flush=True)\ntime.sleep(600)"
)
WITH_CHILD = "import subprocess, sys\nc = subprocess.Popen(['sleep', '600'])\nprint(c.pid, flush=True)\nc.wait()"


@dataclass
class Mayfly:
    """A program that is dead whenever it is looked at."""

    name: str = "mayfly"
    starts: list[float] = field(default_factory=list)
    swept: int = 0
    now: float = 0.0

    def start(self) -> None:
        self.starts.append(self.now)

    def has_exited(self) -> bool:
        return True

    def describe_exit(self) -> str:
        return "ended with exit code 1"

    def sweep(self) -> None:
        self.swept += 1


def _live(watch: Watch, program: Mayfly, seconds: float) -> list[str]:
    said: list[str] = []
    for tick in range(int(seconds * 10)):
        program.now = tick / 10
        watch.check(program.now, said.append)
    return said


def test_the_wait_before_a_restart_doubles_up_to_a_bound() -> None:
    program = Mayfly()
    said = _live(Watch(program), program, 300)
    gaps = [later - earlier for earlier, later in zip(program.starts, program.starts[1:], strict=False)]
    assert program.starts[0] == pytest.approx(FIRST_WAIT)
    assert gaps[:3] == pytest.approx([1.1, 2.1, 4.1])
    assert gaps[-1] == pytest.approx(LONGEST_WAIT + 0.1)
    assert said[0] == "mayfly ended with exit code 1; starting it again in 0.5 s"
    assert program.swept == len(said)


def test_a_program_that_lived_long_starts_again_soon() -> None:
    program = Mayfly()
    watch = Watch(program, started=0.0, wait=16.0)
    said: list[str] = []
    watch.check(PROVEN_AFTER + 1, said.append)
    assert said == ["mayfly ended with exit code 1; starting it again in 0.5 s"]


def _program(tmp_path: Path, code: str) -> LoggedProgram:
    data_dir = prepare_folder(tmp_path / "data")
    return LoggedProgram("program", [sys.executable, "-c", code], dict(os.environ), tmp_path, data_dir)


def _first_line(program: LoggedProgram) -> str:
    never = threading.Event()
    for _ in range(1000):
        if lines := program.new_lines():
            return lines[0]
        never.wait(0.01)
    raise AssertionError(f"{program.name} said nothing")


def test_a_program_that_ignores_sigterm_is_killed_after_the_grace(tmp_path: Path) -> None:
    program = _program(tmp_path, STUBBORN)
    program.start()
    assert _first_line(program) == "up"
    stop_programs([program], 0.2, threading.Event(), lambda: None)
    assert program.describe_exit() == "was killed by SIGKILL"


def test_hurrying_ends_the_grace(tmp_path: Path) -> None:
    program = _program(tmp_path, STUBBORN)
    program.start()
    assert _first_line(program) == "up"
    hurry = threading.Event()
    hurry.set()
    stop_programs([program], 600, hurry, lambda: None)
    assert program.describe_exit() == "was killed by SIGKILL"


def test_what_a_killed_program_started_is_ended_too(tmp_path: Path) -> None:
    program = _program(tmp_path, WITH_CHILD)
    program.start()
    child = psutil.Process(int(_first_line(program)))
    program.send(signal.SIGKILL)
    assert program.process is not None
    program.process.wait()
    assert child.is_running()
    program.sweep()
    child.wait(10)
    assert not child.is_running()


def test_stopping_a_program_that_was_never_started_is_no_error(tmp_path: Path) -> None:
    stop_programs([_program(tmp_path, STUBBORN)], 0, threading.Event(), lambda: None)


def test_programs_are_ended_even_when_looking_at_them_fails(tmp_path: Path) -> None:
    program = _program(tmp_path, STUBBORN)
    program.start()
    assert _first_line(program) == "up"

    def full() -> None:
        raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space"):
        stop_programs([program], 600, threading.Event(), full)
    assert program.describe_exit() == "was killed by SIGKILL"
