"""`dispatch: chord`: runs are literal Celery chords, whose header tasks come and go and count once, at the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.support.clients import Client, running_client
from tests.support.fleet import Fleet
from tests.support.journal import read_journal
from tests.support.records import Records
from tests.support.workflows import Definition, record

ACTION_MODULES = "tests.support.journal,tests.support.celery_actions,tests.support.chord_faults"
SHORT_TOURS = str(Path(__file__).parents[1] / "support" / "short_tours")
NOOP = {"uses": "core.noop"}
#: A branch of a run's chord tells of the message it ran in.
TELL: Definition = {"uses": "test.message"}
#: Messages that both workers have taken, by the name of the task.
TAKEN = """
    from collections import Counter
    totals = [stats["total"] for stats in app.control.inspect(timeout=30, limit=2).stats().values()]
    result = sum(map(Counter, totals), Counter())
"""
WAITS = "result = send(workflow).delay().get(timeout=40)"


@pytest.fixture(scope="module")
def workers(module_fleet: Fleet) -> Fleet:
    """Two workers of two processes, which the setting tells how to dispatch; in one each branch is a message."""
    module_fleet.start(1, concurrency=2, ACTION_MODULES=ACTION_MODULES, DISPATCH="chord")
    module_fleet.start(
        1, concurrency=2, queues=("each",), ACTION_MODULES=ACTION_MODULES, DISPATCH="chord", RUNNER_SLICE_SECONDS="0"
    )
    return module_fleet


@pytest.fixture(scope="module")
def client(workers: Fleet) -> Iterator[Client]:
    with running_client(workers) as running:
        yield running


def fan(each: Definition, items: int, **others: Definition) -> Definition:
    """`start`, a `for_each` behind it, and `last`, which gives the results of the items."""
    last = {"needs": ["each"], "uses": "core.echo", "with": {"value": "${{ tasks.each.result }}"}}
    return {
        "name": "fan",
        "actions": {
            "start": NOOP, "each": {**each, "needs": ["start"], "for_each": {"range": items}}, **others, "last": last
        },
    }  # fmt: skip


def ran(journal: Path) -> dict[str, int]:
    return dict(Counter(task for kind, task, *_ in read_journal(journal) if kind == "start"))


def chord_keys(fleet: Fleet) -> list[str]:
    """What Celery keeps of chords: of one whose body was published only a note that expires in minutes."""
    with closing(redis.Redis.from_url(fleet.redis_url, decode_responses=True)) as connection:
        names = list(connection.scan_iter("celery-taskset-meta-*"))
        assert all(connection.ttl(name) > 0 for name in names)
        return [name for name in names if not name.endswith(".c")]


def check_nothing_left(fleet: Fleet) -> None:
    records = Records(fleet)
    records.wait_idle(("branches", "each"))
    records.wait_nothing_live()
    assert chord_keys(fleet) == []


def test_branches_run_in_the_header_of_one_chord(client: Client, workers: Fleet) -> None:
    result = client.run(WAITS, workflow=fan(TELL | {"with": {"seconds": 0.02}}, 12))
    session, told = result["flow_session_id"], result["output"]["last"]
    assert {tell["task"] for tell in told} == {"tasks.run_branches"}
    assert {tell["group"] for tell in told} == {f"{session}.header"}
    assert all(tell["in_chord"] for tell in told)
    assert {tell["id"] for tell in told} <= {f"{session}.{number}" for number in range(1, 11)}
    assert len({tell["pid"] for tell in told}) == 2
    assert len({tell["message"] for tell in told}) < len(told), "a runner runs many branches in one message"
    check_nothing_left(workers)


def test_with_a_slice_of_no_seconds_each_branch_is_a_message_of_its_own(client: Client, workers: Fleet) -> None:
    workflow = {**fan(TELL, 12, beside={**TELL, "needs": ["start"]}), "queue": "each"}
    result = client.run("result = send(workflow).apply_async(queue='each').get(timeout=40)", workflow=workflow)
    told = result["output"]["last"]
    assert len({tell["message"] for tell in told}) == 12
    assert {tell["group"] for tell in told} == {f"{result['flow_session_id']}.header"}
    check_nothing_left(workers)


def test_the_definition_wins_over_the_setting(client: Client) -> None:
    result = client.run(WAITS, workflow={**fan(TELL, 4), "dispatch": "counted"})
    assert not any(tell["in_chord"] for tell in result["output"]["last"])


def test_a_run_whose_first_branch_is_all_of_it_needs_no_chord(client: Client, workers: Fleet) -> None:
    result = client.run(WAITS, workflow={"name": "one", "dispatch": "chord", "actions": {"only": TELL}})
    assert result["output"]["only"]["task"] == "tasks.run_workflow"


def test_a_header_is_as_large_as_what_can_run_at_once(client: Client, workers: Fleet) -> None:
    wide = fan(NOOP, 3, beside={**NOOP, "needs": ["start"]})
    before = client.run(TAKEN)
    client.run(WAITS, workflow=wide)
    Records(workers).wait_idle()
    after = client.run(TAKEN)
    new = {name: count - before.get(name, 0) for name, count in after.items() if count != before.get(name, 0)}
    runners = new.pop("tasks.run_branches")
    assert new == {"tasks.run_workflow": 1, "tasks.complete_workflow": 1}
    assert runners >= 4, "three items and the branch beside them, and some that came again"


@pytest.mark.parametrize("dies", [True, False], ids=["dies", "is cut off"])
@pytest.mark.parametrize("after", [0, 1, 3])
def test_a_chord_that_was_not_published_whole_is_published_again(
    client: Client, workers: Fleet, journal: Path, tmp_path: Path, after: int, dies: bool
) -> None:
    each, fault = record(journal), {"uses": "test.fail_to_publish"}
    fault["with"] = {"marker": str(tmp_path / "failed"), "after": after, "dies": dies}  # type: ignore[assignment]
    workflow = fan(each, 3)
    workflow["actions"]["start"] = fault
    result = run_with_callback(client, journal, workflow)
    assert result["counts"] == {"succeeded": 5}
    check_nothing_left(workers)
    assert (tmp_path / "failed").exists()
    assert ran(journal) == {"each:0": 1, "each:1": 1, "each:2": 1, "callback": 1}


@pytest.mark.parametrize("dies", [True, False], ids=["dies", "is cut off"])
@pytest.mark.parametrize("after", [0, 1, 3])
def test_when_the_end_could_not_be_told_it_is_told_again(
    client: Client, workers: Fleet, journal: Path, tmp_path: Path, after: int, dies: bool
) -> None:
    workflow = fan(record(journal), 3)
    fault = {"marker": str(tmp_path / "failed"), "after": after, "dies": dies}
    workflow["actions"]["fault"] = {"needs": ["last"], "uses": "test.fail_to_count", "with": fault}
    result = run_with_callback(client, journal, workflow)
    assert result["counts"] == {"succeeded": 6}
    check_nothing_left(workers)
    assert (tmp_path / "failed").exists()
    assert ran(journal) == {"each:0": 1, "each:1": 1, "each:2": 1, "callback": 1}


def run_with_callback(client: Client, journal: Path, workflow: Definition) -> dict[str, Any]:
    """The result of a run which has ended, and so has the workflow that is linked to it."""
    code = """
        after = send(callback).set(task_id=task_id)
        result = send(workflow).apply_async(link=after).get(timeout=40)
        AsyncResult(task_id).get(timeout=40)
    """
    callback = {"name": "callback", "actions": {"callback": record(journal)}}
    result: dict[str, Any] = client.run(code, workflow=workflow, callback=callback, task_id=str(journal))
    return result


def test_messages_of_runners_that_are_lost_do_not_hold_the_end_up(fleet: Fleet, tmp_path: Path) -> None:
    fleet.start(1, concurrency=1, queues=("alone",), ACTION_MODULES=ACTION_MODULES)
    each = {"uses": "test.lose_messages", "with": {"queue": "alone"}}
    workflow = {**fan(each, 8), "queue": "alone", "dispatch": "chord"}
    with running_client(fleet) as client:
        result = client.run("result = send(workflow).apply_async(queue='alone').get(timeout=40)", workflow=workflow)
    lost = result["output"]["last"]
    assert sum(lost) >= 5, f"messages lost: {lost}"
    assert result["counts"] == {"succeeded": 10}


def test_a_branch_that_nothing_but_the_hard_limit_ends_fails_alone(fleet: Fleet, journal: Path) -> None:
    fleet.start(
        1, concurrency=2, queues=("stuck",), ACTION_MODULES=ACTION_MODULES, DISPATCH="chord", PYTHONPATH=SHORT_TOURS,
        BRANCH_GRACE_SECONDS="0.5", MAX_BRANCH_CRASHES="2",
    )  # fmt: skip
    stuck = {"needs": ["start"], "uses": "test.stuck", "with": {"seconds": 60}}
    workflow = {
        **fan(record(journal), 3, stuck=stuck), "queue": "stuck", "limits": {"branch_timeout_seconds": 0.5},
    }  # fmt: skip
    with running_client(fleet) as client:
        result = client.run("result = send(workflow).apply_async(queue='stuck').get(timeout=40)", workflow=workflow)
    assert result["counts"] == {"succeeded": 5, "failed": 1}
    rows = Records(fleet).tasks(result["flow_session_id"], 7)
    assert "died 2 times" in rows["stuck", -1].error["message"]
    Records(fleet).wait_nothing_live()


def test_runs_above_the_limit_of_the_fleet_wait_and_all_end(fleet: Fleet, journal: Path) -> None:
    fleet.start(
        1, concurrency=2, queues=("few",), ACTION_MODULES=ACTION_MODULES, DISPATCH="chord", MAX_CONCURRENT_WORKFLOWS="2"
    )
    workflow = {**fan(record(journal, seconds=0.01), 4), "queue": "few"}
    with running_client(fleet) as client:
        code = "result = [r.get(timeout=40) for r in [send(workflow).apply_async(queue='few') for _ in range(8)]]"
        results = client.run(code, workflow=workflow)
    assert [result["counts"] for result in results] == [{"succeeded": 6}] * 8
    assert ran(journal) == {f"each:{item}": 8 for item in range(4)}
    Records(fleet).wait_nothing_live()
