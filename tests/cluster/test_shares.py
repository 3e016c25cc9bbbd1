"""Large sessions share a real fleet in the proportion of their weights, and do not swap at every turn."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.clients import Client, running_client
from tests.support.fleet import Fleet
from tests.support.records import Records
from tests.support.shares import SHARES

ITEMS = 1000
SECONDS = 0.01
#: What was done in this time from the start of the later session is not counted: it has a head start.
HEAD_START_SECONDS = 1.0
MOST_MESSAGES_PER_SECOND = 10
RUN = """
def runners():
    totals = [each["total"] for each in app.control.inspect(timeout=30, limit=1).stats().values()]
    return totals[0].get("tasks.run_branches", 0)

before = runners()
sent = [send(workflow).delay() for workflow in workflows]
results = [each.get(timeout=120) for each in sent]
result = [[each["flow_session_id"] for each in results], runners() - before]
"""


@pytest.fixture(scope="module")
def workers(module_fleet: Fleet) -> Fleet:
    """One worker with two slots."""
    module_fleet.start(1, concurrency=2, ACTION_MODULES="tests.support.journal")
    return module_fleet


@pytest.fixture(scope="module")
def client(workers: Fleet) -> Iterator[Client]:
    with running_client(workers) as running:
        yield running


@pytest.mark.parametrize(("weights", "expected"), [((1, 1), 0.5), ((1, 3), 0.25)], ids=["equal", "one-to-three"])
def test_two_large_sessions_share_by_weight(
    client: Client, workers: Fleet, tmp_path: Path, weights: tuple[float, float], expected: float
) -> None:
    sleep = {"uses": "test.record", "with": {"journal": str(tmp_path / "journal"), "seconds": SECONDS}}
    workflows = [
        {"name": "large", "limits": {"weight": weight}, "actions": {"each": {**sleep, "for_each": {"range": ITEMS}}}}
        for weight in weights
    ]
    sessions, messages = client.run(RUN, workflows=workflows)
    records = Records(workers)
    for session in sessions:
        records.tasks(session, ITEMS + 1)
    rows = records.rows(SHARES, sessions, HEAD_START_SECONDS, sessions)
    used = {session: float(seconds) for session, seconds, _ in rows}
    together = float(rows[0][2])
    assert used[sessions[0]] / sum(used.values()) == pytest.approx(expected, abs=0.05)
    assert messages <= MOST_MESSAGES_PER_SECOND * together, "two sessions swap at every turn"
