"""Results that are read from PostgreSQL: large ones (`task_results`), and those of the items of a `for_each`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import orjson

from orchestration.errors import WorkflowExecutionError
from orchestration.store import json_text
from orchestration.store.pool import Database, Day
from orchestration.telemetry.probes import probed
from orchestration.vocabulary import NO_ITEM

#: The mark in `tasks.result` of a result that is kept in `task_results`: {"$stored": true, "size_bytes": N}.
STORED_MARK = "$stored"

_PUT = """
INSERT INTO task_results AS old (session_day, flow_session_id, action, item, attempt, content)
VALUES (%s, %s, %s, %s, %s, %s)
ON CONFLICT (session_day, flow_session_id, action, item) DO UPDATE SET
    attempt = EXCLUDED.attempt, content = EXCLUDED.content, created_at = clock_timestamp()
WHERE EXCLUDED.attempt >= old.attempt
"""

_ITEMS = """
SELECT task.item, task.result, large.content FROM tasks AS task
LEFT JOIN task_results AS large ON large.session_day = task.session_day
    AND large.flow_session_id = task.flow_session_id AND large.action = task.action AND large.item = task.item
WHERE task.session_day = %s AND task.flow_session_id = %s AND task.action = %s AND task.item >= 0
    AND task.status = 'succeeded'
ORDER BY task.item
"""

_SETTLED = """
SELECT count(*) FROM tasks WHERE session_day = %s AND flow_session_id = %s AND action = %s AND item >= 0
    AND status NOT IN ('pending', 'running')
"""

_FIRST_LOOK_SECONDS, _LONGEST_LOOK_SECONDS = 0.01, 0.5


@probed("sql.put_result")
def put_result(
    database: Database,
    flow_session_id: str,
    session_day: Day,
    action: str,
    item: int,
    content: bytes,
    attempt: int = 1,
) -> None:
    """The result is committed; one of a later attempt is not overwritten. `item` is NO_ITEM for a plain task."""
    database.execute(_PUT, (session_day, flow_session_id, action, item, attempt, content))


def get_result(
    database: Database, flow_session_id: str, session_day: Day, action: str, item: int = NO_ITEM
) -> bytes | None:
    """A large result as it was put, None when there is none."""
    rows = database.fetch(
        "SELECT content FROM task_results"
        " WHERE session_day = %s AND flow_session_id = %s AND action = %s AND item = %s",
        (session_day, flow_session_id, action, item),
    )
    return bytes(rows[0][0]) if rows else None


def item_results(
    database: Database, flow_session_id: str, session_day: Day, action: str, size: int, wait_seconds: float = 60.0
) -> list[object]:
    """Results of all items of a settled `for_each`, in order; None where an item did not succeed.

    The items settled in Redis before their rows came here: this waits for the updater to have written all `size`.
    Raises: WorkflowExecutionError: it did not in `wait_seconds`.
    """
    deadline, look_seconds = time.monotonic() + wait_seconds, _FIRST_LOOK_SECONDS
    while (settled := database.fetch(_SETTLED, (session_day, flow_session_id, action))[0][0]) < size:
        if time.monotonic() > deadline:
            raise WorkflowExecutionError(
                f"only {settled} of {size} items of {action!r} of flow session {flow_session_id} have reached "
                f"PostgreSQL in {wait_seconds:g} s; see whether a worker runs and can reach it"
            )
        time.sleep(look_seconds)
        look_seconds = min(look_seconds * 2, _LONGEST_LOOK_SECONDS)
    values: list[object] = [None] * size
    with iterate_item_results(database, flow_session_id, session_day, action) as results:
        for item, value in results:
            if item < size:
                values[item] = value
    return values


@contextmanager
def iterate_item_results(
    database: Database, flow_session_id: str, session_day: Day, action: str
) -> Iterator[Iterator[tuple[int, Any]]]:
    """(item, result) of each succeeded item of a `for_each`, in order, as a stream: memory does not grow with them."""
    with database.stream(_ITEMS, (session_day, flow_session_id, action)) as rows:
        yield ((item, _value(result, large)) for item, result, large in rows)


def _value(result: Any, large: memoryview | None) -> Any:
    # A row in task_results alone does not tell: a former attempt may have left it.
    if large is not None and isinstance(result, dict) and result.get(STORED_MARK) is True:
        return json_text.load(bytes(large))
    return result


def stored_mark(size_bytes: int) -> str:
    """The text that stands in `tasks.result` for a result kept here."""
    return orjson.dumps({STORED_MARK: True, "size_bytes": size_bytes}).decode()


def is_stored_mark(text: str) -> bool:
    """Whether the text in `tasks.result` is such a mark."""
    value = orjson.loads(text)
    return isinstance(value, dict) and value.get(STORED_MARK) is True
