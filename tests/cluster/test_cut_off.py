"""A worker in a first branch that reaches PostgreSQL, and of which Redis hears nothing for longer than its lease."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from parallelizer.services.supervision import LoggedProgram
from tests.support.clients import running_client
from tests.support.fleet import Fleet
from tests.support.journal import read_journal
from tests.support.proxy import Proxy
from tests.support.records import Records
from tests.support.waiting import wait_until
from tests.support.workflows import Definition

LEASE_SECONDS = 3
KEPT = "went straight to PostgreSQL"


def start(fleet: Fleet, redis_url: str) -> LoggedProgram:
    """A worker of one process."""
    (worker,) = fleet.start(
        1, concurrency=1, REDIS_URL=redis_url, ACTION_MODULES="tests.support.journal", INLINE_FORK_MS="100",
        LEASE_SECONDS=str(LEASE_SECONDS), MAX_SEND_RETRIES="0",
    )  # fmt: skip
    return worker


def forked(journal: Path, folder: Path) -> Definition:
    """The result of the first branch, which is its attempt, is given on by what follows."""
    hold = {"uses": "test.hold", "with": {"journal": str(journal), "folder": str(folder), "seconds": 120}}
    echo = {"uses": "core.echo", "with": {"value": "${{ tasks.first.result }}"}, "needs": ["first"]}
    return {"name": "forked", "actions": {"first": hold, **dict.fromkeys(("one", "two"), echo)},
            "output": "${{ tasks.one.result }}"}  # fmt: skip


def linear(journal: Path, folder: Path) -> Definition:
    """The first branch is all of it."""
    actions: dict[str, Any] = forked(journal, folder)["actions"]
    return {"name": "linear", "actions": {"first": actions["first"]}, "output": "${{ tasks.first.result }}"}


@pytest.mark.parametrize("make", [forked, linear])
def test_what_a_cut_off_worker_makes_of_a_first_branch_is_refused_once_another_has_taken_over(
    fleet: Fleet, tmp_path: Path, make: Any
) -> None:
    journal, folder = tmp_path / "journal", tmp_path / "gates"
    folder.mkdir()
    workflow, records = make(journal, folder), Records(fleet)
    proxy = Proxy(fleet.redis_url)
    with proxy.running(), running_client(fleet) as client:
        cut_off = start(fleet, proxy.url)
        gate = folder / "first.1"
        gate.touch()
        # at once, twice: what follows is known to be short then, and is run in the process of the first branch
        for _ in range(2):
            client.run("send(workflow).delay().get(timeout=20)", workflow=workflow)
        gate.unlink()
        before = len(read_journal(journal))
        session = client.run("sent = send(workflow).delay()\nresult = sent.id", workflow=workflow)
        wait_until(lambda: len(read_journal(journal)) == before + 1, "the first branch has begun")
        start(fleet, fleet.redis_url)
        proxy.go_silent()
        wait_until(
            lambda: len(read_journal(journal)) == before + 2, "another worker has taken over", LEASE_SECONDS + 15
        )
        gate.touch()
        wait_until(lambda: KEPT in cut_off.log.read_text(), "the late end is on record, perhaps", 60)
        (folder / "first.2").touch()
        result = client.run("result = sent.get(timeout=60)")
        proxy.heal()
        records.wait_idle()
        records.wait_nothing_live()
        tasks = records.tasks(session, len(workflow["actions"]))
    assert result["output"] == 2
    assert {name: row.result for (name, _), row in tasks.items()} == dict.fromkeys(workflow["actions"], 2)
    assert tasks["first", -1].attempt == 2
    assert [line[0] for line in read_journal(journal)[before:]].count("start") == 2, "nothing ran a third time"
