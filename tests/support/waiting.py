"""Waiting for what sends no event: a row, a line in a journal, a process that is gone."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

LOOK_SECONDS = 0.02


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 30.0) -> None:
    """Return when `condition()` holds; fail with `what` when it does not within `seconds`."""
    deadline, pause = time.monotonic() + seconds, threading.Event()
    while not condition():
        assert time.monotonic() < deadline, f"after {seconds:g} s still not: {what}"
        pause.wait(LOOK_SECONDS)
