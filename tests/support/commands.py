"""Running the command line as a user does: as a process of its own, with its output in a file."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

#: Variables of the developer's own shell that would change what a command does.
OURS = ("REDIS_URL", "DATABASE_URL", "BROKER_URL", "DATA_DIR", "NAMESPACE", "ACTION_MODULES", "PARALLELIZER_CONFIG")
WAIT_SECONDS = 60.0


def clean_environment(**variables: str) -> dict[str, str]:
    """The environment without settings of the processor, and with `variables`."""
    return {**{name: value for name, value in os.environ.items() if name not in OURS}, **variables}


def parallelizer(*arguments: str, folder: Path | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run one command to its end, in `folder`, with the environment `variables`."""
    return subprocess.run(
        [sys.executable, "-m", "parallelizer", *arguments],
        capture_output=True,
        text=True,
        env=clean_environment(**variables),
        cwd=folder,
        timeout=WAIT_SECONDS,
        check=False,
    )


class RunningCommand:
    """A command that goes on running, such as `up`."""

    def __init__(self, process: subprocess.Popen[bytes], output: Path) -> None:
        self.process = process
        self._output = output

    @property
    def output(self) -> str:
        return self._output.read_text(errors="replace")

    def wait_for(self, text: str, times: int = 1) -> None:
        """Return when the output has `text` so many times."""
        deadline = time.monotonic() + WAIT_SECONDS
        look = threading.Event()
        while self.output.count(text) < times:
            assert self.process.poll() is None, f"ended with {self.process.returncode}:\n{self.output}"
            assert time.monotonic() < deadline, f"no {text!r} in:\n{self.output}"
            look.wait(0.02)

    def descendants(self) -> list[psutil.Process]:
        """All processes below it, whatever session they are in."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self) -> int:
        """Its exit code."""
        return self.process.wait(WAIT_SECONDS)


@contextmanager
def running_command(*arguments: str, **variables: str) -> Iterator[RunningCommand]:
    """Run a command in the block; it is ended at the end of the block, if it has not by then."""
    with tempfile.NamedTemporaryFile(suffix=".out") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "parallelizer", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=clean_environment(**variables),
            start_new_session=True,
        )
        command = RunningCommand(process, Path(output.name))
        try:
            yield command
        finally:
            for _ in range(2):
                if process.poll() is None:
                    process.terminate()
            try:
                process.wait(WAIT_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise AssertionError(f"did not end within {WAIT_SECONDS:g} s of SIGTERM:\n{command.output}") from None


def started_since(before: set[psutil.Process]) -> list[psutil.Process]:
    """All processes below this one, but for those in `before` and what they start (a server forks any time)."""
    below = psutil.Process().children(recursive=True)
    theirs = set(before)
    for process in before:
        with suppress(psutil.NoSuchProcess):
            theirs.update(process.children(recursive=True))
    return [process for process in below if process not in theirs]


def wait_all_gone(processes: list[psutil.Process], seconds: float = 15.0) -> None:
    """Return when none of them runs any more (zombies that nobody has waited for don't run)."""
    _, alive = psutil.wait_procs(processes, timeout=seconds)
    left = [process for process in alive if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
    assert not left, f"still running: {left}"
