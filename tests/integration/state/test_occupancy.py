"""The fleet as onlookers see it: who holds what, who is next, what waits."""

from __future__ import annotations

from orchestration.state.live import LiveState
from orchestration.state.occupancy import (
    RateLimits,
    read_busiest_limits,
    read_full_sessions,
    read_holders,
    read_line,
    read_occupancy,
    read_queues,
    workflows_of,
)
from orchestration.state.queues import QueueCounts
from tests.integration.state.test_operator_limits import LEASE_US, QUEUE, open_session


def test_a_limit_tells_who_holds_it_and_who_is_next(live: LiveState) -> None:
    live.beat_worker("w#1", [QUEUE], 8, LEASE_US)
    runner = open_session(live, "s1", branches=1, of_workflow=1)
    live.settle_branch(runner, [], call=1)
    live.settle_branch(open_session(live, "s2", branches=1, of_workflow=1), [], call=1)
    (holder,) = read_holders(live, "workflow:w", 10)
    assert (holder.flow_session_id, holder.runner) == ("s1", runner.runner)
    assert holder.worker == "w#1"
    assert holder.lease_us is not None
    assert 0 < holder.lease_us <= LEASE_US
    assert read_line(live, "workflow:w", 10) == ["s2"]
    (of_session,) = read_holders(live, "session:s1", 10)
    assert (of_session.flow_session_id, of_session.worker, of_session.runner) == ("s1", "w#1", runner.runner)
    assert [one.flow_session_id for one in read_holders(live, "sessions", 10)] == ["s1", "s2"]
    limits, left_out = read_busiest_limits(live)
    assert left_out == 0
    assert {limit.name: (limit.limit, limit.in_use) for limit in limits}["workflow:w"] == (1, 1)
    assert workflows_of(live, ["s1", "gone"]) == {"s1": "w"}


def test_sessions_that_use_all_of_their_own_limit_are_found(live: LiveState) -> None:
    live.beat_worker("w#1", [QUEUE], 8, LEASE_US)
    live.set_limit("global", 100)
    runner = open_session(live, "s1")
    assert read_full_sessions(live) == []
    live.set_limit("session:s1", 1)
    live.settle_branch(runner, [], call=1)
    (report,) = read_full_sessions(live)
    assert (report.name, report.limit, report.in_use, report.set_by) == ("session:s1", 1, 1, "operator")
    assert report.longest_wait_seconds is not None


def test_queues_have_slots_by_worker_and_a_fleet_counts_each_worker_once(live: LiveState) -> None:
    assert read_queues(live) == []
    live.beat_worker("w#1", [QUEUE, "gpu"], 3, LEASE_US)
    live.beat_worker("w#2", ["gpu"], 4, LEASE_US)
    open_session(live, "s1")
    queues = {queue.name: queue for queue in read_queues(live)}
    assert queues["gpu"].workers == {"w#1": 3, "w#2": 4}
    assert queues["gpu"].counts == QueueCounts(7, 0, 0)
    assert queues[QUEUE].counts.runners >= 1
    fleet = read_occupancy(live)
    assert (fleet.slots, fleet.workers) == (7, 2)
    assert fleet.entries >= 0
    live.stop_worker("w#1")
    assert read_occupancy(live).slots == 4


def test_rate_limits_in_use_are_found_with_the_time_until_a_call_may_begin(live: LiveState) -> None:
    rates = RateLimits(live)
    assert rates.read() == []
    live.take_rate("s1:a:-1:1", [("w/a", 60_000_000, 1)])
    live.take_rate("s2:a:-1:1", [("w/a", 60_000_000, 1)])
    (report,) = rates.read()
    assert report.name == "w/a"
    assert 60_000_000 < report.wait_us <= 120_000_000
    live.client.delete(live.space.key("rate", "w/a"))
    assert rates.read() == []
