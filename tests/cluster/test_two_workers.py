"""Two `celery -A tasks worker` processes and nothing else: they share the work, in order; limits hold over both.

Whichever dispatcher hands it out.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from orchestration.vocabulary import Dispatch
from parallelizer.services.supervision import LoggedProgram
from tests.support.clients import Client, running_client
from tests.support.fleet import Fleet
from tests.support.journal import read_journal
from tests.support.records import Records, TaskRow, most_at_once
from tests.support.waiting import wait_until
from tests.support.workflows import Definition, record

CI_GRAPHS: list[dict[str, Any]] = json.loads((Path(__file__).parents[1] / "data" / "ci_graphs.json").read_text())
ACTION_MODULES = "tests.support.journal,tests.support.celery_actions"


@pytest.fixture(scope="module")
def two(module_fleet: Fleet) -> Fleet:
    """Two workers of four processes."""
    module_fleet.start(2, concurrency=4, ACTION_MODULES=ACTION_MODULES)
    return module_fleet


@pytest.fixture(scope="module")
def client(two: Fleet) -> Iterator[Client]:
    with running_client(two) as running:
        yield running


@pytest.fixture(params=Dispatch, ids=str)
def dispatch(request: pytest.FixtureRequest) -> Dispatch:
    """The dispatcher of the workflows of a test."""
    dispatch: Dispatch = request.param
    return dispatch


def children_of(worker: LoggedProgram) -> set[int]:
    """Pool processes of a worker (and its upkeep process)."""
    assert worker.process is not None
    return {child.pid for child in psutil.Process(worker.process.pid).children(recursive=True)}


def run(client: Client, dispatch: Dispatch, workflow: Definition) -> dict[str, Any]:
    code = "result = send(workflow).delay().get(timeout=40)"
    result: dict[str, Any] = client.run(code, workflow={**workflow, "dispatch": dispatch})
    return result


def ran(journal: Path) -> dict[str, int]:
    return dict(Counter(task for kind, task, *_ in read_journal(journal) if kind == "start"))


def test_two_workers_share_the_items_of_one_for_each(
    client: Client, two: Fleet, journal: Path, dispatch: Dispatch
) -> None:
    workflow = {"name": "shared", "actions": {"each": {**record(journal, seconds=0.02), "for_each": {"range": 60}}}}
    run(client, dispatch, workflow)
    processes = Counter(pid for kind, *_, pid in read_journal(journal) if kind == "start")
    assert processes.total() == 60
    for worker in two.workers[:2]:
        share = sum(processes[pid] for pid in children_of(worker))
        assert share >= 10, f"{worker.name} has run {share} of 60 items"


def test_the_limit_of_a_session_holds_over_both_workers(
    client: Client, two: Fleet, journal: Path, dispatch: Dispatch
) -> None:
    each = {**record(journal, seconds=0.02), "for_each": {"range": 40}}
    result = run(
        client, dispatch, {"name": "three", "limits": {"max_concurrent_branches": 3}, "actions": {"each": each}}
    )
    rows = Records(two).tasks(result["flow_session_id"], 41)
    assert most_at_once([row for row in rows.values() if row.item >= 0]) == 3


def test_the_limit_of_a_for_each_holds_while_others_run(
    client: Client, two: Fleet, journal: Path, dispatch: Dispatch
) -> None:
    each = {**record(journal, seconds=0.02), "for_each": {"range": 30}}
    actions = {"narrow": {**each, "max_concurrent": 2}, "wide": each}
    result = run(client, dispatch, {"name": "narrow", "actions": actions})
    rows = Records(two).tasks(result["flow_session_id"], 62)
    assert most_at_once([row for row in rows.values() if row.action == "narrow" and row.item >= 0]) == 2
    assert most_at_once([row for row in rows.values() if row.action == "wide" and row.item >= 0]) > 2


def check_order(rows: dict[tuple[str, int], TaskRow], needs: dict[str, list[str]]) -> None:
    for action, before in needs.items():
        for need in before:
            ended, began = rows[need, -1].finished_at, rows[action, -1].started_at
            assert ended is not None
            assert began is not None
            assert ended <= began, f"{action} began before {need} had ended"


def test_graphs_of_real_pipelines_run_in_order_each_task_once(
    client: Client, two: Fleet, tmp_path: Path, dispatch: Dispatch
) -> None:
    workflows, expected = [], []
    for number, case in enumerate(CI_GRAPHS):
        journal = tmp_path / f"journal{number}"
        names = {job: f"j{index}" for index, job in enumerate(case["graph"])}
        needs = {names[job]: [names[need] for need in before] for job, before in case["graph"].items()}
        actions = {name: {**record(journal, seconds=0.005), "needs": before} for name, before in needs.items()}
        workflows.append({"name": f"pipeline{number}", "dispatch": dispatch, "actions": actions})
        expected.append((journal, needs))
    code = "result = group([send(workflow) for workflow in workflows]).delay().get(timeout=40)"
    results = client.run(code, workflows=workflows)
    for result, (journal, needs) in zip(results, expected, strict=True):
        assert result["counts"] == {"succeeded": len(needs)}
        assert ran(journal) == dict.fromkeys(needs, 1)
        check_order(Records(two).tasks(result["flow_session_id"], len(needs)), needs)


def test_joins_wait_for_every_item_of_a_for_each(client: Client, two: Fleet, journal: Path, dispatch: Dispatch) -> None:
    layers = 4
    actions: dict[str, Any] = {"l0": {**record(journal), "for_each": {"range": 8}}}
    needs: dict[str, list[str]] = {}
    for layer in range(1, layers):
        needs[f"one{layer}"] = needs[f"two{layer}"] = [f"l{layer - 1}"]
        needs[f"l{layer}"] = [f"one{layer}", f"two{layer}"]
        actions |= {name: {**record(journal), "needs": needs[name]} for name in (f"one{layer}", f"two{layer}")}
        actions[f"l{layer}"] = {**record(journal), "needs": needs[f"l{layer}"], "for_each": {"range": 8}}
    result = run(client, dispatch, {"name": "layers", "actions": actions})
    assert result["counts"] == {"succeeded": 8 * layers + 2 * (layers - 1)}
    rows = Records(two).tasks(result["flow_session_id"], 9 * layers + 2 * (layers - 1))
    for layer in range(1, layers):
        ended = max(row.finished_at for row in rows.values() if row.action == f"l{layer - 1}" if row.finished_at)
        began = [rows[name, -1].started_at for name in (f"one{layer}", f"two{layer}")]
        assert all(start and start >= ended for start in began)
    assert set(ran(journal).values()) == {1}


def test_a_failing_action_is_tried_again_after_its_delays_in_any_process(
    client: Client, two: Fleet, journal: Path, dispatch: Dispatch
) -> None:
    actions = {
        "start": {"uses": "core.noop"},
        "flaky": {
            "needs": ["start"], "uses": "test.fail_first", "with": {"journal": str(journal), "times": 3},
            "retry": {"max_attempts": 4, "delay_seconds": 0.1, "backoff": 2, "jitter": 0},
        },
        "busy": {**record(journal, seconds=0.02), "needs": ["start"], "for_each": {"range": 20}},
    }  # fmt: skip
    result = run(client, dispatch, {"name": "flaky", "actions": actions})
    assert result["status"] == "succeeded"
    assert result["output"] == {"flaky": 4}
    tries = [(attempt, when) for kind, task, attempt, when, _ in read_journal(journal) if task == "flaky"]
    assert [attempt for attempt, _ in tries] == [1, 2, 3, 4]
    waits = [later - earlier for (_, earlier), (_, later) in itertools.pairwise(tries)]
    assert all(wait >= least for wait, least in zip(waits, (0.1, 0.2, 0.4), strict=True)), waits
    assert Records(two).tasks(result["flow_session_id"], 23)["flaky", -1].attempt == 4


@pytest.mark.parametrize("uses", ["core.sleep", "test.spin"])
def test_a_branch_that_is_over_its_time_is_ended_and_the_rest_goes_on(
    client: Client, two: Fleet, journal: Path, dispatch: Dispatch, uses: str
) -> None:
    actions = {
        "start": {"uses": "core.noop"},
        "slow": {"needs": ["start"], "uses": uses, "with": {"seconds": 20}},
        "quick": {**record(journal), "needs": ["start"], "for_each": {"range": 20}},
        "after": {
            "needs": ["slow", "quick"], "trigger_rule": "all_done", "uses": "core.echo",
            "with": {"value": "${{ tasks.slow.status }}"},
        },
    }  # fmt: skip
    result = run(client, dispatch, {"name": "slow", "limits": {"branch_timeout_seconds": 0.5}, "actions": actions})
    assert result["counts"] == {"succeeded": 22, "timed_out": 1}
    assert result["output"] == {"after": "timed_out"}
    assert result["duration_seconds"] < 5
    slow = Records(two).tasks(result["flow_session_id"], 24)["slow", -1]
    assert slow.started_at is not None
    assert slow.finished_at is not None
    assert 0.45 <= (slow.finished_at - slow.started_at).total_seconds() < 1.5
    assert "0.5 s" in slow.error["message"]


def test_an_action_with_a_queue_waits_for_a_worker_of_that_queue(
    client: Client, two: Fleet, journal: Path, dispatch: Dispatch
) -> None:
    queue = f"special-{dispatch}"
    actions = {
        "first": record(journal),
        "special": {**record(journal), "needs": ["first"], "queue": queue},
        "other": {**record(journal), "needs": ["first"]},
        "last": {**record(journal), "needs": ["special", "other"]},
    }
    workflow = {"name": "queues", "dispatch": dispatch, "actions": actions}
    session = client.run("result = send(workflow).delay().id", workflow=workflow)
    wait_until(lambda: set(ran(journal)) == {"first", "other"}, "what needs no special worker has run")
    records = Records(two)
    records.wait_idle(())
    assert set(ran(journal)) == {"first", "other"}
    assert records.rows("SELECT status FROM flow_sessions WHERE flow_session_id = %s", session) == [("running",)]
    (special,) = two.start(1, concurrency=1, queues=(queue,), ACTION_MODULES=ACTION_MODULES)
    result = client.run("result = AsyncResult(session).get(timeout=20)", session=session)
    assert result["status"] == "succeeded"
    assert ran(journal) == {"first": 1, "special": 1, "other": 1, "last": 1}
    pid = next(pid for _, task, _, _, pid in read_journal(journal) if task == "special")
    assert pid in children_of(special)
    rows = records.tasks(session, 4)
    assert [rows[name, -1].queue for name in ("special", "other", "last")] == [queue, "branches", "branches"]
    assert special.name in rows["special", -1].worker


def test_when_all_is_done_nothing_is_left_in_redis(two: Fleet) -> None:
    records = Records(two)
    records.wait_idle()
    records.wait_nothing_live()


def test_the_limit_of_the_fleet_holds_over_several_sessions(fleet: Fleet, journal: Path, dispatch: Dispatch) -> None:
    settings = {"ACTION_MODULES": ACTION_MODULES, "MAX_CONCURRENT_BRANCHES_GLOBAL": "2"}
    fleet.start(2, concurrency=3, queues=("limited",), **settings)
    each = {**record(journal, seconds=0.02), "for_each": {"range": 10}}
    actions = {"a": each, "b": each, "c": record(journal)}
    workflow = {"name": "limited", "queue": "limited", "dispatch": dispatch, "actions": actions}
    with running_client(fleet) as client:
        code = """
            runs = [send(workflow).apply_async(queue="limited") for _ in range(4)]
            result = [run.get(timeout=30)["flow_session_id"] for run in runs]
        """
        sessions = client.run(code, workflow=workflow)
    records = Records(fleet)
    rows = [row for session in sessions for row in records.tasks(session, 23).values()]
    assert most_at_once([row for row in rows if row.item >= 0 or row.action == "c"]) == 2
    assert set(ran(journal).values()) == {4}
    records.wait_nothing_live()
