"""Runs that are paused hold nothing and go on at once when they are resumed; queues without workers are said so."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import redis

from orchestration.state.keys import KeySpace
from orchestration.state.live import LiveState
from parallelizer.services.supervision import LoggedProgram
from tests.support.clients import Client, running_client
from tests.support.commands import parallelizer
from tests.support.fleet import Fleet
from tests.support.journal import read_journal
from tests.support.records import Records
from tests.support.waiting import wait_until
from tests.support.workflows import Definition, record

NOOP = {"uses": "core.noop"}


@pytest.fixture(scope="module")
def worker(module_fleet: Fleet) -> LoggedProgram:
    (worker,) = module_fleet.start(1, concurrency=3, ACTION_MODULES="tests.support.journal", INLINE_FORK_MS="0")
    return worker


@pytest.fixture(scope="module")
def client(worker: LoggedProgram, module_fleet: Fleet) -> Iterator[Client]:
    with running_client(module_fleet) as running:
        running.run("from tasks import cancel_session, pause_all, pause_session, resume_all, resume_session")
        yield running


def begin(client: Client, name: str, actions: Definition) -> str:
    workflow = {"name": name, "limits": {"max_concurrent_branches": 2}, "actions": actions}
    session: str = client.run("result = send(workflow).delay().id", workflow=workflow)
    return session


def result_of(client: Client, session: str) -> dict[str, Any]:
    result: dict[str, Any] = client.run("result = AsyncResult(session).get(timeout=20)", session=session)
    return result


def started(journal: Path) -> int:
    return sum(kind == "start" for kind, *_ in read_journal(journal))


def ended(journal: Path) -> int:
    return sum(kind == "end" for kind, *_ in read_journal(journal))


def command(fleet: Fleet, *arguments: str) -> tuple[int, str]:
    done = parallelizer(*arguments, folder=None, **fleet.settings)
    return done.returncode, done.stdout + done.stderr


def held_items(journal: Path, folder: Path, items: int) -> Definition:
    """Items each of which runs until its file is there."""
    inputs = {"journal": str(journal), "folder": str(folder), "seconds": 200}
    each = {"uses": "test.hold", "with": inputs, "needs": ["start"], "for_each": {"range": items}}
    return {"start": NOOP, "each": each}


def wait_nothing_held(fleet: Fleet) -> None:
    """No runner, slot or permit is in use."""
    key = KeySpace(fleet.namespace).key
    with closing(redis.Redis.from_url(fleet.redis_url)) as connection:
        names = (key("inflight", "branches"), key("permits", "global"), key("waiting", "branches"))
        wait_until(lambda: not any(map(connection.zcard, names)), "nothing is held")


def test_a_paused_run_ends_what_it_runs_holds_nothing_and_goes_on_at_once(
    client: Client, module_fleet: Fleet, journal: Path, tmp_path: Path
) -> None:
    session = begin(client, "held", held_items(journal, tmp_path, 6))
    wait_until(lambda: started(journal) == 2, "two run")
    code, said = command(module_fleet, "pause", session)
    assert (code, said) == (0, f"{session} is paused; what runs of it goes on to the end of its branch\n")
    assert command(module_fleet, "pause", session) == (0, f"{session} was paused before\n")
    for item in range(6):
        (tmp_path / f"each:{item}.1").touch()
    wait_until(lambda: ended(journal) == 2, "what ran has ended")
    wait_nothing_held(module_fleet)
    assert started(journal) == 2
    records = Records(module_fleet)
    statuses = "SELECT status FROM flow_sessions WHERE flow_session_id = %s"
    wait_until(lambda: records.rows(statuses, session) == [("paused",)], "it is recorded")
    code, said = command(module_fleet, "status", session)
    assert code == 0
    assert said.count("paused") == 2, "the status, and the reason"
    code, said = command(module_fleet, "resume", session)
    assert (code, said) == (0, f"{session} goes on\n")
    result = result_of(client, session)
    assert (result["status"], result["counts"]) == ("succeeded", {"succeeded": 7})
    assert started(journal) == 6
    assert command(module_fleet, "resume", session) == (2, f"{session} has ended: succeeded\n")
    records.wait_nothing_live()


def test_a_workflow_and_everything_are_paused_with_runs_to_come(
    client: Client, module_fleet: Fleet, journal: Path, tmp_path: Path
) -> None:
    first = begin(client, "halted", held_items(journal, tmp_path, 4))
    wait_until(lambda: started(journal) == 2, "two run")
    assert client.run("result = pause_all('halted')") == 1
    later = begin(client, "halted", held_items(journal, tmp_path, 1))
    live = LiveState(module_fleet.redis_url, module_fleet.namespace)
    wait_until(lambda: live.is_open(later), "a later one has begun")
    assert client.run("result = pause_all()") == 2
    for item in range(4):
        (tmp_path / f"each:{item}.1").touch()
    wait_until(lambda: ended(journal) == 2, "what ran has ended")
    wait_nothing_held(module_fleet)
    code, said = command(module_fleet, "resume", first)
    assert code == 0
    assert "stays paused until `parallelizer resume --all` and `parallelizer resume --workflow NAME`" in said
    assert command(module_fleet, "resume", "--workflow", "halted")[0] == 0
    assert live.snapshot(first) is not None
    assert started(journal) == 2, "everything is paused still"
    assert client.run("result = resume_all()") == 2
    assert {result_of(client, session)["status"] for session in (first, later)} == {"succeeded"}
    Records(module_fleet).wait_nothing_live()


def test_wrong_use_is_answered_clearly(client: Client, module_fleet: Fleet) -> None:
    code, said = command(module_fleet, "pause")
    assert (code, said) == (
        2,
        "parallelizer: say what to pause: ids of runs, or --workflow NAME, or --all; one of these\n",
    )
    code, said = command(module_fleet, "pause", "--workflow", "never-heard-of")
    assert code == 2
    assert "no workflow 'never-heard-of' was ever published or run" in said
    assert command(module_fleet, "resume", "no-such-run")[0] == 2


def test_a_run_that_was_paused_can_be_cancelled_and_one_that_is_cancelled_not_be_paused(
    client: Client, module_fleet: Fleet, journal: Path, tmp_path: Path
) -> None:
    session = begin(client, "both", held_items(journal, tmp_path, 3))
    wait_until(lambda: started(journal) == 2, "two run")
    client.run("pause_session(session)", session=session)
    assert client.run("result = cancel_session(session).to_json()", session=session)["found"] == "done"
    assert result_of(client, session)["status"] == "cancelled"
    assert command(module_fleet, "pause", session) == (2, f"{session} has ended: cancelled\n")
    Records(module_fleet).wait_nothing_live()


def test_a_queue_that_no_worker_serves_is_named(client: Client, module_fleet: Fleet, journal: Path) -> None:
    actions = {"first": record(journal), "licensed": {**record(journal), "needs": ["first"], "queue": "gpu"}}
    session = begin(client, "queues", actions)
    live = LiveState(module_fleet.redis_url, module_fleet.namespace)

    def waits() -> bool:
        found = live.situation(session).session
        return found is not None and any(unit.queue == "gpu" for unit in found.ready)

    wait_until(waits, "it waits for the queue")
    assert "waits for a worker of the queue gpu, which none serves" in command(module_fleet, "status", session)[1]
    code, said = command(module_fleet, "doctor")
    assert code == 0, said
    assert "no worker serves queue gpu, for which 1 run" in " ".join(said.split())
    client.run("cancel_session(session)", session=session)
    assert result_of(client, session)["status"] == "cancelled"
