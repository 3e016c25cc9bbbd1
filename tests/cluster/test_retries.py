"""Runs that failed or were cancelled are retried by real workers: only what did not succeed runs again."""

from __future__ import annotations

import json
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from parallelizer.services.supervision import LoggedProgram
from tests.support.clients import Client, running_client
from tests.support.commands import parallelizer
from tests.support.crashes import kill, kill_worker, pool_processes
from tests.support.fleet import Fleet
from tests.support.journal import mend, read_journal
from tests.support.records import Records
from tests.support.waiting import wait_until
from tests.support.workflows import Definition

ACTION_MODULES = "tests.support.journal"


@pytest.fixture(scope="module")
def worker(module_fleet: Fleet) -> LoggedProgram:
    (worker,) = module_fleet.start(1, concurrency=2, ACTION_MODULES=ACTION_MODULES, LEASE_SECONDS="3")
    return worker


@pytest.fixture(scope="module")
def client(worker: LoggedProgram, module_fleet: Fleet) -> Iterator[Client]:
    with running_client(module_fleet) as running:
        running.run("from tasks import cancel_session, retry_session")
        yield running


def step(journal: Path, *needs: str, **inputs: object) -> Definition:
    return {
        "uses": "test.mendable",
        "needs": list(needs),
        "with": {"outcome": "success", "journal": str(journal), **inputs},
    }


def broken(journal: Path) -> Definition:
    """`a`, then `b` which fails and `c` which does not, then `d`."""
    return {
        "a": step(journal), "b": step(journal, "a", outcome="fail"), "c": step(journal, "a"),
        "d": step(journal, "b", "c"),
    }  # fmt: skip


def begin(client: Client, actions: Definition, **more: Any) -> str:
    workflow = {"name": "to-be-retried", "actions": actions, **more}
    session: str = client.run("result = send(workflow).apply_async().id", workflow=workflow)
    return session


def result_of(client: Client, session: str) -> dict[str, Any]:
    result: dict[str, Any] = client.run("result = AsyncResult(session).get(timeout=30, interval=0.01)", session=session)
    return result


def run(client: Client, actions: Definition, **more: Any) -> dict[str, Any]:
    return result_of(client, begin(client, actions, **more))


def retry(client: Client, session: str) -> dict[str, Any]:
    answer: dict[str, Any] = client.run("result = retry_session(session).to_json()", session=session)
    return answer


def started(journal: Path) -> Counter[str]:
    return Counter(task for kind, task, *_ in read_journal(journal) if kind == "start")


@pytest.mark.parametrize("dispatch", ["counted", "chord"])
def test_a_mended_run_is_retried_at_once_and_the_result_is_under_the_id_of_the_retry(
    client: Client, module_fleet: Fleet, journal: Path, dispatch: str
) -> None:
    """At once: the end of the run may have been recorded before its tasks were."""
    failed = run(client, broken(journal), dispatch=dispatch)
    mend(journal)
    answer = retry(client, failed["flow_session_id"])
    assert (answer["found"], answer["status"]) == ("done", "failed")
    result = result_of(client, answer["retry"])
    assert (result["status"], result["output"], result["counts"]) == ("succeeded", {"d": "d"}, {"succeeded": 4})
    assert result["flow_session_id"] == answer["retry"]
    assert started(journal) == {"a": 1, "b": 2, "c": 1, "d": 1}
    assert retry(client, answer["retry"])["found"] == "refused", "it succeeded"
    Records(module_fleet).wait_nothing_live()


def test_three_of_a_hundred_items_run_again(client: Client, module_fleet: Fleet, journal: Path) -> None:
    items = [index in (0, 41, 99) for index in range(100)]
    each = {**step(journal, "a", outcome="${{ item ? 'fail' : 'success' }}"), "for_each": items}
    actions = {"a": step(journal), "each": each, "last": step(journal, "each")}
    failed = run(client, actions, output="${{ tasks.each.result }}")
    assert failed["counts"] == {"succeeded": 98, "failed": 3, "upstream_failed": 1}
    mend(journal)
    result = result_of(client, retry(client, failed["flow_session_id"])["retry"])
    assert (result["status"], result["output"]) == ("succeeded", [f"each:{index}" for index in range(100)])
    again = {task for task, times in started(journal).items() if times > 1}
    assert again == {"each:0", "each:41", "each:99"}
    Records(module_fleet).wait_nothing_live()


def test_a_cancelled_run_goes_on_as_its_retry(client: Client, journal: Path) -> None:
    actions = {
        "a": step(journal),
        "b": step(journal, "a", seconds=30),
        "c": step(journal, "a"),
        "d": step(journal, "b", "c"),
    }
    session = begin(client, actions)
    wait_until(lambda: started(journal)["b"] == 1 and started(journal)["c"] == 1, "both branches have begun")
    client.run("cancel_session(session)", session=session)
    assert result_of(client, session)["status"] == "cancelled"
    answer = retry(client, session)
    wait_until(lambda: started(journal)["b"] == 2, "what was cancelled begins again")
    refused = retry(client, session)
    assert (refused["found"], refused["retry"]) == ("refused", answer["retry"])
    client.run("cancel_session(session)", session=answer["retry"])
    assert result_of(client, answer["retry"])["status"] == "cancelled"
    assert (started(journal)["a"], started(journal)["d"]) == (1, 0)


def test_a_retry_survives_its_workers_processes(
    client: Client, worker: LoggedProgram, module_fleet: Fleet, journal: Path
) -> None:
    """Both processes of the pool are killed while the retry runs; then the whole worker is."""
    failed = run(client, {**broken(journal), "e": step(journal, "d", seconds=0.5)})
    mend(journal)
    answer = retry(client, failed["flow_session_id"])
    wait_until(lambda: started(journal)["b"] == 2, "the retry is at work")
    for pid in pool_processes(worker):
        kill(pid)
    wait_until(lambda: started(journal)["e"] >= 1, "its last step is at work")
    kill_worker(worker)
    module_fleet.start(1, concurrency=2, ACTION_MODULES=ACTION_MODULES, LEASE_SECONDS="3")
    result = result_of(client, answer["retry"])
    assert (result["status"], result["counts"]) == ("succeeded", {"succeeded": 5})
    assert (started(journal)["a"], started(journal)["c"]) == (1, 1), "what was taken over is not run"


def test_who_asks_for_a_retry_may_die_at_any_moment(client: Client, module_fleet: Fleet, journal: Path) -> None:
    """Before it is accepted nothing has happened; behind that it is found by workers, though no message was sent."""
    failed = run(client, broken(journal))["flow_session_id"]
    mend(journal)
    retried = "SELECT retried_as FROM flow_sessions WHERE flow_session_id = %s"
    for side, is_accepted in (("before", False), ("after", True)):
        crash_at = {"CRASH_AT": f"sql.accept_retry.{side}:1"}
        done = parallelizer("retry", failed, folder=None, **module_fleet.settings, **crash_at)
        assert done.returncode == -signal.SIGKILL
        ((retry_id,),) = Records(module_fleet).rows(retried, failed)
        assert (retry_id is not None) == is_accepted
    assert result_of(client, retry_id)["status"] == "succeeded"
    assert started(journal) == {"a": 1, "b": 2, "c": 1, "d": 1}


def test_the_command_line_says_what_became_of_it_and_which_run_is_whose(
    client: Client, module_fleet: Fleet, journal: Path
) -> None:
    failed = run(client, broken(journal))["flow_session_id"]
    said = parallelizer("retry", failed, "--json", folder=None, **module_fleet.settings)
    assert said.returncode == 0, said.stderr
    (answer,) = json.loads(said.stdout)
    assert (
        answer["message"] == f"{failed} is retried as {answer['retry']}: 2 of its tasks are taken over, all others run"
    )
    assert result_of(client, answer["retry"])["status"] == "failed"
    refused = parallelizer("retry", failed, "0-0", folder=None, **module_fleet.settings)
    assert refused.returncode == 2
    assert f"{failed} was retried as {answer['retry']}, which failed as well and has done more" in refused.stderr
    assert "no run has the id 0-0" in refused.stderr
    shown = parallelizer("status", answer["retry"], folder=None, **module_fleet.settings).stdout
    assert failed in shown
    assert "retry of" in shown
    explained = parallelizer("explain", failed, folder=None, **module_fleet.settings).stdout
    assert f"it was retried as {answer['retry']}" in explained
    explained = parallelizer("explain", answer["retry"], folder=None, **module_fleet.settings).stdout
    assert f"it is a retry of {failed}, of which 2 actions were taken over" in explained
    explained = parallelizer("explain", answer["retry"], "a", folder=None, **module_fleet.settings).stdout
    assert f"a succeeded in {failed}, of which this run is a retry" in explained
