"""Actions for the tests of the command line; workers find them through ACTION_MODULES."""

from __future__ import annotations

import time
from pathlib import Path

from orchestration import action


@action("cli_tests.begin_and_wait")
def begin_and_wait(path: str) -> str:
    """Make a file, so that a test knows that the action runs, and wait until the test removes it."""
    file = Path(path)
    file.touch()
    while file.exists():
        time.sleep(0.01)
    return "done"
