"""A line of a list puts the record and live state together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from orchestration.reports.lists import lines_of, page_of_runs
from orchestration.state.briefs import read_briefs
from orchestration.state.live import LiveState
from orchestration.store import sessions
from orchestration.store.pool import Database
from orchestration.store.run_lists import RunFilter
from orchestration.vocabulary import Mode, RunStatus, Settlement
from tests.integration.state.test_operator_limits import LEASE_US, QUEUE, open_session
from tests.integration.store.rows import new_id, new_session


@pytest.fixture
def live(redis_url: str, namespace: str) -> Iterator[LiveState]:
    with closing(LiveState(redis_url, namespace)) as live:
        yield live


def test_a_line_tells_what_a_run_under_way_does_and_why_it_waits(live: LiveState, database: Database) -> None:
    run = new_session(database, "w")
    live.beat_worker("w#1", [QUEUE], 8, LEASE_US)
    live.set_limit("workflow:w", 1)
    open_session(live, run.flow_session_id, branches=3)
    over = new_session(database, "w")
    sessions.finish_session(database, over.flow_session_id, over.session_day, RunStatus.FAILED, counts={"failed": 2})
    page, more = page_of_runs(database, live, RunFilter(workflow="w"), 10)
    assert not more
    lines = {line.flow_session_id: line for line in page}
    under_way = lines[run.flow_session_id]
    assert (under_way.status, under_way.limit, under_way.counts) == (RunStatus.RUNNING, 10, {"pending": 3})
    ended = lines[over.flow_session_id]
    assert (ended.status, ended.limit, ended.counts, ended.waits_for) == (RunStatus.FAILED, None, {"failed": 2}, ())
    assert under_way.waits_for == ("waits for the limit workflow:w=1",)
    live.set_limit("workflow:w", 0)
    beside = new_session(database, "w")
    open_session(live, beside.flow_session_id, branches=3)
    (line,) = lines_of(database, live, [beside.flow_session_id])
    assert line.waits_for == ("waits for a slot",)
    live.pause_sessions("session", [run.flow_session_id])
    (line,) = lines_of(database, live, [run.flow_session_id, new_id()])
    assert line.status is RunStatus.PAUSED
    assert line.waits_for == ("paused",)


def test_a_brief_is_what_a_snapshot_says_without_its_claims(live: LiveState) -> None:
    live.beat_worker("w#1", [QUEUE], 2, LEASE_US)
    names = [new_id() for _ in range(3)]
    runners = [open_session(live, name, branches=4) for name in names]
    (claim,) = live.settle_branch(runners[1], [], call=1).claims
    live.settle_branch(runners[1], [Settlement(claim, "expand", size=5)], call=2, mode=Mode.LEAVE)
    briefs = read_briefs(live, [*names, new_id()])
    assert list(briefs) == names
    for name in names:
        snapshot = live.snapshot(name)
        assert snapshot is not None
        assert briefs[name].in_use == len(snapshot.claims)
        for field in ("status", "limit", "ready", "deferred", "open_branches", "counts", "items", "paused"):
            assert getattr(briefs[name], field) == getattr(snapshot, field), field
    assert briefs[names[1]].ready == 3 + 5, "other branches, and items that nobody has claimed"
