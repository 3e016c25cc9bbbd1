"""Limits of workflows and keys with real workers, as PostgreSQL tells it; and changes of them while all runs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestration.state.live import LiveState
from orchestration.vocabulary import Dispatch
from tests.support.clients import Client, running_client
from tests.support.commands import WAIT_SECONDS, clean_environment
from tests.support.fleet import Fleet
from tests.support.journal import read_journal
from tests.support.records import Records, TaskRow, most_at_once
from tests.support.waiting import wait_until
from tests.support.workflows import Definition, record

#: The first action of each run, and the items of what follows; a for_each itself is no branch at work.
ITEMS = 8


@pytest.fixture(scope="module")
def two(module_fleet: Fleet) -> Fleet:
    """Two workers of four processes."""
    module_fleet.start(2, concurrency=4, ACTION_MODULES="tests.support.journal")
    return module_fleet


@pytest.fixture(scope="module")
def client(two: Fleet) -> Iterator[Client]:
    with running_client(two) as running:
        yield running


@pytest.fixture(params=Dispatch, ids=str)
def dispatch(request: pytest.FixtureRequest) -> Dispatch:
    dispatch: Dispatch = request.param
    return dispatch


def limits_command(fleet: Fleet, *arguments: str) -> Any:
    """What `parallelizer limits … --json` prints."""
    done = subprocess.run(
        [sys.executable, "-m", "parallelizer", "limits", *arguments, "--json"], capture_output=True, text=True,
        env=clean_environment(**fleet.settings), timeout=WAIT_SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def fan(
    name: str, dispatch: Dispatch, journal: Path, seconds: float = 0.03, items: int = ITEMS, **limits: Any
) -> Definition:
    """`first`, then so many items."""
    each = {**record(journal, seconds=seconds), "for_each": {"range": items}, "needs": ["first"]}
    actions = {"first": record(journal, seconds=seconds), "each": each}
    return {"name": name, "dispatch": dispatch, "limits": limits, "actions": actions}


def branches_of(records: Records, sessions: list[str], items: int = ITEMS) -> list[TaskRow]:
    rows = [row for session in sessions for row in records.tasks(session, items + 2).values()]
    return [row for row in rows if row.action == "first" or row.item >= 0]


def test_limits_of_a_workflow_and_of_keys_hold_over_all_sessions_and_workers(
    client: Client, two: Fleet, tmp_path: Path, dispatch: Dispatch
) -> None:
    by_key: dict[str, Any] = {"concurrency_key": "${{ payload.customer }}", "max_concurrent_branches_per_key": 2}
    workflows = [
        fan(f"orders-{dispatch}", dispatch, tmp_path / "journal", max_concurrent_branches_of_workflow=3, **by_key),
        fan(f"returns-{dispatch}", dispatch, tmp_path / "journal", **by_key),
    ]
    ran: dict[str, list[list[str]]] = client.run(
        """
        sent = [
            (definition["name"], customer, send(definition, {"customer": customer}).delay())
            for _ in range(2) for definition in workflows for customer in ("ada", "grace")
        ]
        result = {}
        for name, customer, waiting in sent:
            ended = waiting.get(timeout=60)
            assert ended["status"] == "succeeded", ended
            for group in (name, customer):
                result.setdefault(group, []).append(ended["flow_session_id"])
        """,
        workflows=workflows,
    )
    records = Records(two)
    at_once = {group: most_at_once(branches_of(records, sessions)) for group, sessions in ran.items()}  # type: ignore[arg-type]
    assert at_once[f"orders-{dispatch}"] <= 3
    assert at_once["ada"] == at_once["grace"] == 2, "they hold over both workflows, and are used"
    records.wait_nothing_live()
    assert [limit for limit in limits_command(two) if limit["name"].startswith("key:")] == []


def held(name: str, dispatch: Dispatch, journal: Path, folder: Path, items: int, **limits: Any) -> Definition:
    """Items of which each is at work until its file is in the folder."""
    folder.mkdir(exist_ok=True)
    call = {"uses": "test.hold", "with": {"journal": str(journal), "folder": str(folder), "seconds": 120}}
    actions = {"each": {**call, "for_each": {"range": items}}}
    return {"name": name, "dispatch": dispatch, "limits": limits, "actions": actions}


def started(journal: Path) -> list[str]:
    return [task for kind, task, *_ in read_journal(journal) if kind == "start"]


def release(folder: Path, tasks: Iterable[str]) -> None:
    for task in tasks:
        (folder / f"{task}.1").touch()


def test_a_limit_that_is_raised_and_lowered_while_a_run_is_at_work_holds_at_once(
    client: Client, two: Fleet, tmp_path: Path, dispatch: Dispatch
) -> None:
    journal, folder, name = tmp_path / "journal", tmp_path / "held", f"changed-{dispatch}"
    level = f"workflow:{name}"
    assert limits_command(two, "set", level, "1") == {"name": level, "limit": 1, "before": None, "in_use": 0}
    workflow = held(name, dispatch, journal, folder, 9, max_concurrent_branches_of_workflow=7)
    session = client.run("sent = send(workflow).delay(); result = sent.id", workflow=workflow)
    wait_until(lambda: len(started(journal)) == 1, "the first item is at work")
    shown = {limit["name"]: limit for limit in limits_command(two)}[level]
    assert (shown["limit"], shown["in_use"], shown["waiting"], shown["set_by"]) == (1, 1, 1, "operator")
    assert shown["longest_wait_seconds"] > 0

    assert limits_command(two, "set", level, "4")["before"] == 1
    wait_until(lambda: len(started(journal)) == 4, "four are at work")
    assert limits_command(two, "set", level, "2") == {"name": level, "limit": 2, "before": 4, "in_use": 4}
    release(folder, started(journal)[:2])
    in_use = LiveState(two.redis_url, two.namespace)
    wait_until(lambda: in_use.client.zcard(in_use.space.key("permits", level)) == 2, "the excess has ended")
    release(folder, started(journal)[2:3])
    wait_until(lambda: len(started(journal)) == 5, "the next one is at work")
    assert limits_command(two, "unset", level) == {"name": level, "limit": 7, "before": 2, "in_use": 6}
    wait_until(lambda: len(started(journal)) == 9, "all the others are")
    release(folder, started(journal))

    client.run("result = app.AsyncResult(session).get(timeout=60)['status']", session=session)
    rows = [row for row in Records(two).tasks(session, 10).values() if row.item >= 0]
    order = {f"each:{row.item}": row for row in rows}
    assert most_at_once([order[task] for task in started(journal)[:1]]) == 1
    assert most_at_once([order[task] for task in started(journal)[:5]]) == 4
    assert most_at_once(rows) == 6
    Records(two).wait_nothing_live()


def test_a_raised_limit_of_sessions_starts_those_that_are_queued(client: Client, two: Fleet, tmp_path: Path) -> None:
    journal, folder = tmp_path / "journal", tmp_path / "held"
    limits_command(two, "set", "workflows", "1")
    workflow = held("queued", Dispatch.COUNTED, journal, folder, 1)
    client.run("sent = [send(workflow).delay() for _ in range(3)]; result = None", workflow=workflow)
    live = LiveState(two.redis_url, two.namespace)
    wait_until(lambda: live.client.zcard(live.space.key("sessions_queued")) == 2, "two are queued")
    wait_until(lambda: len(started(journal)) == 1, "one is at work")
    shown = limits_command(two)[1]
    assert (shown["name"], shown["limit"], shown["in_use"], shown["waiting"]) == ("sessions", 1, 1, 2)
    assert shown["longest_wait_seconds"] > 0
    assert limits_command(two, "unset", "sessions")["limit"] is None
    wait_until(lambda: len(started(journal)) == 3, "all are at work")
    release(folder, started(journal))
    assert client.run("result = [one.get(timeout=60)['status'] for one in sent]") == ["succeeded"] * 3
    Records(two).wait_nothing_live()


def test_a_run_above_a_limit_of_sessions_is_queued_or_rejected(client: Client, two: Fleet, tmp_path: Path) -> None:
    journal, folder = tmp_path / "journal", tmp_path / "held"
    limits = {"max_concurrent_sessions": 1}
    waits, fails = (
        {**held("single", Dispatch.COUNTED, journal, folder, 1), "limits": each}
        for each in (limits, {**limits, "when_full": "reject"})
    )
    client.run("first, second = [send(waits).delay() for _ in range(2)]; result = None", waits=waits)
    wait_until(lambda: len(started(journal)) == 1, "the first is at work")
    rejected = client.run("result = send(fails).delay().get(timeout=60)", fails=fails)
    assert rejected["status"] == "failed"
    (error,) = Records(two).rows(
        "SELECT error->>'message' FROM flow_sessions WHERE flow_session_id = %s", rejected["flow_session_id"]
    )
    assert "when_full is reject" in error[0]
    release(folder, started(journal))
    assert client.run("result = [one.get(timeout=60)['status'] for one in (first, second)]") == ["succeeded"] * 2
    assert len(started(journal)) == 2
    Records(two).wait_nothing_live()
