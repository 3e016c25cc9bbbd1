"""A message that is sent twice, since the first reply was lost, makes one run, and nothing of it runs twice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.clients import Client, running_client
from tests.support.crashes import kill
from tests.support.fleet import Fleet
from tests.support.journal import read_journal
from tests.support.records import Records
from tests.support.waiting import wait_until
from tests.support.workflows import Definition, record


@pytest.fixture(params=["prefork", "threads"])
def workers(request: pytest.FixtureRequest, fleet: Fleet) -> Fleet:
    """Two, so that the copies are delivered at the same moment."""
    fleet.start(2, concurrency=2, pool=request.param, ACTION_MODULES="tests.support.journal")
    return fleet


@pytest.fixture
def client(workers: Fleet) -> Iterator[Client]:
    with running_client(workers) as running:
        yield running


def linear(journal: Path) -> Definition:
    """All of it is a first branch: it runs in the process that accepts it."""
    return {
        "name": "linear",
        "actions": {"one": record(journal, seconds=0.5), "two": {**record(journal, seconds=0.5), "needs": ["one"]}},
    }


def send_twice(client: Client, workflow: Definition) -> str:
    sending = "message = send(workflow)\nresult = message.apply_async().id\nmessage.apply_async(task_id=result)"
    return str(client.run(sending, workflow=workflow))


def test_a_run_whose_message_comes_twice_runs_once(workers: Fleet, client: Client, journal: Path) -> None:
    session = send_twice(client, linear(journal))
    result = client.run("result = AsyncResult(session).get(timeout=60)", session=session)
    assert (result["status"], result["counts"]) == ("succeeded", {"succeeded": 2})
    Records(workers).wait_idle()
    assert [line[:3] for line in read_journal(journal)] == [
        ("start", "one", 1), ("end", "one", 1), ("start", "two", 1), ("end", "two", 1),
    ]  # fmt: skip


@pytest.mark.parametrize("workers", ["prefork"], indirect=True)
def test_it_goes_on_when_the_process_dies_that_has_one_of_them(workers: Fleet, client: Client, journal: Path) -> None:
    session = send_twice(client, linear(journal))
    wait_until(lambda: bool(read_journal(journal)), "one is at work")
    wait_until(lambda: Records(workers).messages_of(session, "branches") == 1, "the other one has gone")
    kill(read_journal(journal)[0][4])
    result = client.run("result = AsyncResult(session).get(timeout=60)", session=session)
    assert result["status"] == "succeeded"
    assert [line[1] for line in read_journal(journal) if line[0] == "start"] == ["one", "one", "two"]
