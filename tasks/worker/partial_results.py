"""A result that a pool process is sending is read to its end, though the worker loses its broker meanwhile.

Celery's prefork pool reads what its processes send by generators, which stand in its event loop while a message has
come in part. With each new connection to the broker the loop is set up anew, without them: the middle of a message is
then read as the beginning of one, and the worker ends with an `UnpicklingError`, or waits for ever for the rest.
"""

from __future__ import annotations

# ruff: noqa: SLF001 - Celery offers no other way to its pool
import inspect
from collections.abc import Callable, Generator
from typing import Any


def keep_partial_results(pool: Any) -> None:
    """From now on `pool` (Celery's `TaskPool`) goes on with what it has read in part.

    Other pools stay as they are. Call when it has started, before the event loop does.
    """
    processes: Any = getattr(pool, "_pool", None)
    handler: Any = getattr(processes, "_result_handler", None)
    if hasattr(handler, "_recv_message"):
        handler._recv_message = _Readers(processes._fileno_to_outq, handler._recv_message).reader


class _Readers:
    """What reads from each process; `processes`: by file descriptor."""

    def __init__(self, processes: dict[int, Any], read: Callable[..., Generator[None]]) -> None:
        self._processes = processes
        self._read = read
        #: A descriptor may come to be another process's: with whose it was.
        self._begun: dict[int, tuple[Any, Generator[None]]] = {}

    def reader(self, add_reader: Any, descriptor: int, callback: Any) -> Generator[None]:
        """What goes on with a message that has come in part, or begins with the next one."""
        process = self._processes.get(descriptor)
        owner, begun = self._begun.get(descriptor, (None, None))
        if begun is not None and owner is process and inspect.getgeneratorstate(begun) == inspect.GEN_SUSPENDED:
            return begun
        begun = self._read(add_reader, descriptor, callback)
        self._begun[descriptor] = process, begun
        return begun
