"""The runners of a chord: a fixed number, each parked while there is no slot, permit or work for it."""

from __future__ import annotations

import pytest

from orchestration.state.live import LiveState
from orchestration.state.records import NewSession, Runner, Started
from orchestration.state.wire import lives_in
from orchestration.vocabulary import Claim, JoinStep, Mode, Publication, Settlement, Verdict

LEASE_US = 3_600_000_000
WORKER = "w#1"


@pytest.fixture
def live(live: LiveState) -> LiveState:
    live.beat_worker(WORKER, ["q"], 1, LEASE_US)
    return live


def runner_of(session: str, number: int, queue: str = "q", process: int = 1, life: str = "a") -> Runner:
    return Runner(session, f"{session}.{number}", f"{lives_in(WORKER, process)}{life}", queue, WORKER)


def open_chord(
    live: LiveState, session: str, header: int, ready: tuple[tuple[str, str], ...] = (("a", "q"), ("b", "q")),
    most_sessions: int = 0,
) -> Verdict:  # fmt: skip
    """A session whose branches are ready, on these queues."""
    new = NewSession(
        workflow="w", version_id="v", day="2026-01-01", limit=10, branch_timeout_seconds=300.0,
        open_branches=len(ready), signature="{}", queues=["q", "r"], ready=ready, header=header,
        most_sessions=most_sessions,
    )  # fmt: skip
    verdict, publications = live.open_session(runner_of(session, 0), new, LEASE_US)
    assert publications == ()
    return verdict


def come(live: LiveState, runner: Runner) -> Started:
    return live.start_runner(runner, LEASE_US, f"message of {runner.runner}")


def published(session: str, number: int, queue: str = "q") -> Publication:
    return Publication(session, f"{session}.{number}", queue, 300.0, f"message of {session}.{number}")


def claim_of(live: LiveState, runner: Runner) -> Claim:
    (claim,) = live.settle_branch(runner, [], call=1).claims
    return claim


def permits(live: LiveState) -> int:
    return int(live.client.zcard(live.space.key("permits", "global")))


def test_a_runner_that_comes_while_a_slot_is_free_needs_no_further_message(live: LiveState) -> None:
    assert open_chord(live, "s", 2) is Verdict.GO
    started = come(live, runner_of("s", 1))
    assert (started.verdict, started.version_id, started.publications) == (Verdict.GO, "v", ())
    assert permits(live) == 1, "its first permit came with its slot"
    assert claim_of(live, runner_of("s", 1)).unit == "b:a"


def test_a_runner_that_finds_no_slot_is_published_by_whoever_frees_one(live: LiveState) -> None:
    open_chord(live, "s", 2)
    first, second = runner_of("s", 1), runner_of("s", 2)
    come(live, first)
    assert come(live, second).verdict is Verdict.PARKED
    claim = claim_of(live, first)
    left = live.settle_branch(first, [Settlement(claim, "done")], call=2, mode=Mode.LEAVE)
    assert left.verdict is Verdict.STOP
    assert left.publications == (published("s", 1),), "of those that are parked, the last one that came goes first"
    assert permits(live) == 1


def test_a_runner_that_gives_way_is_parked_and_comes_again(live: LiveState) -> None:
    open_chord(live, "s", 1)
    open_chord(live, "other", 1)
    runner = runner_of("s", 1)
    come(live, runner)
    assert come(live, runner_of("other", 1)).verdict is Verdict.PARKED
    claim = claim_of(live, runner)
    gave_way = live.settle_branch(runner, [Settlement(claim, "done")], call=2, mode=Mode.SLICE, elapsed_us=1_000_000)
    assert gave_way.verdict is Verdict.YIELD
    assert gave_way.publications == (published("other", 1),)
    other = runner_of("other", 1, life="b")
    assert come(live, other).verdict is Verdict.GO
    back = live.settle_branch(other, [], call=1, mode=Mode.LEAVE, elapsed_us=10_000_000)
    assert back.publications == (published("s", 1),)


def test_work_on_another_queue_gets_the_runner_that_has_none_on_its_own(live: LiveState) -> None:
    live.beat_worker("w#2", ["r"], 1, LEASE_US)
    open_chord(live, "s", 1, ready=(("a", "r"),))
    started = come(live, runner_of("s", 1))
    assert started.verdict is Verdict.PARKED
    assert started.publications == (published("s", 1, "r"),)
    again = come(live, runner_of("s", 1, life="b"))
    assert (again.verdict, again.publications) == (Verdict.DUPLICATE, ()), "it is on its way to the other queue"


def test_a_session_none_of_whose_runners_has_come_takes_no_slot(live: LiveState) -> None:
    open_chord(live, "s", 2)
    assert live.beat_worker("w#2", ["q"], 3, LEASE_US) == ()
    assert live.client.zcard(live.space.key("inflight", "q")) == 0


def test_of_a_queued_session_the_runners_wait_for_its_admission(live: LiveState) -> None:
    live.beat_worker(WORKER, ["q"], 1, LEASE_US, 0, 1)
    assert open_chord(live, "s", 1, ready=(("a", "q"),), most_sessions=1) is Verdict.GO
    assert open_chord(live, "late", 1, most_sessions=1) is Verdict.QUEUED
    assert come(live, runner_of("late", 1)).verdict is Verdict.PARKED
    runner = runner_of("s", 1)
    come(live, runner)
    ended = live.settle_branch(runner, [Settlement(claim_of(live, runner), "done")], call=2)
    assert (ended.verdict, ended.signature, ended.publications) == (Verdict.ENDED, "", ())
    assert live.close_session("s")[0] == (published("late", 1),)


def test_when_the_session_has_ended_every_runner_is_told_so(live: LiveState) -> None:
    live.beat_worker(WORKER, ["q"], 3, LEASE_US)
    open_chord(live, "s", 4, ready=(("a", "q"), ("b", "q")))
    ender, idle = runner_of("s", 1), runner_of("s", 2)
    for runner in (ender, idle):
        assert come(live, runner).verdict is Verdict.GO
    assert come(live, runner_of("s", 3)).verdict is Verdict.PARKED
    claims = live.settle_branch(ender, [], call=1, want=2).claims
    settlements = [Settlement(claim, "done") for claim in claims]
    assert live.settle_branch(ender, settlements, call=2).verdict is Verdict.ENDED
    assert live.settle_branch(idle, [], call=1).verdict is Verdict.GONE
    assert come(live, runner_of("s", 4)).verdict is Verdict.REDUNDANT
    assert come(live, runner_of("s", 1, life="b")).verdict is Verdict.ENDED, "its process may have died too early"
    live.close_session("s")
    assert come(live, runner_of("s", 3, life="b")).verdict is Verdict.GONE
    assert list(live.client.scan_iter(f"{live.space.prefix}session:*")) == []
    assert permits(live) == 0


def test_a_runner_whose_lease_is_over_is_parked_and_its_work_goes_to_another_life_of_it(live: LiveState) -> None:
    open_chord(live, "s", 1)
    lost = runner_of("s", 1)
    assert live.start_runner(lost, 0, "message of s.1").verdict is Verdict.GO
    claim = claim_of(live, lost)
    publications, _, runners = live.expire_leases()
    assert (publications, runners) == ((published("s", 1),), {"s.1": "lease"})
    assert live.settle_branch(lost, [Settlement(claim, "done")], call=2).verdict is Verdict.LOST
    taker = runner_of("s", 1, life="b")
    assert come(live, taker).verdict is Verdict.GO
    assert [(one.unit, one.attempt) for one in live.settle_branch(taker, [], call=1, want=2).claims] == [
        ("b:a", 2), ("b:b", 1)
    ]  # fmt: skip


def test_the_end_of_a_process_does_not_touch_the_runner_when_it_is_at_work_in_another(live: LiveState) -> None:
    open_chord(live, "s", 1)
    runner = runner_of("s", 1, process=1)
    come(live, runner)
    assert live.settle_branch(runner, [], call=1, mode=Mode.LEAVE).publications == (published("s", 1),)
    elsewhere = runner_of("s", 1, process=12, life="b")
    assert come(live, elsewhere).verdict is Verdict.GO
    claim = claim_of(live, elsewhere)
    assert live.expire_runner("s", "s.1", "q", WORKER, lives_in(WORKER, 1)) == ()
    step = Settlement(claim, "done", successors=(JoinStep("b", 1, "q"),))
    assert live.settle_branch(elsewhere, [step], call=2).refused == frozenset()
