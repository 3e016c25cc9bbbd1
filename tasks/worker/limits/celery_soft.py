"""Celery's own soft time limit, SIGUSR1: it stands behind ours, and reaches user code only.

An exception out of a signal handler in the middle of a call to Redis would leave its reply to the next call, or crash
the client (hiredis 3.5 does). So in tasks of ours the handler of the pool's process gives way to one that raises in
user code only, and else keeps the signal for it. A mask would do the same, for 0.8 µs an item.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any, Final

from billiard.exceptions import SoftTimeLimitExceeded
from billiard.pool import soft_timeout_sighandler
from celery import signals

from tasks.canvas import ProcessorTask


class _State(threading.local):
    """Of a thread; the signal's handler runs in the main one."""

    is_guarded = is_in_user_code = has_come = False


_state: Final = _State()


def is_guarded() -> bool:
    """Whether this thread runs a task in which the signal reaches user code only."""
    return _state.is_guarded


def let_in() -> None:
    """User code begins.

    Raises: SoftTimeLimitExceeded: the signal has come before.
    """
    _state.is_in_user_code = True
    if _state.has_come:
        _state.has_come = False
        raise SoftTimeLimitExceeded


def keep_out() -> None:
    """User code has ended."""
    _state.is_in_user_code = False


def _handle(number: int, frame: FrameType | None) -> None:
    if not _state.is_guarded:
        soft_timeout_sighandler(number, frame)
    elif _state.is_in_user_code:
        raise SoftTimeLimitExceeded
    else:
        _state.has_come = True


@signals.task_prerun.connect(weak=False)
def guard(task: Any = None, **_: Any) -> None:
    """A task of ours begins: from here on Celery's soft time limit reaches user code only."""
    if not isinstance(task, ProcessorTask) or threading.current_thread() is not threading.main_thread():
        return
    handler = signal.getsignal(signal.SIGUSR1)
    if handler is soft_timeout_sighandler:
        handler = _handle
        signal.signal(signal.SIGUSR1, handler)
    _state.is_guarded = handler is _handle  # on the pool solo, the signal means something else


@signals.task_postrun.connect(weak=False)
def unguard(task: Any = None, **_: Any) -> None:
    """It has ended: a limit that came too late is not the next task's."""
    if isinstance(task, ProcessorTask) and _state.is_guarded:
        _state.is_guarded = _state.has_come = False
