"""Keeping programs alive: each is started again when it dies, after a wait that doubles while it keeps dying.

Used for workers and for embedded servers alike. One thread starts, watches and stops everything: the programs are
tethered to the thread that started them (see tether.py).
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from parallelizer.services.flag import Waitable
from parallelizer.services.folder import FollowedLog, log_path, open_log
from parallelizer.services.processes import describe_exit, start_tethered

#: Seconds between two looks while programs end.
LOOK_SECONDS = 0.05
#: First wait before a restart, and the longest, seconds.
FIRST_WAIT = 0.5
LONGEST_WAIT = 30.0
#: A program that lived this long starts again from the first wait, seconds.
PROVEN_AFTER = 60.0


class Program(Protocol):
    """What can be supervised.

    `sweep` ends what a dead program left behind; it is called at once, for its id may soon be a stranger's.
    """

    @property
    def name(self) -> str: ...

    def start(self) -> None:
        """Start it anew; call only when it does not run."""

    def has_exited(self) -> bool: ...

    def describe_exit(self) -> str: ...

    def sweep(self) -> None: ...


@dataclass(slots=True)
class Watch:
    """One supervised program and its history of deaths."""

    program: Program
    started: float = 0.0
    wait: float = FIRST_WAIT
    #: When to start it again, or None while it runs (monotonic seconds).
    due: float | None = None

    def check(self, now: float, announce: Callable[[str], None]) -> None:
        """Notice a death and plan the restart; restart when it is due."""
        if self.due is None and self.program.has_exited():
            if now - self.started >= PROVEN_AFTER:
                self.wait = FIRST_WAIT
            self.program.sweep()
            announce(f"{self.program.name} {self.program.describe_exit()}; starting it again in {self.wait:g} s")
            self.due, self.wait = now + self.wait, min(self.wait * 2, LONGEST_WAIT)
        if self.due is not None and now >= self.due:
            self.started, self.due = now, None
            self.program.start()


@dataclass(slots=True)
class LoggedProgram:
    """A program that writes to `<data_dir>/log/<name>.log` and dies with us."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    folder: Path
    data_dir: Path
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)
    _follower: FollowedLog = field(init=False)
    _swept: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self._follower = FollowedLog(self.log)

    @property
    def log(self) -> Path:
        return log_path(self.data_dir, self.name)

    def start(self) -> None:
        self._swept = False
        with open_log(self.data_dir, self.name) as output:
            self.process = start_tethered(
                self.command,
                death_signal=signal.SIGKILL,
                environment=self.environment,
                folder=self.folder,
                output=output,
            )

    def new_lines(self) -> list[str]:
        """What it has written since the last call."""
        return self._follower.new_lines()

    def has_exited(self) -> bool:
        return self.process is not None and self.process.poll() is not None

    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def describe_exit(self) -> str:
        return describe_exit(self.process)

    def send(self, number: signal.Signals) -> None:
        if self.process is not None and self.is_running():
            self.process.send_signal(number)

    def sweep(self) -> None:
        """End whatever is left of it: itself, its children, and programs that its actions started."""
        if self.process is not None and not self._swept:
            self._swept = True
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def stop_programs(
    programs: Sequence[LoggedProgram], grace_seconds: float, hurry: Waitable, every_look: Callable[[], None]
) -> None:
    """End programs side by side: SIGTERM (a worker finishes what it runs), after the grace SIGKILL.

    Args: hurry: set at any time, it ends the grace. every_look: called while waiting, and once at the end.
    """
    for program in programs:
        program.send(signal.SIGTERM)
    deadline = time.monotonic() + grace_seconds
    try:
        while any(program.is_running() for program in programs):
            every_look()
            if hurry.wait(LOOK_SECONDS) or time.monotonic() >= deadline:
                break
    finally:
        for program in programs:
            program.sweep()
    every_look()
