"""What a pool process has been given is not forgotten when the worker stops, or loses its broker.

Celery's prefork pool then forgets each job of which it has not read yet that the process has taken it on, because the
message comes again. But the process may have it, and runs it: the action runs twice, nobody reads its result, and the
process waits 30 s for that before it ends (`_ensure_messages_consumed` in billiard). So before it forgets, what the
processes say is read, until each has taken on what it was given.
"""

from __future__ import annotations

# ruff: noqa: SLF001 - Celery offers no other way to its pool
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

_log = logging.getLogger(__name__)
#: A process answers at once; one that does not may be stopped, or be in the middle of its start.
ANSWER_SECONDS = 5.0
LOOK_SECONDS = 0.05


def keep_handed_over(pool: Any) -> None:
    """From now on `pool` (Celery's `TaskPool`) forgets only what no process has been given.

    Other pools stay as they are. Call when it has started.
    """
    processes, forget = getattr(pool, "_pool", None), getattr(pool, "flush", None)
    if forget is not None and hasattr(processes, "_flush_writer"):
        pool.flush = lambda: _forget_the_rest(processes, forget)


def _forget_the_rest(processes: Any, forget: Callable[[], None]) -> None:
    deadline = time.monotonic() + ANSWER_SECONDS
    if waiting := _handed_over(processes):
        _log.info("%d tasks have been given to processes that have not begun them yet", len(waiting))
    while waiting and time.monotonic() < deadline:
        for job in waiting:
            _finish_writing(processes, job)
            _read(processes, job._write_to)
        waiting = _handed_over(processes)
    if waiting:
        _log.warning(
            "after %g s, %d processes have not begun the tasks that they were given; these come again",
            ANSWER_SECONDS, len(waiting),
        )  # fmt: skip
    forget()


def _handed_over(processes: Any) -> list[Any]:
    """Jobs that a living process has been given, at least in part, and has not said to have begun."""
    jobs = [job for job in tuple(processes._cache.values()) if not job._accepted]
    return [job for job in jobs if job._write_to is not None and job._write_to._is_alive()]


def _finish_writing(processes: Any, job: Any) -> None:
    writer = job._writer()  # a weak reference
    if writer in processes._active_writers:
        processes._flush_writer(job._write_to, writer)


def _read(processes: Any, process: Any) -> None:
    """Read one message of the process, if one comes soon."""
    handler = processes._result_handler
    with suppress(OSError):  # it has just died, which others see to
        if process.outq._reader.poll(LOOK_SECONDS):
            handler._flush_outqueue(
                process.outqR_fd, lambda _fd: None, processes._fileno_to_outq, handler.on_state_change
            )
