"""Actions about where they run (ACTION_MODULES=tests.support.celery_actions): in which message, in which process."""

from __future__ import annotations

import ctypes
import os
import signal
import time
import uuid
from pathlib import Path

from celery import current_task

from orchestration import action
from tests.support.waiting import wait_until


@action("test.message")
def message(seconds: float = 0.0, folder: str = "", processes: int = 1) -> dict[str, object]:
    """The task's name and id, the group it was sent in, the message's own mark, and the process it runs in.

    With a folder it ends when so many processes are in it at once: no message serves two of them.
    """
    time.sleep(seconds)
    if folder:
        Path(folder, str(os.getpid())).touch()
        wait_until(lambda: len(list(Path(folder).iterdir())) >= processes, f"{processes} processes are in {folder}")
    request = current_task.request
    mark = request.__dict__.setdefault("mark", uuid.uuid4().hex)  # each delivery has a request of its own
    return {
        "task": current_task.name, "id": request.id, "group": request.group, "in_chord": request.chord is not None,
        "message": mark, "pid": os.getpid(),
    }  # fmt: skip


@action("test.stuck")
def stuck(seconds: int) -> None:
    """Do not end, whatever signal says so, and let no other thread run, as in a library that does not come back."""
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGALRM, signal.SIGUSR1))
    ctypes.PyDLL(None).sleep(seconds)  # in C, with Python's global lock


@action("test.spin")
def spin(seconds: float) -> int:
    """Keep the processor busy with Python, without a call that waits."""
    end, rounds = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        rounds += 1
    return rounds
