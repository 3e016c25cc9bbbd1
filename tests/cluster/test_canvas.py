"""Workflows in Celery's canvas: chain, group, chord, link: each part runs once, in its place, with its payload."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestration.vocabulary import Dispatch
from tests.support.clients import Client, RaisedInClient, running_client
from tests.support.fleet import Fleet
from tests.support.journal import read_journal
from tests.support.records import Records
from tests.support.workflows import forked, linear, record


@pytest.fixture(scope="module")
def records(module_fleet: Fleet) -> Records:
    """One worker of two processes."""
    module_fleet.start(1, concurrency=2, ACTION_MODULES="tests.support.journal")
    return Records(module_fleet)


@pytest.fixture(scope="module", params=["ours", "bare"])
def client(request: pytest.FixtureRequest, module_fleet: Fleet, records: Records) -> Iterator[Client]:
    with running_client(module_fleet, bare=request.param == "bare") as running:
        yield running


@pytest.fixture(params=Dispatch, ids=str)
def names(request: pytest.FixtureRequest, journal: Path) -> dict[str, object]:
    """`lin` and `fork` run `first` (and three branches) and give their payload; `callback` notes that it ran."""
    workflows = {
        "lin": linear("lin", journal),
        "fork": forked("fork", journal),
        "callback": {"name": "callback", "actions": {"callback": record(journal)}},
        "fails": {"name": "fails", "actions": {"bad": record(journal, outcome="fail"), "good": record(journal)}},
    }
    return {name: {**workflow, "dispatch": request.param} for name, workflow in workflows.items()}


def executions(journal: Path, records: Records) -> dict[str, int]:
    """How often each action ran, when no message is left that could still run one."""
    records.wait_idle()
    return dict(Counter(task for kind, task, *_ in read_journal(journal) if kind == "start"))


#: What one run of `lin` or `fork` writes to the journal.
LINEAR = {"first": 1}
FORKED = {"first": 1, "one": 1, "two": 1, "three": 1}


def together(*parts: dict[str, int]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for part in parts:
        total.update(part)
    return dict(total)


def test_in_a_chain_each_result_is_the_payload_of_the_next(
    client: Client, names: dict[str, object], journal: Path, records: Records
) -> None:
    code = "result = chain(send(fork, {'x': 1}), follow(lin), follow(fork)).delay().get(timeout=20)"
    last = client.run(code, **names)
    middle = last["output"]["fork"]
    first = middle["output"]["lin"]
    assert [run["workflow"] for run in (first, middle, last)] == ["fork", "lin", "fork"]
    assert first["output"] == {"fork": {"x": 1}}
    assert executions(journal, records) == together(FORKED, LINEAR, FORKED)


def test_in_a_chain_of_immutable_signatures_each_has_its_own_payload(
    client: Client, names: dict[str, object], journal: Path, records: Records
) -> None:
    code = "result = chain(send(fork, 1), send(fork, 2), send(lin, 3)).delay().get(timeout=20)"
    assert client.run(code, **names)["output"] == {"lin": 3}
    assert executions(journal, records) == together(FORKED, FORKED, LINEAR)
    assert [row[0] for row in records.rows("SELECT payload FROM flow_sessions ORDER BY created_at DESC LIMIT 3")] == [
        3, 2, 1
    ]  # fmt: skip


def test_a_chain_stops_at_a_workflow_that_raises(
    client: Client, names: dict[str, object], journal: Path, records: Records
) -> None:
    with pytest.raises(RaisedInClient, match="workflow fails failed"):
        client.run("chain(send(fails, raise_on_failure=True), send(callback)).delay().get(timeout=20)", **names)
    assert executions(journal, records) == {"bad": 1, "good": 1}


def test_a_group_gives_all_results_in_order(
    client: Client, names: dict[str, object], journal: Path, records: Records
) -> None:
    code = """
        parts = [send(fork if number % 2 else lin, number) for number in range(6)]
        result = group(parts).delay().get(timeout=20)
    """
    outputs = [run["output"] for run in client.run(code, **names)]
    assert outputs == [{"lin": 0}, {"fork": 1}, {"lin": 2}, {"fork": 3}, {"lin": 4}, {"fork": 5}]
    assert executions(journal, records) == together(*[LINEAR, FORKED] * 3)


def test_the_body_of_a_chord_has_all_results_as_its_payload_and_runs_once(
    client: Client, names: dict[str, object], journal: Path, records: Records
) -> None:
    code = "result = chord([send(fork, 1), send(lin, 2), send(fork, 3)], follow(fork)).delay().get(timeout=20)"
    payload = client.run(code, **names)["output"]["fork"]
    assert [run["output"] for run in payload] == [{"fork": 1}, {"lin": 2}, {"fork": 3}]
    assert executions(journal, records) == together(FORKED, LINEAR, FORKED, FORKED)


def test_a_chord_of_chains_in_a_chain(
    client: Client, names: dict[str, object], journal: Path, records: Records
) -> None:
    code = """
        header = [chain(send(lin, 1), follow(fork)), send(fork, 2), chain(send(fork, 3), send(lin, 4), follow(lin))]
        result = chain(send(fork, 0), chord(header, follow(lin)), follow(fork)).delay().get(timeout=30)
    """
    body = client.run(code, **names)["output"]["fork"]
    parts = body["output"]["lin"]
    assert [run["workflow"] for run in parts] == ["fork", "fork", "lin"]
    assert parts[0]["output"]["fork"]["output"] == {"lin": 1}
    assert parts[1]["output"] == {"fork": 2}
    assert parts[2]["output"]["lin"]["output"] == {"lin": 4}
    assert executions(journal, records) == together(*[FORKED] * 5, *[LINEAR] * 4)


@pytest.mark.parametrize("shape", ["lin", "fork"])
def test_a_linked_callback_runs_once_when_the_workflow_has_ended(
    client: Client, names: dict[str, object], journal: Path, records: Records, shape: str
) -> None:
    code = """
        after = send(callback).set(task_id=task_id)
        send(workflow).apply_async(link=after).get(timeout=20)
        AsyncResult(task_id).get(timeout=20)
    """
    client.run(code, **names, workflow=names[shape], task_id=f"{journal}")
    assert executions(journal, records) == together(LINEAR if shape == "lin" else FORKED, {"callback": 1})
    order = [task for kind, task, *_ in read_journal(journal) if kind == "start"]
    assert order[-1] == "callback"


def test_an_errback_runs_once_when_the_workflow_raises(
    client: Client, names: dict[str, object], journal: Path, records: Records
) -> None:
    code = """
        after = send(callback).set(task_id=task_id)
        send(fails, raise_on_failure=True).apply_async(link_error=after)
        AsyncResult(task_id).get(timeout=20)
    """
    client.run(code, **names, task_id=f"{journal}")
    assert executions(journal, records) == {"bad": 1, "good": 1, "callback": 1}
