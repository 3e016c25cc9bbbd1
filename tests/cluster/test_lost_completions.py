"""A run has ended, and what tells its caller is lost, or comes twice: the caller has its result all the same, once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from orchestration.state.live import LiveState
from tests.support.clients import Client, running_client
from tests.support.fleet import Fleet
from tests.support.journal import read_journal
from tests.support.records import Records
from tests.support.waiting import wait_until
from tests.support.workflows import Definition, ends_by, record

ACTION_MODULES = "tests.support.journal,tests.support.completion_faults"
DISPATCHERS = ("counted", "chord")
#: Served by two processes of one worker.
TWO = "two"


@pytest.fixture(scope="module")
def workers(module_fleet: Fleet) -> Fleet:
    module_fleet.start(2, concurrency=2, ACTION_MODULES=ACTION_MODULES)
    return module_fleet


@pytest.fixture(scope="module")
def client(workers: Fleet) -> Iterator[Client]:
    with running_client(workers) as running:
        yield running


def run_all(
    client: Client, journal: Path, workflows: list[Definition], queue: str = "branches"
) -> list[dict[str, Any]]:
    """The results of these runs, at the same time, each followed by a run that writes to the journal."""
    follows = {"name": "follows", "queue": queue, "actions": {"follows": record(journal)}}
    code = """
        after = send(follows).set(queue=queue)
        runs = [send(workflow).apply_async(link=after, queue=queue) for workflow in workflows]
        result = [run.get(timeout=60) for run in runs]
    """
    results: list[dict[str, Any]] = client.run(code, workflows=workflows, follows=follows, queue=queue)
    assert all(result["counts"] == {"succeeded": 5} for result in results), results
    return results


def repairs(fleet: Fleet) -> dict[str, int]:
    with closing(LiveState(fleet.redis_url, fleet.namespace)) as live:
        return live.repairs()


def check_followed(fleet: Fleet, journal: Path, runs: int) -> None:
    """What follows has been called once for each run, and nothing else will be."""
    wait_until(lambda: len(read_journal(journal)) >= 2 * runs, "what follows the runs has run")
    Records(fleet).wait_idle(("branches", TWO))
    Records(fleet).wait_nothing_live()
    assert Counter(kind for kind, *_ in read_journal(journal)) == {"start": runs, "end": runs}


def test_a_run_whose_completion_is_lost_is_completed_all_the_same(
    client: Client, workers: Fleet, journal: Path
) -> None:
    """The message is lost, or what Celery keeps of the chord whose body it is."""
    faults = [ends_by("test.lose_completion", dispatch) for dispatch in DISPATCHERS]
    results = run_all(client, journal, [*faults, ends_by("test.lose_chord", "chord")])
    assert results[-1]["output"]["last"], "keys of the chord were lost"
    check_followed(workers, journal, 3)
    log = "".join(worker.log.read_text() for worker in workers.workers)
    for result in results:
        said = f"[REAPER] {result['flow_session_id']}: it has ended and was not completed"
        assert log.count(said) == 1
    assert repairs(workers)["completion"] >= 3


def test_a_chord_whose_runners_all_are_lost_goes_on_without_it(client: Client, workers: Fleet, journal: Path) -> None:
    follows = {"name": "follows", "actions": {"follows": record(journal)}}
    workflow = ends_by("core.noop", "chord")
    workflow["actions"]["start"] = {"uses": "test.lose_header"}
    session = client.run(
        "result = send(workflow).apply_async(link=send(follows)).id", workflow=workflow, follows=follows
    )
    with closing(LiveState(workers.redis_url, workers.namespace)) as live:
        wait_until(lambda: live.header_of(session) == 3, "the session is open")
        live.client.zincrby(live.space.key("sessions_open"), -61_000_000, session)  # the wait for them is over
    result = client.run("result = AsyncResult(session).get(timeout=20)", session=session)
    assert result["counts"] == {"succeeded": 5}
    check_followed(workers, journal, 1)
    assert repairs(workers)["header"] == 1


@pytest.mark.parametrize("dispatch", DISPATCHERS)
def test_what_follows_is_called_once_when_two_processes_complete_a_run(
    client: Client, workers: Fleet, journal: Path, dispatch: str
) -> None:
    run_all(client, journal, [ends_by("test.complete_twice", dispatch) for _ in range(20)])
    check_followed(workers, journal, 20)


def test_a_process_that_dies_before_the_result_is_stored_is_made_up_for_at_once(
    fleet: Fleet, journal: Path, tmp_path: Path
) -> None:
    fleet.start(1, concurrency=1, queues=(TWO,), ACTION_MODULES=ACTION_MODULES)
    workflow = ends_by("test.die_delivering", queue=TWO, marker=str(tmp_path / "died"))
    with running_client(fleet) as client:
        code = "result = send(workflow).apply_async(queue='two').get(timeout=20)"
        assert client.run(code, workflow=workflow)["counts"] == {"succeeded": 5}
    assert (tmp_path / "died").exists()
    assert repairs(fleet) == {}
