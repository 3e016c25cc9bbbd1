"""Actions about where they run (ACTION_MODULES=tests.support.celery_actions): in which message, in which process."""

from __future__ import annotations

import os
import time

from celery import current_task

from orchestration import action


@action("test.message")
def message(seconds: float = 0.0) -> dict[str, object]:
    """The task's name, the group it was sent in, and the process it runs in."""
    time.sleep(seconds)
    request = current_task.request
    return {"task": current_task.name, "group": request.group, "pid": os.getpid()}


@action("test.spin")
def spin(seconds: float) -> int:
    """Keep the processor busy with Python, without a call that waits."""
    end, rounds = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        rounds += 1
    return rounds
