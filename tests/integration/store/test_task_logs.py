"""Lines that tasks logged: written in batches by many, read page by page, by time and in the order of recording."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestration.engine.context import is_database_away
from orchestration.store import task_logs
from orchestration.store.pool import Database
from orchestration.store.task_logs import LoggedLine, lines_by_time, lines_since, newest_line, write_task_logs
from orchestration.telemetry.task_logs import LogWriter, TaskLogLine
from orchestration.vocabulary import NO_ITEM
from tests.integration.store.rows import DAY, NOON_US, new_id
from tests.support.waiting import wait_until


def line(session: str, message: str, us: int = NOON_US, *, action: str = "work", item: int = NO_ITEM,
         level: str = "info", fields: str | None = None) -> TaskLogLine:  # fmt: skip
    return TaskLogLine(DAY, session, action, item, 1, us, level, "shop", message, fields)


def all_pages(database: Database, session: str, size: int, **narrowed: object) -> list[LoggedLine]:
    found: list[LoggedLine] = []
    while True:
        page = lines_by_time(
            database, session, DAY, after=found[-1].place if found else None, limit=size, **narrowed  # type: ignore[arg-type]
        )  # fmt: skip
        found += page
        if len(page) < size:
            return found


def test_a_line_comes_back_as_it_was_written(database: Database) -> None:
    session = new_id()
    write_task_logs(
        database, [line(session, "é \x1f\n{}\\0,'\"", item=7, level="error", fields='{"sku": ["\\u0000"]}')]
    )
    (found,) = lines_by_time(database, session, DAY)
    assert found.message == "é \x1f\n{}\\0,'\""
    assert found.logged_at == datetime.fromtimestamp(0, UTC) + timedelta(microseconds=NOON_US)
    assert (found.action, found.item, found.attempt, found.level, found.logger) == ("work", 7, 1, "error", "shop")
    assert found.fields == {"sku": ["\0"]}


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["a", "b"]), st.integers(-1, 1)), max_size=30),
       st.integers(1, 7))  # fmt: skip
def test_pages_together_are_the_whole(database: Database, rows: list[tuple[int, str, int]], size: int) -> None:
    session = new_id()
    lines = [
        line(session, str(number), NOON_US + us, action=action, item=item)
        for number, (us, action, item) in enumerate(rows)
    ]
    if lines:
        write_task_logs(database, lines)
    by_time = sorted(lines, key=lambda each: (each.logged_us, int(each.message)))
    assert [found.message for found in all_pages(database, session, size)] == [each.message for each in by_time]
    of_task = [each.message for each in by_time if (each.action, each.item) == ("a", 1)]
    assert [found.message for found in all_pages(database, session, size, action="a", item=1)] == of_task
    seen: list[LoggedLine] = []
    while page := lines_since(database, session, DAY, after_id=seen[-1].id if seen else 0, limit=size):
        seen += page
    assert [found.message for found in seen] == [each.message for each in lines]
    assert newest_line(database, session, DAY) == (seen[-1].id if seen else 0)


@pytest.mark.parametrize(("level", "most"), [("debug", 4), ("info", 3), ("warning", 2), ("error", 1), ("critical", 0)])
def test_a_level_is_that_and_worse(database: Database, level: str, most: int) -> None:
    session = new_id()
    write_task_logs(database, [line(session, each, level=each) for each in ("debug", "info", "warning", "error")])
    assert len(lines_by_time(database, session, DAY, level=level)) == most


def test_who_follows_misses_no_line_of_a_slower_writer(database: Database) -> None:
    """A line whose id was given first is not committed after one whose id is larger."""
    session, begun, end = new_id(), threading.Event(), threading.Event()

    def slow() -> None:
        with database.transaction() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", (task_logs.ADVISORY_LOCK,))
            cursor.execute(task_logs._INSERT, [[value] for value in line(session, "slow")])
            begun.set()
            end.wait(20)

    first = threading.Thread(target=slow)
    second = threading.Thread(target=write_task_logs, args=(database, [line(session, "quick")]))
    first.start()
    begun.wait(20)
    second.start()
    wait_until(
        lambda: bool(database.fetch("SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")),
        "the second writer waits",
    )
    assert lines_since(database, session, DAY) == []
    end.set()
    first.join()
    second.join()
    assert [found.message for found in lines_since(database, session, DAY)] == ["slow", "quick"]


def test_lines_wait_in_their_process_while_postgresql_is_away(database: Database) -> None:
    session, reached = new_id(), [Database("postgresql://nobody@127.0.0.1:1/none")]
    writer = LogWriter(lambda lines: write_task_logs(reached[0], lines), is_database_away)
    writer.put(line(session, "waits"))
    assert not writer.flush()
    reached[0] = database
    wait_until(lambda: bool(lines_by_time(database, session, DAY)), "its thread writes the line")
    assert [found.message for found in lines_by_time(database, session, DAY)] == ["waits"]
