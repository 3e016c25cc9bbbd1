"""Actions for tests; workers find them through ACTION_MODULES=tests.support.actions."""

from __future__ import annotations

import time
from pathlib import Path

from orchestration import action


@action("tests.begin_and_sleep")
def begin_and_sleep(path: str, seconds: float) -> None:
    """Make a file, so that a test knows that the action runs, and sleep."""
    Path(path).touch()
    time.sleep(seconds)
