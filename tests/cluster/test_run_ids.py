"""`run_id`: a run is started once, however often it is asked for."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.clients import Client, RaisedInClient, running_client
from tests.support.crashes import kill, pool_processes
from tests.support.fleet import Fleet
from tests.support.journal import read_journal
from tests.support.records import Records
from tests.support.waiting import wait_until
from tests.support.workflows import forked, linear


@pytest.fixture(scope="module")
def workers(module_fleet: Fleet) -> Fleet:
    module_fleet.start(1, concurrency=2, ACTION_MODULES="tests.support.journal")
    return module_fleet


@pytest.fixture(scope="module")
def client(workers: Fleet) -> Iterator[Client]:
    with running_client(workers) as running:
        yield running


RUN = "result = send(definition, payload, run_id=run_id).delay().get(timeout=30)"


@pytest.mark.parametrize("shape", [linear, forked])
def test_a_second_call_gives_the_run_of_the_first(client: Client, workers: Fleet, journal: Path, shape: object) -> None:
    definition, run_id = shape(f"once-{uuid.uuid4().hex[:6]}", journal), uuid.uuid4().hex  # type: ignore[operator]
    first = client.run(RUN, definition=definition, payload={"n": 1.5}, run_id=run_id)
    started = len(read_journal(journal))
    second = client.run(RUN, definition=definition, payload={"n": 1.5}, run_id=run_id)
    assert first == second
    assert first["status"] == "succeeded"
    assert len(read_journal(journal)) == started


@pytest.mark.parametrize("other", ["payload", "workflow"])
def test_another_run_can_t_have_the_same_id(client: Client, workers: Fleet, journal: Path, other: str) -> None:
    run_id, name = uuid.uuid4().hex, f"first-{uuid.uuid4().hex[:6]}"
    first = client.run(RUN, definition=linear(name, journal), payload={"n": 1}, run_id=run_id)
    changed = (
        {"definition": linear("another", journal), "payload": {"n": 1}}
        if other == "workflow"
        else {"definition": linear(name, journal), "payload": {"n": 2}}
    )
    with pytest.raises(RaisedInClient, match=f"run_id '{run_id}' belongs to flow session {first['flow_session_id']}"):
        client.run(RUN, run_id=run_id, **changed)
    assert len(Records(workers).rows("SELECT 1 FROM flow_sessions WHERE workflow = 'another'")) == 0


def test_a_second_call_while_it_runs_gives_it_as_it_is(client: Client, journal: Path, tmp_path: Path) -> None:
    go, run_id = tmp_path / "go", uuid.uuid4().hex
    wait = {"uses": "test.wait_for_file", "with": {"journal": str(journal), "path": str(go)}}
    definition = {"name": "held", "actions": {"wait": wait}}
    client.run("first = send(definition, run_id=run_id).delay()", definition=definition, run_id=run_id)
    wait_until(lambda: bool(read_journal(journal)), "it runs")
    second = client.run(RUN, definition=definition, payload=None, run_id=run_id)
    assert (second["status"], second["output"]) == ("running", None)
    go.touch()
    first = client.run("result = first.get(timeout=30)")
    assert (first["status"], first["flow_session_id"]) == ("succeeded", second["flow_session_id"])
    assert len([line for line in read_journal(journal) if line[0] == "start"]) == 1


def test_a_run_with_an_id_survives_its_process(client: Client, workers: Fleet, journal: Path, tmp_path: Path) -> None:
    hold = {"uses": "test.hold", "with": {"journal": str(journal), "folder": str(tmp_path)}}
    definition, run_id = {"name": "killed", "actions": {"one": hold}}, uuid.uuid4().hex
    client.run("first = send(definition, run_id=run_id).delay()", definition=definition, run_id=run_id)
    wait_until(lambda: len(read_journal(journal)) == 1, "it runs")
    pid = read_journal(journal)[0][4]
    assert pid in pool_processes(workers.workers[0])
    kill(pid)
    (tmp_path / "one.2").touch()
    ended = client.run("result = first.get(timeout=30)")
    assert (ended["status"], ended["output"]) == ("succeeded", {"one": 2})


@pytest.mark.parametrize("run_id", ["", 7, "x" * 201])
def test_what_is_no_id_is_refused(client: Client, journal: Path, run_id: object) -> None:
    with pytest.raises(RaisedInClient, match="run_id must be a text of 1 to 200 characters"):
        client.run(RUN, definition=linear("refused", journal), payload={}, run_id=run_id)
    assert not journal.exists()
