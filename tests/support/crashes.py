"""Killing processes of a fleet, and what the journal says about who ran again because of it.

The promise under test: an action runs at least once, and at most once more for each crash it was in. An execution was
in a crash when its process was killed before it ended, or so soon after its end that its settlement may not have been
sent.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from parallelizer.services.supervision import LoggedProgram
from tests.support.journal import read_journal
from tests.support.waiting import wait_until

#: What ended less than this before a kill may be unsettled, seconds: several items may be settled by one call.
UNSETTLED_SECONDS = 0.1


@dataclass(frozen=True)
class Kill:
    """A process that was killed: when the signal was sent, and when it was seen to run no more (seconds since 1970)."""

    pid: int
    sent: float
    gone: float


@dataclass
class Execution:
    """One execution of a task; `ended` stays None when its process died in it."""

    task: str
    attempt: int
    pid: int
    started: float
    ended: float | None = None

    def was_in(self, kill: Kill) -> bool:
        """Whether this kill may have cost its outcome."""
        if kill.pid != self.pid or kill.gone < self.started:
            return False
        return self.ended is None or kill.sent - self.ended <= UNSETTLED_SECONDS


def executions(journal: Path) -> list[Execution]:
    """What the journal tells, in the order of starts; a process runs one task at a time."""
    found: list[Execution] = []
    running: dict[int, Execution] = {}
    for kind, task, attempt, when, pid in read_journal(journal):
        if kind == "start":
            running[pid] = Execution(task, attempt, pid, when)
            found.append(running[pid])
        else:
            execution = running.pop(pid)
            assert execution.task == task, f"process {pid} ended {task} while it ran {execution.task}"
            execution.ended = when
    return found


def running_in(journal: Path, pids: Iterable[int]) -> list[Execution]:
    """What runs in these processes just now."""
    among = set(pids)
    return [execution for execution in executions(journal) if execution.ended is None and execution.pid in among]


def check_runs(journal: Path, tasks: Iterable[str], kills: Sequence[Kill], besides: Iterable[str] = ()) -> None:
    """Each of these tasks ran to its end, nothing else ran, and what was in no crash ran once.

    Args: kills: all that hit a process which ran anything that is in the journal. besides: tasks that may do as they
        like.
    """
    by_task: dict[str, list[Execution]] = defaultdict(list)
    for execution in executions(journal):
        if execution.task not in besides:
            by_task[execution.task].append(execution)
    assert set(by_task) == set(tasks)
    for task, runs in by_task.items():
        assert any(run.ended is not None for run in runs), f"{task} never ended: {runs}"
        crashes = sum(any(run.was_in(kill) for kill in kills) for run in runs)
        assert len(runs) <= 1 + crashes, f"{task} ran {len(runs)} times with {crashes} crashes: {runs}; kills: {kills}"


def pool_processes(worker: LoggedProgram) -> list[int]:
    """The processes of a worker that run actions, by their ids; none when it is gone."""
    found = [child.pid for child in _children(worker) if "tasks.upkeep" not in _command_line(child)]
    return [pid for pid in found if is_running(pid)]


def upkeep_process(worker: LoggedProgram) -> int | None:
    """The upkeep process of a worker; None while there is none."""
    found = [child.pid for child in _children(worker) if "tasks.upkeep" in _command_line(child)]
    return next((pid for pid in found if is_running(pid)), None)


def kill(pid: int) -> Kill:
    """`kill -9` of a process, if it still is there; returns when it runs no more."""
    sent = time.time()
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not is_running(pid), f"process {pid} is dead")
    return Kill(pid, sent, time.time())


def kill_worker(worker: LoggedProgram, *, main_only: bool = False) -> list[Kill]:
    """`kill -9` of a whole worker, as when its host is lost; returns when all of its processes are gone.

    Args: main_only: kill its main process alone; the kernel then ends its pool, and its upkeep process ends by itself.
    """
    assert worker.process is not None
    pids, below = pool_processes(worker), [child.pid for child in _children(worker)]
    sent = time.time()
    if main_only:
        worker.process.kill()
    else:
        os.killpg(worker.process.pid, signal.SIGKILL)
    worker.process.wait()
    wait_until(lambda: not any(map(is_running, below)), f"no process of {worker.name} outlives it")
    gone = time.time()
    return [Kill(pid, sent, gone) for pid in pids]


def signal_worker(worker: LoggedProgram, number: signal.Signals) -> None:
    """Send a signal to every process of a worker."""
    assert worker.process is not None
    os.killpg(worker.process.pid, number)


def _children(worker: LoggedProgram) -> list[psutil.Process]:
    assert worker.process is not None
    try:
        return psutil.Process(worker.process.pid).children()
    except psutil.NoSuchProcess:
        return []


def is_running(pid: int) -> bool:
    """Whether the process is there and no zombie."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _command_line(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def quit_at_once(worker: LoggedProgram) -> None:
    """A cold shutdown that does not wait for branches: SIGQUIT until the worker is gone."""
    assert worker.process is not None
    while worker.is_running():
        worker.send(signal.SIGQUIT)
        with suppress(subprocess.TimeoutExpired):
            worker.process.wait(0.1)
