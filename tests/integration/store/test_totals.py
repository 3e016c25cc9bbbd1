"""Totals for metrics: whatever is written how often and in whatever order, they say what the rows say."""

from __future__ import annotations

import threading
from collections import Counter
from contextlib import closing
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestration.errors import ServiceUnreachable
from orchestration.store import sessions, totals, updates
from orchestration.store.pool import Database
from orchestration.store.totals import read_totals
from orchestration.store.updates import BranchUpdate, TaskUpdate
from orchestration.telemetry.metrics import DURATIONS
from orchestration.vocabulary import RunStatus
from tests.integration.store.gate import Gate
from tests.integration.store.rows import DAY, NOON_US, new_id, new_session, task
from tests.support.waiting import wait_until

STATUSES = ["pending", "running", "succeeded", "failed", "timed_out", "cancelled", "skipped", "upstream_failed"]
ENDED = STATUSES[2:]


def ends(database: Database) -> Counter[tuple[str, ...]]:
    """What was counted as ended and not taken back: (kind, workflow, action, status) → rows."""
    found: Counter[tuple[str, ...]] = Counter()
    for total in read_totals(database):
        kind, _, undone = total.of.measure.partition("_")
        if kind in ("task", "item", "branch") and undone in ("", "undone"):
            key = (kind, total.of.workflow, total.of.action, total.of.status)
            found[key] += -total.count if undone else total.count
    return +found


def rows_that_ended(database: Database) -> Counter[tuple[str, ...]]:
    """The same, as the tables have it."""
    found = database.fetch(
        "SELECT CASE WHEN item < 0 THEN 'task' ELSE 'item' END, COALESCE(workflow, 'other'), action, t.status, count(*)"
        " FROM tasks t LEFT JOIN flow_sessions USING (session_day, flow_session_id)"
        " WHERE t.status = ANY (%(ended)s) GROUP BY 1, 2, 3, 4"
        " UNION ALL SELECT 'branch', COALESCE(workflow, 'other'), '', b.status, count(*)"
        " FROM branches b LEFT JOIN flow_sessions USING (session_day, flow_session_id)"
        " WHERE b.status = ANY (%(ended)s) GROUP BY 1, 2, 3, 4",
        {"ended": ENDED},
    )
    return Counter({tuple(row[:4]): row[4] for row in found})


def sum_of(database: Database, measure: str, **where: str) -> tuple[int, int]:
    """Count and sum of a measure, over its buckets."""
    found = [
        total for total in read_totals(database)
        if total.of.measure == measure and all(getattr(total.of, name) == value for name, value in where.items())
    ]  # fmt: skip
    return sum(total.count for total in found), sum(total.total for total in found)


@st.composite
def _histories(draw: st.DrawFn) -> list[TaskUpdate]:
    moments = st.integers(NOON_US - 10**7, NOON_US)
    keys = st.lists(st.tuples(st.sampled_from(["a", "b"]), st.integers(-1, 2)), min_size=1, max_size=5, unique=True)
    sequences = st.lists(st.integers(100_001, 300_025), min_size=1, max_size=4, unique=True)
    return [
        task(
            session, action, item, status=draw(st.sampled_from(STATUSES)), sequence=sequence,
            attempt=draw(st.integers(1, 3)), started_us=draw(st.none() | moments),
            finished_us=draw(st.none() | moments), error=draw(st.none() | st.just('{"type": "Odd"}')),
        )
        for session in draw(st.sampled_from([["one"], ["one", "two"]]))
        for action, item in draw(keys)
        for sequence in draw(sequences)
    ]  # fmt: skip


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), history=_histories())
def test_totals_are_what_the_rows_say_whatever_is_repeated_late_and_in_any_batches(
    database: Database, data: st.DataObject, history: list[TaskUpdate]
) -> None:
    runs = {name: new_session(database, f"drawn-{name}").flow_session_id for name in ("one", "two")}
    rows = [row._replace(flow_session_id=runs[row.flow_session_id]) for row in history]
    repeated = data.draw(st.permutations(rows + data.draw(st.lists(st.sampled_from(rows), max_size=6))))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(repeated)), max_size=4)))
    for start, end in zip([0, *cuts], [*cuts, len(repeated)], strict=True):
        tasks = repeated[start:end]
        branches = [
            BranchUpdate(
                row.session_day, row.flow_session_id, f"{row.action}{row.item}", row.status, row.attempt,
                row.sequence, row.queue, row.worker, row.started_us, row.finished_us, 5,
            )
            for row in tasks
        ]  # fmt: skip
        updates.write_rows(database, tasks, branches)
        if data.draw(st.booleans(), "fold"):
            totals.fold_changes(database)
    assert ends(database) == rows_that_ended(database)


def test_writers_at_the_same_time_count_each_row_once(database: Database) -> None:
    runs = [new_session(database, "crowd").flow_session_id for _ in range(4)]
    before = sum_of(database, "item", workflow="crowd")[0]
    rows = [task(run, "each", item, finished_us=NOON_US + 5) for run in runs for item in range(50)]
    threads = [
        threading.Thread(target=updates.write_rows, args=(database, rows[start:] + rows[:start]))
        for start in range(0, 200, 50)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum_of(database, "item", workflow="crowd")[0] - before == 200
    assert ends(database) == rows_that_ended(database)


def test_an_end_that_was_taken_back_is_said(database: Database) -> None:
    run = new_session(database, "twice").flow_session_id
    updates.write_rows(database, [task(run)])
    updates.write_rows(database, [task(run, status="running", sequence=200_001, attempt=2)])
    assert sum_of(database, "task_undone", workflow="twice") == (1, 0)
    updates.write_rows(database, [task(run, status="failed", sequence=200_005, attempt=2, error='{"type": "Late"}')])
    assert sum_of(database, "task", workflow="twice", status="succeeded")[0] == 1
    assert sum_of(database, "task", workflow="twice", status="failed")[0] == 1
    assert sum_of(database, "task_retries", workflow="twice")[0] == 1
    assert sum_of(database, "failure", status="Late")[0] == 1


def test_nothing_is_counted_where_metrics_are_off(database: Database, database_url: str) -> None:
    row = new_session(database, "uncounted")
    key = (row.flow_session_id, row.session_day)
    branch = BranchUpdate(DAY, row.flow_session_id, "b", "succeeded", 1, 100_005, "branches", "w", NOON_US, NOON_US, 1)
    with closing(Database(database_url, counts=False)) as silent:
        updates.write_rows(silent, [task(row.flow_session_id), task(row.flow_session_id, "odd", result="{")], [branch])
        assert sessions.finish_session(silent, *key, RunStatus.FAILED, workflow="uncounted", branches=1)[0]
    ended = sessions.find_session(database, row.flow_session_id)
    assert ended is not None
    assert ended.status == RunStatus.FAILED
    assert sum(count for (_, workflow, *_), count in rows_that_ended(database).items() if workflow == "uncounted") == 3
    assert [total for total in read_totals(database) if total.of.workflow == "uncounted"] == []
    # other tests compare all that is counted with all that is recorded
    for table in ("tasks", "branches", "flow_sessions"):
        database.execute(f"DELETE FROM {table} WHERE flow_session_id = %s", (row.flow_session_id,))


def test_durations_and_waits_are_in_the_buckets_they_belong_to(database: Database) -> None:
    run = new_session(database, "timed").flow_session_id
    bounds = DURATIONS.whole
    took = [bounds[0], bounds[0] + 1, bounds[-1], bounds[-1] + 1, 0]
    rows = [task(run, "each", item, finished_us=NOON_US + us) for item, us in enumerate(took)]
    branch = BranchUpdate(DAY, run, "b", "succeeded", 1, 100_005, "branches", "w", NOON_US, NOON_US + 7, bounds[1])
    updates.write_rows(database, [*rows, task(run, "skipped", status="skipped", started_us=None)], [branch])
    found = Counter[Any]()
    for total in read_totals(database):
        if total.of.workflow == "timed" and total.of.measure == "item":
            found[total.of.bucket] += total.count
    assert found == {0: 2, 1: 1, len(bounds) - 1: 1, len(bounds): 1}
    assert sum_of(database, "item", workflow="timed") == (5, sum(took))
    assert sum_of(database, "branch_wait", workflow="timed") == (1, bounds[1])


def test_a_run_is_counted_by_the_one_who_ends_it(database: Database) -> None:
    row = new_session(database, "ended")
    key = (row.flow_session_id, row.session_day)
    for status in (RunStatus.FAILED, RunStatus.SUCCEEDED):
        sessions.finish_session(database, *key, status, workflow="ended", branches=7)
    count, took_us = sum_of(database, "workflow", workflow="ended", status="failed")
    assert count == 1
    ended = sessions.find_session(database, row.flow_session_id)
    assert ended is not None
    assert took_us == round((ended.duration_seconds or 0) * 1e6)
    assert sum_of(database, "workflow", workflow="ended", status="succeeded") == (0, 0)
    assert sum_of(database, "workflow_branches", workflow="ended") == (1, 7)


def test_a_commit_that_was_not_answered_is_counted_once(database: Database, database_url: str) -> None:
    run = new_session(database, "cut").flow_session_id
    rows = [task(run, item=item) for item in range(30)]
    with Gate(database_url) as gate:
        behind = Database(gate.url)
        gate.cut_behind = b"COMMIT"
        with pytest.raises(ServiceUnreachable):
            updates.write_rows(behind, rows)
        wait_until(lambda: sum_of(database, "item", workflow="cut")[0] == 30, "PostgreSQL has committed")
        updates.write_rows(behind, rows)
        assert sum_of(database, "item", workflow="cut")[0] == 30
        behind.close()


def test_a_refused_row_is_counted_as_it_is_recorded(database: Database) -> None:
    run = new_session(database, "refused").flow_session_id
    rows = [task(run, item=item, result="{" if item == 3 else "1") for item in range(8)]
    assert len(updates.write_rows(database, rows).refused) == 1
    assert sum_of(database, "item", workflow="refused", status="succeeded")[0] == 8
    assert ends(database) == rows_that_ended(database)


def test_names_beyond_the_bound_are_counted_together(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(totals, "MOST_NAMES", 0)
    run = new_session(database, f"late-{new_id()}").flow_session_id
    before = sum_of(database, "task", workflow=totals.OTHER, action=totals.OTHER)[0]
    updates.write_rows(database, [task(run, "late")])
    assert sum_of(database, "task", workflow=totals.OTHER, action=totals.OTHER)[0] == before + 1
    # other tests compare all that is counted with all that is recorded, by name
    database.execute("DELETE FROM tasks WHERE flow_session_id = %s", (run,))
    totals.fold_changes(database)
    database.execute("DELETE FROM metric_totals WHERE workflow = %s", (totals.OTHER,))


def test_what_is_folded_counts_as_before_and_is_held_once(database: Database) -> None:
    run = new_session(database, "folded").flow_session_id
    for item in range(3):
        updates.write_rows(database, [task(run, item=item, status="failed", error='{"type": "Quote\\"d, {x}"}')])
    before = read_totals(database)
    began = {total.of: total.began for total in before}
    assert sum_of(database, "failure", status='Quote"d, {x}') == (3, 0)
    totals.fold_changes(database)
    assert database.fetch("SELECT count(*) FROM metric_changes") == [(0,)]
    assert read_totals(database) == before
    updates.write_rows(database, [task(run, item=3, status="failed")])
    totals.fold_changes(database)
    totals.fold_changes(database)
    assert sum_of(database, "item", workflow="folded", status="failed") == (4, 0)
    after = {total.of: total.began for total in read_totals(database)}
    assert after.items() >= began.items(), "a counter keeps its beginning"


def test_whoever_folds_while_others_write_and_read_loses_and_doubles_nothing(database: Database) -> None:
    run = new_session(database, "busy").flow_session_id
    ended, seen = threading.Event(), list[int]()

    def fold() -> None:
        while not ended.is_set():
            totals.fold_changes(database)

    def read() -> None:
        while not ended.is_set():
            seen.append(sum_of(database, "item", workflow="busy")[0])

    others = [threading.Thread(target=work) for work in (fold, fold, read)]
    for thread in others:
        thread.start()
    try:
        for item in range(150):
            updates.write_rows(database, [task(run, item=item)])
    finally:
        ended.set()
        for thread in others:
            thread.join()
    assert sum_of(database, "item", workflow="busy")[0] == 150
    assert seen == sorted(seen), "a counter never goes back"
    assert ends(database) == rows_that_ended(database)


def test_a_fold_that_was_not_answered_is_done_once(database: Database, database_url: str) -> None:
    run = new_session(database, "killed").flow_session_id
    updates.write_rows(database, [task(run, item=item) for item in range(5)])
    before = read_totals(database)
    with Gate(database_url) as gate, closing(Database(gate.url)) as behind:
        gate.cut_behind = b"DELETE FROM metric_changes"
        with pytest.raises(ServiceUnreachable):
            totals.fold_changes(behind)
        totals.fold_changes(behind)
    assert read_totals(database) == before
