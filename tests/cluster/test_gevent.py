"""Celery's pool gevent runs what any other pool runs: plain, async and mixed branches, with both dispatchers."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.clients import running_client
from tests.support.fleet import Fleet
from tests.support.journal import read_journal
from tests.support.records import Records, most_at_once
from tests.support.workflows import Definition

SLOTS, ITEMS = 10, 40


@pytest.mark.parametrize("dispatch", ["counted", "chord"])
def test_all_kinds_of_branches_run_beside_each_other_in_one_process(
    fleet: Fleet, tmp_path: Path, dispatch: str
) -> None:
    journal = tmp_path / "journal"
    inputs = {"journal": str(journal), "seconds": 0.1}
    plain, waits = {"uses": "test.record", "with": inputs}, {"uses": "test.record_async", "with": inputs}
    actions: Definition = {
        "start": {"uses": "core.noop"},
        "plain": {**plain, "needs": ["start"], "for_each": {"range": ITEMS}},
        "waits": {**waits, "needs": ["start"], "for_each": {"range": ITEMS}},
        "both1": {**plain, "needs": ["start"]},
        "both2": {**waits, "needs": ["both1"]},
        "fails": {"uses": "core.fail", "needs": ["start"]},
        "join": {**plain, "needs": ["plain", "waits", "both2", "fails"], "trigger_rule": "all_done"},
    }
    fleet.start(1, concurrency=SLOTS, pool="gevent", ACTION_MODULES="tests.support.journal")
    with running_client(fleet) as client:
        workflow = {"name": "green", "dispatch": dispatch, "actions": actions}
        result = client.run("result = send(workflow).delay().get(timeout=60)", workflow=workflow)
    assert (result["status"], result["counts"]) == ("succeeded", {"succeeded": 2 * ITEMS + 4, "failed": 1})
    begun = [task for kind, task, *_ in read_journal(journal) if kind == "start"]
    assert len(begun) == len(set(begun)) == 2 * ITEMS + 3, "each ran once"
    assert len({pid for *_, pid in read_journal(journal)}) == 1
    rows = Records(fleet).tasks(result["flow_session_id"], 2 * ITEMS + 7).values()
    assert 1 < most_at_once([row for row in rows if row.action == "plain" and row.item >= 0]) <= SLOTS
    Records(fleet).wait_idle()
    Records(fleet).wait_nothing_live()
