"""Large results, and the results of the items of a `for_each`."""

from __future__ import annotations

import threading

import pytest

from orchestration.errors import WorkflowExecutionError
from orchestration.store import results, updates
from orchestration.store.pool import Database
from tests.integration.store.rows import DAY, new_id, task


def test_a_large_result_comes_back_byte_for_byte(database: Database) -> None:
    flow_session_id, content = new_id(), bytes(range(256)) * 4000
    results.put_result(database, flow_session_id, DAY, "work", -1, content)
    assert results.get_result(database, flow_session_id, DAY, "work") == content
    assert results.get_result(database, flow_session_id, DAY, "work", 0) is None


def test_a_former_attempt_does_not_overwrite_a_later_ones_result(database: Database) -> None:
    flow_session_id = new_id()
    results.put_result(database, flow_session_id, DAY, "work", 3, b"2", attempt=2)
    results.put_result(database, flow_session_id, DAY, "work", 3, b"1", attempt=1)
    assert results.get_result(database, flow_session_id, DAY, "work", 3) == b"2"


def test_item_results_come_in_order_large_ones_too(database: Database) -> None:
    flow_session_id = new_id()
    rows = [task(flow_session_id, item=item, result=f"{item}") for item in range(5000)]
    rows[7] = task(flow_session_id, item=7, result=results.stored_mark(2))
    rows[8] = task(flow_session_id, item=8, status="failed")
    rows[9] = task(flow_session_id, item=9, result=r'"\u0000"')
    results.put_result(database, flow_session_id, DAY, "work", 7, b'["large"]')
    results.put_result(database, flow_session_id, DAY, "work", 11, b'"left by a former attempt"')
    updates.write_rows(database, [*rows, task(flow_session_id, action="other", item=0, result="1")])
    found = results.item_results(database, flow_session_id, DAY, "work", 5000)
    assert found[7:12] == [["large"], None, "\x00", 10, 11]
    assert found[4999] == 4999
    with results.iterate_item_results(database, flow_session_id, DAY, "work") as pairs:
        assert [item for item, _ in pairs] == [item for item in range(5000) if item != 8]


def test_reading_item_results_waits_for_the_updater(database: Database) -> None:
    flow_session_id = new_id()
    rows = [task(flow_session_id, item=item, result=f"{item}") for item in range(3)]
    updates.write_rows(database, rows[:2])
    late = threading.Timer(0.05, updates.write_rows, (database, rows[2:]))
    late.start()
    assert results.item_results(database, flow_session_id, DAY, "work", 3) == [0, 1, 2]
    late.join()
    with pytest.raises(WorkflowExecutionError, match="only 3 of 4 items"):
        results.item_results(database, flow_session_id, DAY, "work", 4, wait_seconds=0.01)
