"""Actions that tell which Celery message runs them (ACTION_MODULES=tests.support.celery_actions)."""

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
