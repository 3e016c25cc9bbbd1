"""Workflows sent by processes that have the Celery app, or Celery alone; what they send and what comes back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.clients import Client, RaisedInClient, running_client
from tests.support.fleet import Fleet
from tests.support.journal import read_journal
from tests.support.records import Records
from tests.support.workflows import Definition, forked, linear, publish

Shape = Callable[[str, Path], Definition]
RESULT = {"flow_session_id", "workflow", "version", "status", "output", "counts", "duration_seconds"}
FAILS: Definition = {"name": "fails", "actions": {"a": {"uses": "core.noop"}, "b": {"uses": "core.fail"}}}


@pytest.fixture(scope="module")
def records(module_fleet: Fleet) -> Records:
    """One worker of four processes."""
    module_fleet.start(1, concurrency=4, ACTION_MODULES="tests.support.journal,tests.support.celery_actions")
    return Records(module_fleet)


@pytest.fixture(scope="module")
def ours(module_fleet: Fleet, records: Records) -> Iterator[Client]:
    """A process with `from tasks import run_workflow`."""
    with running_client(module_fleet) as client:
        yield client


@pytest.fixture(scope="module")
def bare(module_fleet: Fleet, records: Records) -> Iterator[Client]:
    """A process with nothing of ours but the names of the task and the queue."""
    with running_client(module_fleet, bare=True) as client:
        yield client


@pytest.fixture(params=["ours", "bare"])
def client(request: pytest.FixtureRequest) -> Client:
    found: Client = request.getfixturevalue(request.param)
    return found


@pytest.mark.parametrize("shape", [linear, forked])
def test_a_definition_runs_and_its_result_comes_back(client: Client, tmp_path: Path, shape: Shape) -> None:
    definition = shape("last", tmp_path / "journal")
    result = client.run("result = send(workflow, {'x': [1, None]}).delay().get(timeout=20)", workflow=definition)
    assert set(result) == RESULT
    assert (result["status"], result["output"]) == ("succeeded", {"last": {"x": [1, None]}})
    assert result["counts"] == {"succeeded": len(definition["actions"])}
    tasks = [task for kind, task, *_ in read_journal(tmp_path / "journal") if kind == "start"]
    assert sorted(tasks) == sorted(name for name in definition["actions"] if name != "last")


def test_a_published_workflow_runs_by_its_name_and_by_name_and_version(client: Client, module_fleet: Fleet) -> None:
    for value in (1, 2):
        publish(module_fleet, {"name": "named", "actions": {"a": {"uses": "core.echo", "with": {"value": value}}}})
    outputs = client.run(
        "result = [send(name).delay().get(timeout=20)['output'] for name in ('named', 'named@1', 'named@2')]"
    )
    assert outputs == [{"a": 2}, {"a": 1}, {"a": 2}]


@pytest.mark.parametrize("shape", [linear, forked])
def test_an_id_of_the_callers_own_leads_any_process_to_the_result(
    ours: Client, bare: Client, tmp_path: Path, shape: Shape
) -> None:
    task_id = f"order {shape.__name__} № 7"
    for client, other in ((ours, bare), (bare, ours)):
        task_id += "+"
        code = "result = send(workflow).apply_async(task_id=task_id).get(timeout=20)"
        result = client.run(code, workflow=shape("last", tmp_path / "journal"), task_id=task_id)
        assert other.run("result = AsyncResult(task_id).get(timeout=20)", task_id=task_id) == result


def test_a_workflow_that_fails_is_a_result_unless_the_caller_wants_an_error(client: Client) -> None:
    result = client.run("result = send(workflow).delay().get(timeout=20)", workflow=FAILS)
    assert result["status"] == "failed"
    with pytest.raises(RaisedInClient, match="workflow fails failed") as raised:
        client.run("send(workflow, raise_on_failure=True).delay().get(timeout=20)")
    assert raised.value.kind == "WorkflowExecutionError"


def messages(client: Client, workflow: Definition, records: Records) -> dict[str, int]:
    """How many messages of each task a run takes, as the worker counts them."""
    stats = "[worker] = app.control.inspect(limit=1).stats().values(); result = worker['total']"
    before = client.run(stats)
    client.run("send(workflow).delay().get(timeout=20)", workflow=workflow)
    records.wait_idle()
    after = client.run(stats)
    return {name: after[name] - before.get(name, 0) for name in after if after[name] != before.get(name, 0)}


def test_a_linear_workflow_is_one_message(ours: Client, tmp_path: Path, records: Records) -> None:
    steps: Definition = {"s0": {"uses": "core.noop"}}
    steps |= {f"s{n}": {"uses": "core.noop", "needs": [f"s{n - 1}"]} for n in range(1, 50)}
    assert messages(ours, {"name": "fifty", "actions": steps}, records) == {"tasks.run_workflow": 1}


def test_a_fork_takes_a_runner_for_each_further_branch_and_a_completion(
    ours: Client, tmp_path: Path, records: Records
) -> None:
    assert messages(ours, forked("last", tmp_path / "journal"), records) == {
        "tasks.run_workflow": 1, "tasks.run_branches": 2, "tasks.complete_workflow": 1
    }  # fmt: skip


def test_the_runners_of_a_fork_are_a_celery_group(ours: Client, tmp_path: Path) -> None:
    branch = {"needs": ["first"], "uses": "test.message", "with": {"folder": str(tmp_path), "processes": 4}}
    actions = {"first": {"uses": "core.noop"}, **{f"branch{number}": branch for number in range(4)}}
    seen = ours.run(
        "result = send(workflow).delay().get(timeout=40)", workflow={"name": "whereabouts", "actions": actions}
    )["output"].values()
    assert sorted(one["task"] for one in seen) == ["tasks.run_branches"] * 3 + ["tasks.run_workflow"]
    groups = {one["group"] for one in seen if one["task"] == "tasks.run_branches"}
    assert len(groups) == 1
    assert groups != {None}
