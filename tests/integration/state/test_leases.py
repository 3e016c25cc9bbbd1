"""What nobody renews is given up: claims, permits and slots of lost workers; what is renewed stays."""

from __future__ import annotations

from orchestration.state.live import LiveState
from orchestration.state.records import NewSession, Runner
from orchestration.vocabulary import Next, Settlement, Verdict

LONG_US, OVER_US = 3_600_000_000, 0
NEW = NewSession(
    workflow="w", version_id="v", day="2026-01-01", limit=10, branch_timeout_seconds=300.0, open_branches=2,
    signature="{}", queues=["q"], ready=[("a", "q"), ("b", "q")],
)  # fmt: skip


def runner_of(worker: str, nonce: str = "1", runner: str = "s.0") -> Runner:
    return Runner("s", runner, f"{worker}/{nonce}", "q", worker)


def claimed(live: LiveState, runner: Runner, lease_us: int) -> Next:
    assert live.open_session(runner, NEW, lease_us)[0] is Verdict.GO
    answer = live.settle_branch(runner, [], call=1)
    assert [claim.unit for claim in answer.claims] == ["b:a"]
    return answer


def permits(live: LiveState) -> int:
    return int(live.client.zcard(live.space.key("permits", "global")))


def test_a_runner_whose_lease_is_over_loses_its_claims_to_another(live: LiveState) -> None:
    live.beat_worker("w#1", ["q"], 1, LONG_US, 0)
    answer = claimed(live, runner_of("w#1"), OVER_US)
    publications, workers, runners = live.expire_leases()
    assert (workers, runners) == ([], {"s.0": "lease"})
    assert live.repairs() == {"lease": 1}
    (taker,) = publications
    late = live.settle_branch(runner_of("w#1"), [Settlement(answer.claims[0], "done")], call=2)
    assert late.verdict is Verdict.LOST, "what the lost runner reports later is refused"

    other = runner_of("w#1", "2", taker.runner)
    assert live.start_runner(other, LONG_US).verdict is Verdict.GO
    units = live.settle_branch(other, [], call=1, want=2).claims
    assert {claim.unit: claim.attempt for claim in units} == {"b:a": 2, "b:b": 1}
    assert permits(live) == 2


def test_how_a_process_ended_is_known_of_each_unit_that_was_in_it(live: LiveState) -> None:
    live.beat_worker("w#1", ["q"], 1, LONG_US, 0)
    claimed(live, runner_of("w#1"), LONG_US)
    (taker,) = live.expire_runner("s", "s.0", "q", "w#1", death="by signal 11 (SIGSEGV)")
    assert live.death_of("s", "b:a") == "by signal 11 (SIGSEGV)"
    assert live.death_of("s", "b:b") == "", "nothing has died in it"
    other = runner_of("w#1", "2", taker.runner)
    live.start_runner(other, OVER_US)
    assert [claim.unit for claim in live.settle_branch(other, [], call=1).claims] == ["b:a"]
    live.expire_leases()
    assert live.death_of("s", "b:a") == "with its worker", "the last one counts"


def test_a_worker_renews_the_runners_in_it_and_no_others(live: LiveState) -> None:
    live.beat_worker("w#1", ["q"], 2, LONG_US, 0)
    claimed(live, runner_of("w#1"), OVER_US)
    live.beat_worker("w#2", ["q"], 2, LONG_US, 0)
    assert live.client.zscore(live.space.key("inflight", "q"), "s.0") <= live.now_us()
    live.beat_worker("w#1", ["q"], 2, LONG_US, 0)
    assert live.expire_leases()[2] == {}


def test_a_lost_worker_takes_its_slots_along(live: LiveState) -> None:
    live.beat_worker("w#1", ["q", "r"], 4, OVER_US, 0)
    live.beat_worker("w#2", ["q"], 2, LONG_US, 0)
    assert live.client.get(live.space.key("slots_total", "q")) == b"6"
    assert live.expire_leases()[1] == ["w#1"]
    assert live.client.get(live.space.key("slots_total", "q")) == b"2"
    assert live.client.get(live.space.key("slots_total", "r")) == b"0"
    assert live.expire_leases()[1] == []


def test_a_worker_that_stops_takes_its_slots_along_and_a_bigger_one_changes_them(live: LiveState) -> None:
    live.beat_worker("w#1", ["q"], 2, LONG_US, 0)
    live.beat_worker("w#1", ["q"], 5, LONG_US, 0)
    assert live.client.get(live.space.key("slots_total", "q")) == b"5"
    live.stop_worker("w#1")
    live.stop_worker("w#1")
    assert live.client.get(live.space.key("slots_total", "q")) == b"0"
    assert live.client.zcard(live.space.key("workers")) == 0


def test_a_new_worker_gets_runners_of_sessions_that_wait_for_slots(live: LiveState) -> None:
    runner = runner_of("w#1")
    verdict, publications = live.open_session(runner, NEW, LONG_US)
    assert (verdict, publications) == (Verdict.GO, ()), "without workers one runner is in flight, the caller"
    assert live.settle_branch(runner, [], call=1).publications == ()
    (publication,) = live.beat_worker("w#2", ["q"], 2, LONG_US, 0)
    assert publication.flow_session_id == "s"


def test_a_second_delivery_waits_for_the_lease_of_the_first(live: LiveState) -> None:
    live.beat_worker("w#1", ["q"], 1, LONG_US, 0)
    first = runner_of("w#1")
    claimed(live, first, LONG_US)
    second = runner_of("w#2", "2")
    assert live.start_runner(second, LONG_US).verdict is Verdict.DUPLICATE
    live.client.zadd(live.space.key("inflight", "q"), {"s.0": 1})
    assert live.start_runner(second, LONG_US).verdict is Verdict.GO
    assert live.settle_branch(first, [], call=2).verdict is Verdict.LOST
    again = live.settle_branch(second, [], call=1, want=2)
    assert {claim.unit: claim.attempt for claim in again.claims} == {"b:a": 2, "b:b": 1}
    assert permits(live) == 2


def test_a_published_runner_that_never_starts_gives_its_slot_and_permit_back(live: LiveState) -> None:
    live.beat_worker("w#1", ["q"], 2, LONG_US, 0)
    runner = runner_of("w#1")
    _, (publication,) = live.open_session(runner, NEW, LONG_US)
    live.settle_branch(runner, [], call=1)
    assert permits(live) == 2
    live.client.zadd(live.space.key("inflight", "q"), {publication.runner: 1})
    (again,), _, runners = live.expire_leases()
    assert runners == {publication.runner: "message"}
    assert live.repairs() == {"message": 1}
    assert again.runner != publication.runner, "its work is offered again, to a runner of another id"
    assert live.start_runner(runner_of("w#1", "3", publication.runner), LONG_US).verdict is Verdict.REDUNDANT
    assert permits(live) == 2


def test_what_a_dead_process_was_told_to_publish_is_published_once_more(live: LiveState) -> None:
    live.beat_worker("w#1", ["q"], 3, LONG_US, 0)
    _, told = live.open_session(runner_of("w#1"), NEW, LONG_US)
    assert [publication.runner for publication in told] == ["s.1"]
    assert live.resend_runners() == told
    assert [p.runner for p in live.expire_runner("s", "s.0", "q", "w#1")] == ["s.2"]
    assert live.start_runner(runner_of("w#1", "2", "s.1"), LONG_US).verdict is Verdict.GO
    assert [p.runner for p in live.resend_runners()] == ["s.2"], "the other one has begun"


def test_what_a_lost_worker_was_told_to_publish_is_published_once_more(live: LiveState) -> None:
    live.beat_worker("w#1", ["q"], 2, OVER_US, 0)
    live.beat_worker("w#2", ["q"], 2, LONG_US, 0)
    _, told = live.open_session(runner_of("w#1"), NEW, LONG_US)
    assert live.expire_leases() == (told, ["w#1"], {})


LEASE_US = 15_000_000


def look_away(live: LiveState, us: int) -> None:
    """As after so long an outage of Redis: nobody has looked, and all leases are over."""
    live.client.hset(live.space.key("outage"), "looked", live.now_us() - us)


def test_after_an_outage_of_redis_nobody_is_taken_for_lost_before_all_had_the_time_to_renew(live: LiveState) -> None:
    live.beat_worker("w#1", ["q"], 1, OVER_US, 0)
    claimed(live, runner_of("w#1"), OVER_US)
    look_away(live, 6_000_000)
    for _ in range(3):
        assert live.expire_leases(LEASE_US) == ((), [], {})
    assert live.start_runner(runner_of("w#2", "2"), LEASE_US).verdict is Verdict.DUPLICATE, (
        "the first one may be at work"
    )
    live.client.hset(live.space.key("outage"), "until", live.now_us() - 1)
    assert live.expire_leases(LEASE_US)[1:] == (["w#1"], {"s.0": "lease"})


def test_a_message_that_comes_before_the_first_look_after_an_outage_takes_nothing_over(live: LiveState) -> None:
    live.beat_worker("w#1", ["q"], 1, LONG_US, 0)
    claimed(live, runner_of("w#1"), OVER_US)
    look_away(live, 6_000_000)
    assert live.start_runner(runner_of("w#2", "2"), LEASE_US).verdict is Verdict.DUPLICATE


def test_an_outage_during_the_time_after_an_outage_gives_the_whole_time_again(live: LiveState) -> None:
    live.beat_worker("w#1", ["q"], 1, OVER_US, 0)
    look_away(live, 6_000_000)
    live.expire_leases(LEASE_US)
    live.client.hset(live.space.key("outage"), "until", live.now_us() - 1)
    live.client.hset(live.space.key("outage"), "looked", live.now_us() - 6_000_000)
    for _ in range(3):
        assert live.expire_leases(LEASE_US) == ((), [], {})


def test_looks_that_come_a_little_late_are_no_outage(live: LiveState) -> None:
    live.beat_worker("w#1", ["q"], 1, OVER_US, 0)
    live.client.hset(live.space.key("outage"), "looked", live.now_us() - 2_500_000)
    assert live.expire_leases(LEASE_US)[1] == ["w#1"]
