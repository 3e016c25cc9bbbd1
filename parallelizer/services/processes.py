"""Starting, recognising and ending processes: servers, workers, and what an earlier stack left behind.

A process is named by its id *and* its start time, since the kernel gives ids out again.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psutil

#: Two readings of one process's start time differ by clock steps at most; a reused id is older than this, seconds.
START_TIME_TOLERANCE = 1.0


@dataclass(frozen=True, slots=True)
class UnixUser:
    """Whom a program runs as."""

    name: str
    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class ProcessMark:
    """One process, and no other that later gets its id."""

    pid: int
    #: Seconds since the epoch.
    started: float


def mark_process(pid: int) -> ProcessMark | None:
    """The mark of a living process, or None."""
    try:
        return ProcessMark(pid, psutil.Process(pid).create_time())
    except psutil.NoSuchProcess:
        return None


def is_alive(mark: ProcessMark) -> bool:
    """Whether this very process still runs (a zombie does not)."""
    try:
        process = psutil.Process(mark.pid)
        same = abs(process.create_time() - mark.started) <= START_TIME_TOLERANCE
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def start_tethered(
    program: Sequence[str],
    *,
    death_signal: signal.Signals,
    environment: Mapping[str, str],
    folder: Path,
    output: IO[bytes] | int,
    user: UnixUser | None = None,
) -> subprocess.Popen[bytes]:
    """Start a program in a session of its own that ends when the calling thread's process ends.

    Args: program: absolute path and arguments. death_signal: what the program gets when we die, even by SIGKILL.
        output: file for stdout and stderr, or `subprocess.PIPE`. user: run as this user instead of root.
    Returns: the process; a Ctrl-C in the terminal does not reach it, ending it is the caller's business.
    """
    owner = (user.uid, user.gid) if user is not None else (-1, -1)
    tether = [sys.executable, "-I", "-S", str(Path(__file__).with_name("tether.py"))]
    numbers = [str(number) for number in (death_signal.value, os.getpid(), *owner)]
    return subprocess.Popen(
        [*tether, *numbers, "--", *program],
        env=dict(environment),
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def describe_exit(process: subprocess.Popen[bytes] | None) -> str:
    """For example `ended with exit code 1` or `was killed by SIGKILL`."""
    code = process.returncode if process is not None else None
    if code is not None and code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"


def stop_process(process: subprocess.Popen[bytes], steps: Sequence[tuple[signal.Signals, float]]) -> None:
    """End a process: it has exited afterwards.

    Args: steps: signals, each with the seconds to wait for the exit; SIGKILL follows the last.
    """
    for number, seconds in steps:
        if process.poll() is not None:
            return
        process.send_signal(number)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            continue
    if process.poll() is None:
        process.kill()
        process.wait()


def stop_marked(mark: ProcessMark, first: signal.Signals, seconds: float) -> None:
    """End a process that is not our child, SIGKILL after `seconds`; one that is gone already is no error."""
    if not is_alive(mark):
        return
    try:
        process = psutil.Process(mark.pid)
        process.send_signal(first)
        try:
            process.wait(seconds)
        except psutil.TimeoutExpired:
            process.kill()
            process.wait(seconds)
    except psutil.NoSuchProcess:
        return


def stop_leftover(pid_file: Path, program_name: str, folder: Path, number: signal.Signals, seconds: float) -> None:
    """End the server that an earlier stack left in `folder` (or wait for it: it may be ending), drop a stale pid file.

    The file's process is touched only if it is `program_name` and works in `folder`: its id may belong to a stranger.
    """
    try:
        pid = int(pid_file.read_text().partition("\n")[0])
        process = psutil.Process(pid)
        ours = process.name() == program_name and Path(process.cwd()) == folder.resolve()
        mark = ProcessMark(pid, process.create_time())
    except (OSError, ValueError, psutil.Error):
        ours = False
    if ours:
        stop_marked(mark, number, seconds)
    pid_file.unlink(missing_ok=True)
