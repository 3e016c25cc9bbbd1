"""Celery's own soft time limit, SIGUSR1: it stands behind ours, and reaches user code only.

An exception out of a signal handler in the middle of a call to Redis would leave its reply to the next call, or crash
the client (hiredis 3.5 does). So the signal is blocked in tasks of ours, but around user code.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # the public module makes enums: 1.4 µs a mask against 0.5
import signal
import threading
from typing import Any, Final

from celery import signals

from tasks.canvas import ProcessorTask

_SOFT: Final = {signal.SIGUSR1}
_guarded = threading.local()


def is_guarded() -> bool:
    """Whether this thread runs a task in which the signal is blocked."""
    return getattr(_guarded, "task", False)


def let_in() -> None:
    """User code begins."""
    _signal.pthread_sigmask(_signal.SIG_UNBLOCK, _SOFT)


def keep_out() -> None:
    """User code has ended."""
    _signal.pthread_sigmask(_signal.SIG_BLOCK, _SOFT)


@signals.task_prerun.connect(weak=False)
def guard(task: Any = None, **_: Any) -> None:
    """A task of ours begins: from here on Celery's soft time limit reaches user code only."""
    if isinstance(task, ProcessorTask) and threading.current_thread() is threading.main_thread():
        keep_out()
        _guarded.task = True


@signals.task_postrun.connect(weak=False)
def unguard(task: Any = None, **_: Any) -> None:
    """It has ended: a limit that came too late is not the next task's."""
    if isinstance(task, ProcessorTask) and is_guarded():
        signal.sigtimedwait(_SOFT, 0)
        _guarded.task = False
        let_in()
