"""Starts and stops the upkeep process of a worker (tasks/upkeep.py).

A process of its own: the worker's main process forks children for as long as it lives, and a thread beside that is a
dead lock waiting to happen; on gevent a blocking driver would stop the whole pool; on solo the pool blocks the main
thread. It ends when its standard input is closed, so it never outlives the worker.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Sequence

import psutil

from orchestration.telemetry.metrics_memory import counters

_log = logging.getLogger(__name__)
#: Seconds to drain the status channel after the pool has stopped.
DRAIN_SECONDS = 10.0
#: Longer than a moment between two signals that let a whole worker go on, shorter than any lease.
STOPPED_SECONDS = 1.5
#: What the process reads when the worker begins to take messages, and when it takes no more.
OPEN, CLOSE = b"o", b"c"


class UpkeepProcess:
    """The upkeep process of one worker."""

    def __init__(self, worker: str, queues: Sequence[str], slots: int) -> None:
        #: Memory in which the worker's processes count, shared before its pool was forked.
        self._counters = counters.share()
        self._arguments = json.dumps(
            {"worker": worker, "queues": list(queues), "slots": slots, "counters": self._counters}
        )
        self._process: subprocess.Popen[bytes] | None = None
        self._is_open = False
        #: Since when it stands still, by `time.monotonic`.
        self._stopped_since: float | None = None

    def start(self) -> None:
        """Start it; until `open_slots` it does all its duties but for registering the worker."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tasks.upkeep", self._arguments], stdin=subprocess.PIPE, close_fds=True,
            pass_fds=[self._counters],
        )  # fmt: skip
        if self._is_open:
            self.open_slots()

    def open_slots(self) -> None:
        """The worker takes messages from now on: its slots are registered, and stay so."""
        self._is_open = True
        self._say(OPEN)

    def close_slots(self) -> None:
        """The worker takes no more messages: its slots draw no more runners. Safe in a signal handler."""
        self._is_open = False
        self._say(CLOSE)

    def _say(self, word: bytes) -> None:
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError):  # it has just died; `watch` starts it again
                os.write(self._process.stdin.fileno(), word)

    def watch(self) -> None:
        """Start it anew when it has died, or stands still: nobody else renews this worker's leases."""
        process = self._process
        if process is None:
            return
        if process.poll() is None and self._stands_still(process.pid):
            _log.error("the upkeep process was stopped by a signal and is killed")
            process.kill()
            process.wait()
        if process.poll() is not None:
            _log.error("the upkeep process has ended (%s) and is started again", process.returncode)
            self._stopped_since = None
            self.start()

    def _stands_still(self, pid: int) -> bool:
        """Whether it was stopped (SIGSTOP) and has not gone on for a while; a whole worker may be frozen and go on."""
        try:
            is_stopped = psutil.Process(pid).status() == psutil.STATUS_STOPPED
        except psutil.Error:
            is_stopped = False
        now = time.monotonic()
        if not is_stopped:
            self._stopped_since = None
        elif self._stopped_since is None:
            self._stopped_since = now
        return self._stopped_since is not None and now - self._stopped_since >= STOPPED_SECONDS

    def stop(self) -> None:
        """Let it drain what was reported, then end it."""
        process = self._process
        if process is None:
            return
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(DRAIN_SECONDS)
        except subprocess.TimeoutExpired:
            _log.warning(
                "the upkeep process did not end within %g s and is killed; other workers drain on",
                DRAIN_SECONDS,
            )
            process.kill()
            process.wait()
        self._process = None
