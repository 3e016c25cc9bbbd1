"""Actions get Cancelled on every pool, wherever they run, and nothing else does."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.clients import running_client
from tests.support.fleet import Fleet
from tests.support.journal import read_journal
from tests.support.records import Records
from tests.support.waiting import wait_until
from tests.support.workflows import record

ACTION_MODULES = "tests.support.journal,tests.support.cancelled_actions"
SLOTS = {"prefork": 4, "threads": 4, "gevent": 4, "solo": 1}
#: What is not cancelled runs so long; longer than it takes to cancel the other.
BESIDE_SECONDS = 3.0


@pytest.mark.parametrize("needs", [[], ["start"]], ids=["first-branch", "open"])
@pytest.mark.parametrize("pool", SLOTS)
def test_cancelled_is_raised_in_the_actions_of_that_run_only(
    fleet: Fleet, tmp_path: Path, pool: str, needs: list[str]
) -> None:
    journal, other_journal = tmp_path / "journal", tmp_path / "other"
    # long against the test: what ends has got Cancelled, and was not given up
    fleet.start(1, concurrency=SLOTS[pool], pool=pool, ACTION_MODULES=ACTION_MODULES, BRANCH_GRACE_SECONDS="60")
    actions = {"works": {"uses": "test.note_cancelled_at_work", "with": {"journal": str(journal)}, "needs": needs}}
    if needs:
        actions["start"] = {"uses": "core.noop"}
    beside = {"only": record(other_journal, seconds=BESIDE_SECONDS)}
    with running_client(fleet) as client:
        client.run("from tasks import cancel_session")
        begin = "result = send(workflow).delay().id"
        session = client.run(begin, workflow={"name": "to-be-cancelled", "actions": actions})
        wait_until(lambda: len(read_journal(journal)) == 1, "it runs")
        other = client.run(begin, workflow={"name": "beside", "actions": beside})
        if SLOTS[pool] > 1:
            wait_until(lambda: len(read_journal(other_journal)) == 1, "the other runs beside it")
        client.run("result = cancel_session(session).to_json()", session=session)
        wait = "result = AsyncResult(session).get(timeout=30)"
        assert client.run(wait, session=session)["status"] == "cancelled"
        assert client.run(wait, session=other)["status"] == "succeeded"
    assert [kind for kind, *_ in read_journal(journal)] == ["start", "end"]
    row = Records(fleet).tasks(session, len(actions))["works", -1]
    assert (row.status, row.error["type"]) == ("cancelled", "orchestration.errors.Cancelled")
    Records(fleet).wait_idle()
    Records(fleet).wait_nothing_live()
