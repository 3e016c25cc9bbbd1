"""Totals for metrics, changed in the very transaction that changes the rows they count: they always agree.

A change of a row counts its end (it had not ended, now it has) or takes one back (it had ended, and runs once more). So
for each status, what was counted as ended, less what was taken back, is how many rows have it. `updates` and `sessions`
call this; `read_totals` is for metrics. Runs that retention drops stay counted.

A transaction only appends what it changes (`metric_changes`), so that none waits for another; `fold_changes` adds that
to the totals, and the view `metric_counts` is both.
"""

from __future__ import annotations

import threading
import time
import weakref
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from orchestration.store.pool import Cursor, Database, Row
from orchestration.telemetry.metrics import BRANCH_COUNTS, DURATIONS, WAITS, Bounds
from orchestration.vocabulary import TaskStatus

#: In place of names beyond the bound.
OTHER: Final = "other"
#: Workflows, pairs of workflow and action, and types of errors that are told apart here; metrics may show fewer.
MOST_NAMES: Final = 1000
#: How long a process goes by the names that it knows.
NAMES_SECONDS: Final = 60.0
#: What is appended waits at most so long for `fold_changes`: some hundred rows.
FOLD_SECONDS: Final = 5.0
NO_BUCKET: Final = -1
_ENDED: Final = frozenset(status.value for status in TaskStatus if status.is_final)


class Measure(NamedTuple):
    """What a number counts; its fields are the key in `metric_totals`."""

    measure: str
    workflow: str
    #: Empty where it is not of an action.
    action: str
    #: What it is told apart by: a status, or the type of an error.
    status: str
    #: The place of a duration or size in its bounds; NO_BUCKET: it has none, or is not known.
    bucket: int


@dataclass(frozen=True, slots=True)
class Total:
    """One number of all that was counted; `total` is the sum of durations in µs, or of sizes."""

    of: Measure
    count: int
    total: int
    #: Seconds since 1970 at which it was first counted.
    began: float


def bucket_sql(value: str, bounds: Bounds) -> str:
    """SQL for the place of an integer in bounds: the first that it is not above; their number when it is above all."""
    whole = ",".join(map(str, bounds.whole))  # a text is read at once, an ARRAY is an expression for each bound
    return f"COALESCE(width_bucket(({value} - 0.5)::float8, '{{{whole}}}'::float8[]), {NO_BUCKET})"


def microseconds_sql(started: str, finished: str) -> str:
    """SQL for the µs between two timestamps, as a whole number (`extract` is slower: it makes a numeric)."""
    return f"round(date_part('epoch', {finished} - {started}) * 1e6)"


#: Read apart, by values and not by a join with the rows: so it is planned for the partitions of these days only.
_WORKFLOWS: Final = """workflows_of_rows AS MATERIALIZED (
    SELECT flow_session_id, workflow FROM flow_sessions
    WHERE session_day = ANY (%s::date[]) AND flow_session_id = ANY (%s)
)"""


def count_tasks(upsert: str) -> str:
    """A statement that writes tasks and gives what it changed (`add_tasks`); its last parameters: `sessions_of`."""
    return f"""
WITH written AS (
    {upsert} RETURNING flow_session_id, action, item, status, previous_status, attempt, previous_attempt,
        {microseconds_sql("started_at", "finished_at")} AS took_us,
        CASE WHEN status = 'failed' THEN left(error ->> 'type', 100) END AS failure
), {_WORKFLOWS}
SELECT COALESCE(workflow, '{OTHER}'), action, item >= 0, status, previous_status, failure,
    {bucket_sql("took_us", DURATIONS)}, count(*), COALESCE(sum(took_us), 0)::bigint,
    sum(GREATEST(attempt - COALESCE(previous_attempt, 1), 0))
FROM written LEFT JOIN workflows_of_rows USING (flow_session_id)
WHERE previous_status IS DISTINCT FROM status OR attempt > previous_attempt
GROUP BY 1, 2, 3, 4, 5, 6, 7
"""


def count_branches(upsert: str) -> str:
    """The same of branches."""
    return f"""
WITH written AS (
    {upsert} RETURNING flow_session_id, status, previous_status, waited_us,
        {microseconds_sql("started_at", "finished_at")} AS took_us
), {_WORKFLOWS}
SELECT COALESCE(workflow, '{OTHER}'), status, previous_status, {bucket_sql("took_us", DURATIONS)},
    {bucket_sql("waited_us", WAITS)}, count(*), COALESCE(sum(took_us), 0)::bigint, COALESCE(sum(waited_us), 0)::bigint
FROM written LEFT JOIN workflows_of_rows USING (flow_session_id)
WHERE previous_status IS DISTINCT FROM status
GROUP BY 1, 2, 3, 4, 5
"""


def sessions_of(rows: Iterable[tuple[Any, ...]]) -> tuple[list[str], list[str]]:
    """The days and the flow sessions of rows that begin with these."""
    pairs = {row[:2] for row in rows}
    return list({pair[0] for pair in pairs}), list({pair[1] for pair in pairs})


class Changes:
    """What one transaction adds to the totals."""

    def __init__(self, names: Names, cursor: Cursor) -> None:
        self._cursor = cursor
        self._names = names
        #: As they come: who reads or folds them adds those of one measure up.
        self._changes: list[tuple[str, str, str, str, int, int, int]] = []

    def add_tasks(self, rows: Iterable[Row]) -> None:
        """Count what a statement of `count_tasks` gave."""
        for workflow, action, is_item, status, previous, failure, bucket, count, took_us, retries in rows:
            pair = self._names.bounded(self._fetch, "action", workflow, action)
            has_ended = self._change("item" if is_item else "task", pair, status, previous, bucket, count, took_us)
            if retries:
                self._add("task_retries", *pair, "", NO_BUCKET, retries)
            if has_ended and status == TaskStatus.FAILED.value:
                _, kind = self._names.bounded(self._fetch, "failure", "", failure or OTHER)
                self._add("failure", "", "", kind, NO_BUCKET, count)

    def add_branches(self, rows: Iterable[Row]) -> None:
        """Count what a statement of `count_branches` gave."""
        for workflow, status, previous, bucket, wait_bucket, count, took_us, waited_us in rows:
            name = self._names.bounded(self._fetch, "workflow", workflow)
            has_ended = self._change("branch", name, status, previous, bucket, count, took_us)
            if has_ended and wait_bucket != NO_BUCKET:
                self._add("branch_wait", *name, "", wait_bucket, count, waited_us)

    def write(self) -> None:
        """Append it all."""
        if self._changes:
            self._cursor.execute(_APPEND, [_array(column) for column in zip(*self._changes, strict=True)])

    def _change(
        self, kind: str, name: tuple[str, str], status: str, previous: str | None, bucket: int, count: int, took_us: int
    ) -> bool:
        """Count ends, with how long it took, and ends that are taken back; returns whether these have ended."""
        if status == previous:
            return False
        if previous in _ENDED:
            self._add(f"{kind}_undone", *name, previous, NO_BUCKET, count)
        if status not in _ENDED:
            return False
        self._add(kind, *name, status, bucket, count, 0 if bucket == NO_BUCKET else took_us)
        return True

    def _fetch(self, query: str) -> list[Row]:
        self._cursor.execute(query)
        return self._cursor.fetchall()

    def _add(
        self, measure: str, workflow: str, action: str, status: str, bucket: int, count: int, total: int = 0
    ) -> None:
        self._changes.append((measure, workflow, action, status, bucket, count, total))


class Names:
    """The names that are told apart, for one process: others come in while there are not too many."""

    def __init__(self) -> None:
        self._known: dict[str, set[tuple[str, str]]] = {}
        self._read_at = float("-inf")
        self._lock = threading.Lock()

    def bounded(
        self, fetch: Callable[[str], list[Row]], kind: str, workflow: str, name: str = ""
    ) -> tuple[str, str]:  # fmt: skip
        """The names under which it is counted.

        Args: fetch: gives the rows of a query. kind: workflow, action (of a workflow) or failure.
        """
        pair = (workflow, name)
        known = self._known.get(kind)
        if known is not None and pair in known:
            return pair
        with self._lock:
            known = self._current(fetch, kind)
            if pair not in known and len(known) >= MOST_NAMES:
                return (OTHER if workflow else "", OTHER if name else "")
            known.add(pair)
        return pair

    def _current(self, fetch: Callable[[str], list[Row]], kind: str) -> set[tuple[str, str]]:
        """What this process knows, and what others have brought in since it last looked."""
        now = time.monotonic()
        if now - self._read_at > NAMES_SECONDS:
            for measure, workflow, action, status in fetch(_NAMES):
                pair = ("", status) if measure == "failure" else (workflow, action)
                self._known.setdefault(_KIND_OF.get(measure, "workflow"), set()).add(pair)
            self._read_at = now
        return self._known.setdefault(kind, set())


def names_of(database: Database) -> Names:
    """The names that this process knows of a database."""
    names = _names.get(database)
    if names is None:
        names = _names.setdefault(database, Names())
    return names


def read_totals(database: Database) -> list[Total]:
    """All that was ever counted, in the order in which it was first."""
    return [
        Total(Measure(*row[:5]), int(row[5]), int(row[6]), row[7]) for row in database.fetch(_READ)
    ]  # fmt: skip


def fold_changes(database: Database) -> None:
    """What transactions have appended is in the totals; any number of processes may do it at once."""
    database.execute(_FOLD)


def branches_bucket(branches: int) -> int:
    """The place of a number of branches in its bounds."""
    return bisect_left(BRANCH_COUNTS.whole, branches)


def _array(values: Sequence[Any]) -> str:
    """The text of an array: an ARRAY of the driver's would be an expression for each value."""
    if not isinstance(values[0], str):
        return "{" + ",".join(map(str, values)) + "}"
    text = '","'.join(values)
    if "\\" in text or text.count('"') > 2 * (len(values) - 1):
        text = '","'.join([value.replace("\\", "\\\\").replace('"', '\\"') for value in values])
    return '{"' + text + '"}'


#: Of a flow session that `finished` has just ended: its duration, and of how many branches it was.
COUNT_FINISHED: Final = f"""
counted AS (
    INSERT INTO metric_changes (measures, workflows, actions, statuses, buckets, counts, totals)
    SELECT '{{workflow,workflow_branches}}', ARRAY[%(name)s, %(name)s], '{{"",""}}', ARRAY[status, status],
        ARRAY[{bucket_sql(microseconds_sql("started_at", "finished_at"), DURATIONS)}, %(branches_bucket)s], '{{1,1}}',
        ARRAY[{microseconds_sql("started_at", "finished_at")}, %(branches)s]::bigint[]
    FROM finished
)"""

_APPEND = """
INSERT INTO metric_changes (measures, workflows, actions, statuses, buckets, counts, totals)
VALUES (%s, %s, %s, %s, %s, %s, %s)
"""

#: In one order, so that two that fold never wait for each other in a circle.
_FOLD = """
WITH folded AS (
    DELETE FROM metric_changes WHERE ctid = ANY (ARRAY(SELECT ctid FROM metric_changes FOR UPDATE SKIP LOCKED))
    RETURNING *
)
INSERT INTO metric_totals AS old (measure, workflow, action, status, bucket, count, total, began_at)
SELECT measure, workflow, action, status, bucket, sum(count), sum(total), min(began_at)
FROM folded, unnest(measures, workflows, actions, statuses, buckets, counts, totals)
    AS one (measure, workflow, action, status, bucket, count, total)
GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2, 3, 4, 5
ON CONFLICT (measure, workflow, action, status, bucket) DO UPDATE SET
    count = old.count + EXCLUDED.count, total = old.total + EXCLUDED.total,
    began_at = LEAST(old.began_at, EXCLUDED.began_at)
"""

_KIND_OF: Final = {"task": "action", "item": "action", "failure": "failure"}
_NAMES = """
SELECT DISTINCT measure, workflow, action, CASE WHEN measure = 'failure' THEN status END
FROM metric_counts WHERE measure IN ('workflow', 'branch', 'task', 'item', 'failure')
"""

_READ = """
SELECT measure, workflow, action, status, bucket, sum(count), sum(total), extract(epoch FROM min(began_at))::float8
FROM metric_counts GROUP BY 1, 2, 3, 4, 5 ORDER BY 8, 1, 2, 3, 4, 5
"""

_names: weakref.WeakKeyDictionary[Database, Names] = weakref.WeakKeyDictionary()
