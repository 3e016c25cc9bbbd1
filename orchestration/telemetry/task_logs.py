"""Keeps what actions log, with their tasks: bounded for each task, written to PostgreSQL in batches by a thread.

Nothing is done while nothing is logged, and nobody waits for PostgreSQL: a line waits in memory for a quarter of a
second, or for as long as PostgreSQL is away. What a process has not written when it is killed is lost; so are lines
beyond `MOST_WAITING` or `MOST_WAITING_BYTES`. Both thread and buffer are made by the first line of a process, again in
a forked child.
"""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import orjson

from config.logs import exception_of, fields_of, message_of
from config.masking import Masker
from orchestration.telemetry.logs import Place, RunningTask, spot_of

_log = logging.getLogger(__name__)

#: A line waits at most so long for others.
BATCH_SECONDS: Final = 0.25
#: Between two attempts while PostgreSQL is away.
AGAIN_SECONDS: Final = 1.0
#: Lines of all tasks that wait in a process, and their bytes; in one statement, a longer line alone.
MOST_WAITING, MOST_WAITING_BYTES = 20_000, 32 * 1024 * 1024
MOST_AT_ONCE, MOST_BYTES_AT_ONCE = 2_000, 4 * 1024 * 1024
#: What a line costs beside its text.
LINE_BYTES: Final = 32
LONGEST_LOGGER: Final = 200


class TaskLogLine(NamedTuple):
    """One line that a task logged."""

    session_day: str
    flow_session_id: str
    action: str
    #: NO_ITEM for a task that is no item of a `for_each`.
    item: int
    attempt: int
    #: By Redis, µs since the epoch.
    logged_us: int
    level: str
    logger: str
    #: With the traceback, if there is one.
    message: str
    #: JSON: what the call brought along as `extra`, or None.
    fields: str | None = None

    @property
    def size_bytes(self) -> int:
        """What it takes in memory, about."""
        return len(self.message) + len(self.fields or "") + LINE_BYTES


#: Commits lines; raises an error for which `is_away` holds when it may be tried again.
Write = Callable[[Sequence[TaskLogLine]], None]


class _Kept:
    """What one task has logged so far."""

    __slots__ = ("bytes", "is_cut", "lines")

    def __init__(self) -> None:
        self.lines = self.bytes = 0
        self.is_cut = False


class TaskLogHandler(logging.Handler):
    """Takes what is logged in the call of an action.

    Args: most_lines, most_bytes: of one attempt of a task; what is beyond is left out, and a line says so.
    """

    def __init__(self, writer: LogWriter, masker: Masker, most_lines: int, most_bytes: int) -> None:
        super().__init__()
        self._writer = writer
        self._masker = masker
        self._most_lines = most_lines
        self._most_bytes = most_bytes
        #: Goes with the call: tasks that log nothing have no entry.
        self._tasks: weakref.WeakKeyDictionary[RunningTask, _Kept] = weakref.WeakKeyDictionary()

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the record, if it is of a task."""
        spot = spot_of(record)
        if spot is None or spot[1] is None or record.name == __name__:
            return
        try:
            self._keep(spot[0], spot[1], record)
        except Exception:  # noqa: BLE001 - logging must not fail the action
            self.handleError(record)

    def _keep(self, place: Place, call: RunningTask, record: logging.LogRecord) -> None:
        kept = self._tasks.get(call)
        if kept is None:
            kept = self._tasks[call] = _Kept()
        if kept.is_cut:
            return
        message, exception = message_of(record, self._masker), exception_of(record, self._masker)
        text = _storable(f"{message}\n{exception}" if exception else message)
        fields = _json_of(fields_of(record, self._masker))
        size = len(text.encode()) + len(fields or "") + LINE_BYTES
        level, logger = record.levelname.lower(), _storable(record.name[:LONGEST_LOGGER])
        if kept.lines >= self._most_lines or kept.bytes + size > self._most_bytes:
            kept.is_cut = True
            room = self._most_bytes - kept.bytes - LINE_BYTES
            if kept.lines < self._most_lines and room > 0:
                self._put(place, call, level, logger, _cut(text, room), None)
            limits = f"TASK_LOG_LINES={self._most_lines}, TASK_LOG_BYTES={self._most_bytes}"
            self._put(place, call, "warning", __name__, f"what follows is not kept ({limits})", None)
            return
        kept.lines += 1
        kept.bytes += size
        self._put(place, call, level, logger, text, fields)

    def _put(self, place: Place, call: RunningTask, level: str, logger: str, text: str, fields: str | None) -> None:
        session = place.session
        self._writer.put(
            TaskLogLine(
                session.day, session.flow_session_id, call.action, call.item, call.number, session.now_us(), level,
                logger, text, fields,
            )
        )  # fmt: skip


class LogWriter:
    """Writes lines in a thread of its own, started with the first line.

    Args: is_away: whether the same lines may be written later. prepare_thread: called first in the thread.
    """

    def __init__(
        self, write: Write, is_away: Callable[[Exception], bool], prepare_thread: Callable[[], None] = lambda: None
    ) -> None:
        self._write = write
        self._is_away = is_away
        self._prepare_thread = prepare_thread
        self._forget()
        _writers.add(self)

    def _forget(self) -> None:
        """In a forked child: what waits is the parent's."""
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._something = threading.Event()
        self._waiting: list[TaskLogLine] = []
        self._waiting_bytes = 0
        self._has_thread = False
        self._lost = 0

    def put(self, line: TaskLogLine) -> None:
        """The line is written soon, or left out when too many wait."""
        with self._lock:
            size_bytes = line.size_bytes
            is_full = len(self._waiting) >= MOST_WAITING or self._waiting_bytes + size_bytes > MOST_WAITING_BYTES
            if is_full and self._waiting:
                self._lost += 1
                return
            self._waiting.append(line)
            self._waiting_bytes += size_bytes
            if not self._has_thread:
                threading.Thread(target=self._run, name="task-logs", daemon=True).start()
                self._has_thread = True
        self._something.set()

    def flush(self) -> bool:
        """Write what waits, now; returns False when PostgreSQL does not take it."""
        with self._writing:
            while True:
                with self._lock:
                    batch, lost = self._next_batch(), self._lost
                    self._lost = 0
                if lost:
                    _log.warning("%d lines of tasks were not kept: too many waited for PostgreSQL", lost)
                if not batch:
                    return True
                try:
                    self._write(batch)
                except Exception as error:  # noqa: BLE001 - sorted by `is_away`; the thread must live
                    if self._is_away(error):
                        _log.debug("lines of tasks wait for PostgreSQL: %s", error)
                        return False
                    _log.exception("%d lines of tasks could not be kept", len(batch))
                with self._lock:
                    del self._waiting[: len(batch)]
                    self._waiting_bytes -= sum(line.size_bytes for line in batch)

    def _next_batch(self) -> list[TaskLogLine]:
        size_bytes = 0
        for place, line in enumerate(self._waiting[:MOST_AT_ONCE]):
            size_bytes += line.size_bytes
            if place and size_bytes > MOST_BYTES_AT_ONCE:
                return self._waiting[:place]
        return self._waiting[:MOST_AT_ONCE]

    def _run(self) -> None:
        self._prepare_thread()
        never = threading.Event()
        while True:
            self._something.wait()
            never.wait(BATCH_SECONDS)
            self._something.clear()
            while not self.flush():
                never.wait(AGAIN_SECONDS)


_writers: weakref.WeakSet[LogWriter] = weakref.WeakSet()


def _forget_lines_of_parent() -> None:
    for writer in list(_writers):
        writer._forget()  # noqa: SLF001 - same module


os.register_at_fork(after_in_child=_forget_lines_of_parent)


def keep_task_logs(writer: LogWriter, masker: Masker, most_lines: int, most_bytes: int) -> None:
    """From now on what actions log in this process is kept; in place of what a parent process has set up."""
    root = logging.getLogger()
    root.handlers[:] = [handler for handler in root.handlers if not isinstance(handler, TaskLogHandler)]
    if most_lines:
        root.addHandler(TaskLogHandler(writer, masker, most_lines, most_bytes))


def _json_of(fields: Mapping[str, Any]) -> str | None:
    return orjson.dumps(fields).decode() if fields else None


def _storable(text: str) -> str:
    """What PostgreSQL can carry as a text."""
    return text.replace("\x00", "\\0")


def _cut(text: str, most_bytes: int) -> str:
    return text.encode()[: max(0, most_bytes - 3)].decode(errors="ignore") + "…"
