"""Rate limits with real workers: what PostgreSQL says of when calls began, and what they hold while they wait."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.support.clients import Client, running_client
from tests.support.fleet import Fleet
from tests.support.records import Records

#: 200 calls by 40 a second take five.
CALLS, PER_SECOND, BURST = 200, 40, 5


@pytest.fixture(scope="module")
def workers(module_fleet: Fleet) -> Fleet:
    """Two workers, as two hosts would be."""
    module_fleet.start(2, concurrency=2, ACTION_MODULES="tests.support.journal")
    return module_fleet


@pytest.fixture(scope="module")
def client(workers: Fleet) -> Iterator[Client]:
    with running_client(workers) as running:
        yield running


def run(client: Client, *workflows: dict[str, Any]) -> list[dict[str, Any]]:
    code = "result = [each.get(timeout=100) for each in [send(workflow).delay() for workflow in workflows]]"
    results: list[dict[str, Any]] = client.run(code, workflows=workflows)
    return results


def record(tmp_path: Path, **more: object) -> dict[str, Any]:
    return {"uses": "test.record", "with": {"journal": str(tmp_path / "journal")}, **more}


def started(workers: Fleet, results: Sequence[dict[str, Any]], action: str, calls: int, rows: int) -> list[datetime]:
    """When the calls of an action began, in order."""
    starts: list[datetime] = []
    for result in results:
        tasks = Records(workers).tasks(result["flow_session_id"], rows)
        assert {row.attempt for row in tasks.values()} == {1}, "a wait is no attempt"
        starts += [
            row.started_at for row in tasks.values() if row.action == action and row.item >= 0 and row.started_at
        ]
    assert len(starts) == calls
    return sorted(starts)


def assert_within(starts: Sequence[datetime], interval_seconds: float, burst: int) -> None:
    """In no window have more begun than the burst and what the rate gives in its length."""
    for first, begin in enumerate(starts):
        for last in range(first, len(starts)):
            seconds = (starts[last] - begin).total_seconds()
            assert last - first + 1 <= burst + seconds / interval_seconds, f"{last - first + 1} calls in {seconds} s"


def test_calls_of_two_runs_obey_one_limit_to_the_microsecond(client: Client, workers: Fleet, tmp_path: Path) -> None:
    each = record(tmp_path, for_each={"range": CALLS // 2}, rate_limit=f"{PER_SECOND}/s burst {BURST}")
    results = run(client, *[{"name": "limited", "actions": {"each": each}}] * 2)
    assert [result["counts"] for result in results] == [{"succeeded": CALLS // 2}] * 2
    starts = started(workers, results, "each", CALLS, CALLS // 2 + 1)
    assert_within(starts, 1 / PER_SECOND, BURST)
    Records(workers).wait_nothing_live()


def test_a_call_that_waits_holds_no_process(client: Client, workers: Fleet, tmp_path: Path) -> None:
    """Other branches of the session run meanwhile, under a limit of one."""
    actions = {
        "slow": record(tmp_path, for_each={"range": 3}, rate_limit="1/s"),
        "others": record(tmp_path, for_each={"range": 50}),
    }
    (result,) = run(client, {"name": "beside", "limits": {"max_concurrent_branches": 1}, "actions": actions})
    tasks = Records(workers).tasks(result["flow_session_id"], 55)
    last = max(row.finished_at for (action, item), row in tasks.items() if action == "others" and item >= 0)  # type: ignore[type-var]
    waits = sorted(row.started_at for (action, item), row in tasks.items() if action == "slow" and item >= 0)  # type: ignore[type-var]
    assert last is not None
    assert waits[2] is not None
    assert last < waits[2]


def test_runs_with_the_same_key_share_a_rate_and_others_have_their_own(
    client: Client, workers: Fleet, tmp_path: Path
) -> None:
    limits = {"concurrency_key": "${{ payload.customer }}", "rate_limit_per_key": f"20/s burst {BURST}"}
    workflows = [
        {"name": name, "limits": limits, "actions": {"each": record(tmp_path, for_each={"range": 20})}}
        for name in ("orders", "returns")
    ]
    code = """
        sent = [send(workflow, {"customer": key}).delay() for workflow in workflows for key in ("ada", "grace")]
        result = [each.get(timeout=100) for each in sent]
    """
    results: list[dict[str, Any]] = client.run(code, workflows=workflows)
    by_key = [started(workers, [results[first], results[first + 2]], "each", 40, 21) for first in (0, 1)]
    for starts in by_key:
        assert_within(starts, 1 / 20, BURST)
    with pytest.raises(AssertionError):
        assert_within(sorted(by_key[0] + by_key[1]), 1 / 20, BURST)
    Records(workers).wait_nothing_live()


def test_steps_of_a_branch_that_runs_alone_obey_too(client: Client, workers: Fleet, tmp_path: Path) -> None:
    """The limit of a workflow holds for all its actions together, also where no branch needs Redis."""
    actions = {
        "a": record(tmp_path), "b": record(tmp_path, needs=["a"]), "c": record(tmp_path, needs=["b"]),
    }  # fmt: skip
    (result,) = run(client, {"name": "alone", "limits": {"rate_limit": "2/s"}, "actions": actions})
    assert result["counts"] == {"succeeded": 3}
    tasks = Records(workers).tasks(result["flow_session_id"], 3)
    assert {row.attempt for row in tasks.values()} == {1}
    starts = [tasks[name, -1].started_at for name in "abc"]
    assert all(starts)
    assert_within([start for start in starts if start], 0.5, 1)
    journal = (tmp_path / "journal").read_text().splitlines()
    assert [line.split()[1] for line in journal if line.startswith("start")] == ["a", "b", "c"], "each ran once"
