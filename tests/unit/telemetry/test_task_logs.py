"""What is kept of what a task logs: whose it is, how much, and what happens to it when nobody takes it."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.masking import Masker
from orchestration.telemetry import task_logs
from orchestration.telemetry.logs import ActionLogger, Place, at
from orchestration.telemetry.task_logs import LINE_BYTES, LogWriter, TaskLogHandler, TaskLogLine
from orchestration.vocabulary import NO_ITEM
from tests.support.waiting import wait_until


@dataclass
class Run:
    flow_session_id: str = "5e55"
    day: str = "2026-01-31"
    workflow: str = "orders"
    traceparent: str | None = None

    def now_us(self) -> int:
        return 1_000_000


@dataclass(eq=False)
class Task:
    action: str = "fetch"
    item: int = NO_ITEM
    number: int = 1


@dataclass
class Kept:
    """Stands for PostgreSQL, which may be away."""

    lines: list[TaskLogLine] = field(default_factory=list)
    away: threading.Event = field(default_factory=threading.Event)
    is_refused: bool = False
    written_by: set[str] = field(default_factory=set)

    def write(self, lines: Sequence[TaskLogLine]) -> None:
        if self.away.is_set():
            raise ConnectionError
        if self.is_refused:
            self.is_refused = False
            raise ValueError("refused")
        self.written_by.add(threading.current_thread().name)
        self.lines += lines

    def writer(self) -> LogWriter:
        return LogWriter(self.write, lambda error: isinstance(error, ConnectionError))

    @property
    def messages(self) -> list[str]:
        return [line.message for line in self.lines]


@contextmanager
def kept_by(writer: LogWriter, most_lines: int = 500, most_bytes: int = 65_536) -> Iterator[logging.Logger]:
    logger = logging.Logger("shop", logging.INFO)  # noqa: LOG001 - nobody else's
    logger.addHandler(TaskLogHandler(writer, Masker(["canary-1"]), most_lines, most_bytes))
    yield logger


def test_a_line_is_kept_with_its_task() -> None:
    kept = Kept()
    writer = kept.writer()
    with kept_by(writer) as logger, at(Place(Run(), call=Task("ship", 17, 3))):
        logger.warning("sold %d, password=%s", 3, "hidden-1", extra={"sku": 5, "token": "hidden-2", "who": "canary-1"})
        logger.debug("too little")
    assert writer.flush()
    assert kept.lines == [
        TaskLogLine(
            "2026-01-31", "5e55", "ship", 17, 3, 1_000_000, "warning", "shop", "sold 3, password=***",
            '{"sku":5,"token":"***","who":"***"}',
        )
    ]  # fmt: skip


def test_what_is_logged_between_tasks_is_not_kept() -> None:
    kept = Kept()
    writer = kept.writer()
    with kept_by(writer) as logger:
        logger.info("nowhere")
        with at(Place(Run())):
            logger.info("between two claims")
    assert writer.flush()
    assert kept.lines == []


def test_a_traceback_is_kept_with_its_message() -> None:
    kept = Kept()
    writer = kept.writer()
    with kept_by(writer) as logger, at(Place(Run(), call=Task())):
        try:
            int("no canary-1\0")
        except ValueError:
            logger.exception("failed")
    assert writer.flush()
    (message,) = kept.messages
    assert message.startswith("failed\nTraceback")
    assert message.endswith("with base 10: 'no ***\\x00'")


@given(st.lists(st.text(max_size=60), max_size=40), st.integers(1, 12), st.integers(1024, 2000))
def test_a_task_keeps_so_much_and_says_where_it_was_cut(texts: list[str], most_lines: int, most_bytes: int) -> None:
    kept = Kept()
    writer = kept.writer()
    with kept_by(writer, most_lines, most_bytes) as logger, at(Place(Run(), call=Task())):
        for text in texts:
            logger.info("%s", text)
    assert writer.flush()
    notes = [line for line in kept.lines if line.logger == task_logs.__name__]
    lines = [line for line in kept.lines if line.logger == "shop"]
    assert len(lines) <= most_lines
    assert sum(len(line.message.encode()) + LINE_BYTES for line in lines) <= most_bytes
    if notes:
        assert kept.lines[-1:] == notes
        assert (
            notes[0].message == f"what follows is not kept (TASK_LOG_LINES={most_lines}, TASK_LOG_BYTES={most_bytes})"
        )
    else:
        assert len(lines) == len(texts)


def test_each_attempt_of_each_task_has_its_own_bounds() -> None:
    kept = Kept()
    writer = kept.writer()
    place = Place(Run())
    with kept_by(writer, most_lines=1) as logger, at(place):
        for number in range(3):
            place.call = Task("fetch", number=number)
            logger.info("first")
            logger.info("second")
    assert writer.flush()
    assert kept.messages.count("first") == 3
    assert "second" not in kept.messages


def test_the_logger_of_an_action_keeps_lines_of_other_threads() -> None:
    kept = Kept()
    writer = kept.writer()
    with kept_by(writer) as logger:
        of_action = ActionLogger(logger, (Place(Run()), Task("fetch")))
        thread = threading.Thread(target=of_action.info, args=("far away",))
        thread.start()
        thread.join()
    assert writer.flush()
    assert [(line.action, line.message) for line in kept.lines] == [("fetch", "far away")]


def test_lines_are_written_by_a_thread_soon() -> None:
    kept = Kept()
    with kept_by(kept.writer()) as logger, at(Place(Run(), call=Task())):
        logger.info("one")
        wait_until(lambda: kept.messages == ["one"], "the line is written")
        logger.info("two")
        wait_until(lambda: kept.messages == ["one", "two"], "the next line is written")
    assert kept.written_by == {"task-logs"}


def test_lines_wait_while_nobody_takes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_logs, "MOST_WAITING", 3)
    kept = Kept()
    kept.away.set()
    writer = kept.writer()
    with kept_by(writer) as logger, at(Place(Run(), call=Task())):
        for number in range(5):
            logger.info("%d", number)
        assert not writer.flush()
        kept.away.clear()
        assert writer.flush()
        assert kept.messages == ["0", "1", "2"]
        logger.info("after")
    assert writer.flush()
    assert kept.messages[-1] == "after"


def test_long_lines_that_wait_take_no_more_memory_than_many_short_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_logs, "MOST_WAITING_BYTES", 3000)
    kept = Kept()
    kept.away.set()
    writer = kept.writer()
    with kept_by(writer) as logger, at(Place(Run())) as place:
        for number in range(10):
            place.call = Task(number=number)
            logger.info("%s", "x" * 900)
        assert not writer.flush()
        kept.away.clear()
        assert writer.flush()
        assert len(kept.messages) == 3
        logger.info("%s", "x" * 5000)
        assert writer.flush()
    assert len(kept.messages[-1]) == 5000, "a line that is longer than all that may wait is kept where none waits"


def test_a_statement_is_no_larger_than_it_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_logs, "MOST_BYTES_AT_ONCE", 3000)
    sizes: list[int] = []
    writer = LogWriter(lambda lines: sizes.append(len(lines)), lambda _: False)
    with kept_by(writer) as logger, at(Place(Run())) as place, writer._writing:
        for number, length in enumerate([900, 900, 900, 900, 5000, 10]):
            place.call = Task(number=number)
            logger.info("%s", "x" * length)
    assert writer.flush()
    assert sizes == [3, 1, 1, 1]


def test_a_batch_that_is_refused_does_not_keep_others_back() -> None:
    kept = Kept(is_refused=True)
    writer = kept.writer()
    with kept_by(writer) as logger, at(Place(Run(), call=Task())):
        logger.info("lost")
        assert writer.flush()
        logger.info("kept")
        assert writer.flush()
    assert kept.messages == ["kept"]


#: An action forks while a line waits and the thread that writes holds the lock; the child logs a line of its own.
FORKS = """
import os, sys
from orchestration.telemetry.task_logs import LogWriter, TaskLogLine

def write(lines):
    os.write(1, "".join(f"{os.getpid() == parent} {line.message}\\n" for line in lines).encode())

def line(text):
    return TaskLogLine("2026-01-31", "5e55", "fetch", -1, 1, 0, "info", "shop", text)

parent = os.getpid()
writer = LogWriter(write, lambda error: False)
writer.put(line("before"))
with writer._lock:
    child = os.fork()
    if not child:
        writer.put(line("of the child"))
        writer.flush()
        os._exit(0)
    os.waitpid(child, 0)
writer.flush()
"""


def test_a_forked_child_has_lines_of_its_own() -> None:
    done = subprocess.run([sys.executable, "-c", FORKS], capture_output=True, text=True, timeout=60, check=True)
    assert sorted(done.stdout.splitlines()) == ["False of the child", "True before"]


def test_a_task_that_is_over_is_forgotten() -> None:
    kept = Kept()
    handler = TaskLogHandler(kept.writer(), Masker(), 5, 5000)
    place = Place(Run(), call=Task())
    with at(place):
        handler.handle(logging.makeLogRecord({"msg": "x", "levelname": "INFO", "name": "shop"}))
        assert len(handler._tasks) == 1
        place.call = None
    assert len(handler._tasks) == 0
