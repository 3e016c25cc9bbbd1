"""Sessions that would be left alone for ever, each made by what a fault leaves behind: repaired, counted, and once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from orchestration.state.live import LiveState
from orchestration.state.records import NewSession, Reaped, Runner
from orchestration.vocabulary import Claim, Mode, Publication, Settlement, Verdict
from tests.support.waiting import wait_until

LONG_US = 3_600_000_000
SECOND_US = 1_000_000
NEW = NewSession(
    workflow="w", version_id="v", day="2026-01-01", limit=10, branch_timeout_seconds=300.0, open_branches=2,
    signature="parked", queues=["q", "r"], ready=(("a", "q"), ("b", "r")),
)  # fmt: skip


@pytest.fixture
def live(live: LiveState) -> Iterator[LiveState]:
    live.beat_worker("w#1", ["q"], 2, LONG_US)
    yield live
    assert live.reap_sessions("w#1", LONG_US).repairs == (), "what is repaired is whole"


def runner_of(session: str, number: int = 0, queue: str = "q") -> Runner:
    return Runner(session, f"{session}.{number}", f"w#1/{number}.a", queue, "w#1")


def open_session(live: LiveState, session: str = "s", **parts: Any) -> tuple[Publication, ...]:
    """A session with two branches, one of them on a queue that nobody serves."""
    return live.open_session(runner_of(session), replace(NEW, **parts), LONG_US)[1]


def claim_of(live: LiveState, session: str = "s") -> Claim:
    (claim,) = live.settle_branch(runner_of(session), [], call=1).claims
    return claim


def end(live: LiveState, session: str = "s", **parts: Any) -> None:
    """A session that has ended, whose completion was published by nobody."""
    open_session(live, session, open_branches=1, ready=(("a", "q"),), **parts)
    done = Settlement(claim_of(live, session), "done")
    assert live.settle_branch(runner_of(session), [done], call=2).verdict is Verdict.ENDED


def grow_old(live: LiveState, session: str, *fields: str, seconds: float) -> None:
    """The times in these fields of a session are so long ago."""
    for field in fields:
        live.client.hincrby(live.space.key("session", session), field, -int(seconds * 1e6))


def reap(live: LiveState) -> Reaped:
    reaped = live.reap_sessions("w#1", LONG_US)
    assert reaped.is_reaper
    assert reaped.is_done
    return reaped


def causes(reaped: Reaped) -> list[tuple[str, str]]:
    return [(repair.cause, repair.flow_session_id) for repair in reaped.repairs]


def came(live: LiveState, publication: Publication) -> Runner:
    """The runner that was published, at work."""
    number = int(publication.runner.rpartition(".")[2])
    runner = runner_of(publication.flow_session_id, number, publication.queue)
    assert live.start_runner(runner, LONG_US).verdict is Verdict.GO
    return runner


def completion_of(session: str) -> Publication:
    return Publication(session, "", "", 300.0, "parked")


# Sessions that have ended


def test_a_completion_that_was_lost_is_published_again_later_each_time(live: LiveState) -> None:
    end(live)
    grow_old(live, "s", "ended", seconds=9)
    assert reap(live) == Reaped(is_reaper=True, is_done=True), "it may be on its way"
    grow_old(live, "s", "ended", seconds=1.001)
    reaped = reap(live)
    assert reaped.publications == (completion_of("s"),)
    (repair,) = reaped.repairs
    assert (repair.cause, repair.flow_session_id) == ("completion", "s")
    assert repair.age_us >= 10 * SECOND_US
    for number, wait in enumerate((20, 40, 80, 160, 320, 600, 600), 1):
        grow_old(live, "s", "complete_at", seconds=wait - 1)
        assert reap(live).publications == ()
        grow_old(live, "s", "complete_at", seconds=1.001)
        assert reap(live).publications == (completion_of("s"),)
        assert live.repairs() == {"completion": number + 1}
    live.close_session("s")
    assert reap(live).publications == ()


def test_of_many_completions_some_are_published_at_a_time(live: LiveState) -> None:
    for number in range(50):
        end(live, f"s{number}")
        grow_old(live, f"s{number}", "ended", seconds=11)
    published = [len(reap(live).publications) for _ in range(4)]
    assert published == [20, 20, 10, 0]
    assert live.repairs() == {"completion": 50}


def test_completions_wait_while_none_can_be_recorded(live: LiveState) -> None:
    end(live)
    grow_old(live, "s", "ended", seconds=11)
    assert live.reap_sessions("w#1", LONG_US, completions=0) == Reaped(is_reaper=True, is_done=True)
    assert reap(live).publications == (completion_of("s"),)


def test_a_session_that_was_open_before_the_reaper_was_there_is_completed_too(live: LiveState) -> None:
    end(live)
    live.client.hdel(live.space.key("session", "s"), "ended")
    assert reap(live).publications == ()
    grow_old(live, "s", "ended", seconds=11)
    assert reap(live).publications == (completion_of("s"),)


def test_the_completion_of_a_chord_is_published_without_its_chord(live: LiveState) -> None:
    """Its parts, its counter or its body were lost."""
    open_session(live, header=1, open_branches=1, ready=(("a", "q"),))
    runner = runner_of("s", 1)
    assert live.start_runner(runner, LONG_US, "message").verdict is Verdict.GO
    (claim,) = live.settle_branch(runner, [], call=1).claims
    assert live.settle_branch(runner, [Settlement(claim, "done")], call=2).verdict is Verdict.ENDED
    grow_old(live, "s", "ended", seconds=11)
    assert reap(live).publications == (completion_of("s"),)


@pytest.mark.parametrize("come", [0, 1], ids=["none is parked", "the message of the one that was parked is lost"])
def test_a_cancelled_chord_whose_end_nobody_was_told_of_is_completed(live: LiveState, come: int) -> None:
    live.beat_worker("w#1", ["q"], 0, LONG_US)
    open_session(live, header=1, open_branches=1, ready=(("a", "q"),))
    for number in range(1, come + 1):
        assert live.start_runner(runner_of("s", number), LONG_US, "message").verdict is Verdict.PARKED
    assert len(live.cancel_session("s").publications) == come
    grow_old(live, "s", "ended", seconds=11)
    assert reap(live).publications == (completion_of("s"),)


def test_a_session_that_was_stopped_and_not_ended_is_ended(live: LiveState) -> None:
    open_session(live)
    claim_of(live)
    live.cancel_session("s")
    assert causes(reap(live)) == [], "something of it still runs"
    live.client.delete(live.space.key("own", "s"))
    reaped = reap(live)
    assert causes(reaped) == [("end", "s")]
    assert reaped.publications == (completion_of("s"),)


# Work without a runner


def test_ready_work_that_waits_for_no_slot_gets_a_runner(live: LiveState) -> None:
    open_session(live)
    live.client.delete(live.space.key("waiting", "r"))
    assert live.beat_worker("w#2", ["r"], 1, LONG_US) == (), "nobody else finds it"
    reaped = reap(live)
    assert causes(reaped) == [("runner", "s")]
    assert [(p.flow_session_id, p.queue) for p in reaped.publications] == [("s", "r")]
    assert live.repairs() == {"runner": 1}


def test_ready_work_on_a_queue_without_a_worker_waits_for_one_again(live: LiveState) -> None:
    open_session(live)
    live.client.delete(live.space.key("waiting", "r"))
    reaped = reap(live)
    assert (causes(reaped), reaped.publications) == ([("runner", "s")], ())
    assert [p.queue for p in live.beat_worker("w#2", ["r"], 1, LONG_US)] == ["r"]


def test_work_that_waits_for_a_permit_that_is_there_gets_it(live: LiveState) -> None:
    live.beat_worker("w#1", ["q"], 2, LONG_US, 1)
    open_session(live)
    claim_of(live)
    assert live.beat_worker("w#1", ["q", "r"], 2, LONG_US, 1) == ()
    assert live.client.zrange(live.space.key("blocked", "global"), 0, -1) == [b"r|s"]
    assert causes(reap(live)) == [], "the limit is reached"
    live.client.hset(live.space.key("limits"), "global", 2)
    reaped = reap(live)
    assert causes(reaped) == [("permit", "s")]
    assert [p.queue for p in reaped.publications] == ["r"]


def test_a_chord_of_which_no_runner_has_come_goes_on_without_it(live: LiveState) -> None:
    assert open_session(live, header=2) == ()
    key = live.space.key("sessions_open")
    live.client.zincrby(key, -59 * SECOND_US, "s")
    assert causes(reap(live)) == []
    live.client.zincrby(key, -2 * SECOND_US, "s")
    reaped = reap(live)
    assert causes(reaped) == [("header", "s")]
    (publication,) = reaped.publications
    assert (publication.queue, publication.message) == ("q", "")
    assert publication.runner == "s.3", "none of the chord's"
    assert live.start_runner(runner_of("s", 1), LONG_US, "message").verdict is Verdict.REDUNDANT
    assert live.settle_branch(came(live, publication), [], call=1).claims
    live.beat_worker("w#1", ["q", "r"], 4, LONG_US)
    assert live.start_runner(runner_of("s", 2, "r"), LONG_US, "message").verdict is Verdict.REDUNDANT


# Sessions that wait for others to end


def test_a_queued_session_that_stands_in_no_queue_is_queued_again(live: LiveState) -> None:
    live.beat_worker("w#1", ["q"], 4, LONG_US, 0, 1)
    for session in ("s", "t", "u"):
        open_session(live, session, most_sessions=1)
    live.client.zrem(live.space.key("sessions_queued"), "t")
    reaped = reap(live)
    assert (causes(reaped), reaped.publications) == ([("admission", "t")], ())
    assert live.client.zrange(live.space.key("sessions_queued"), 0, -1) == [b"t", b"u"], "in its old place"
    assert [p.flow_session_id for p in live.close_session("s")[0]] == ["t"]


@pytest.mark.parametrize("level", ["sessions", "sessions:workflow:w"])
def test_queued_sessions_start_where_there_is_room(live: LiveState, level: str) -> None:
    live.beat_worker("w#1", ["q"], 4, LONG_US, 0, 1 if level == "sessions" else 0)
    most = {"most_sessions": 1} if level == "sessions" else {"sessions_of_workflow": 1}
    for session in ("s", "t", "u"):
        open_session(live, session, **most)
    running = "sessions_running" if level == "sessions" else "permits"
    live.client.delete(live.space.key(running, *([level] if running == "permits" else [])))
    reaped = reap(live)
    assert [cause for cause, _ in causes(reaped)] == ["admission"]
    assert [p.flow_session_id for p in reaped.publications] == ["t"]


# What waits for a time


def test_a_wake_up_that_was_missed_is_made_up_for(live: LiveState) -> None:
    open_session(live)
    later = Settlement(claim_of(live), "defer", delay_us=0, retry=1)
    live.settle_branch(runner_of("s"), [later], call=2, mode=Mode.LEAVE)
    live.client.delete(live.space.key("delayed"))
    assert live.wake_sessions()[1] is None
    reaped = reap(live)
    assert causes(reaped) == [("wake-up", "s")]
    assert [p.queue for p in live.wake_sessions()[0]] == ["q"]


@pytest.mark.parametrize("status", ["running", "paused", "queued"])
def test_a_deadline_that_nobody_looks_at_is_looked_at(live: LiveState, status: str) -> None:
    live.beat_worker("w#1", ["q"], 4, LONG_US, 0, 1)
    if status == "queued":
        open_session(live, "other", most_sessions=1)
    open_session(live, most_sessions=1, deadline_us=50_000)
    if status == "paused":
        live.pause_sessions("session", ["s"])
    live.client.delete(live.space.key("due"))
    assert causes(reap(live)) == [("time limit", "s")]

    def is_stopped() -> bool:
        live.wake_sessions()
        return bool(live.client.hget(live.space.key("session", "s"), "status") == b"ended")

    wait_until(is_stopped, "it is stopped")


@pytest.mark.parametrize("is_queued", [False, True])
def test_a_longest_wait_that_nobody_looks_at_is_looked_at(live: LiveState, is_queued: bool) -> None:
    live.beat_worker("w#1", ["q"], 4, LONG_US, 0, 1)
    if is_queued:
        open_session(live, "other", most_sessions=1)
    open_session(live, most_sessions=1, max_wait_us=LONG_US)
    live.client.delete(live.space.key("due"))
    assert causes(reap(live)) == [("time limit", "s")]
    assert live.wake_sessions()[1] is not None


# Who is the reaper


def test_one_at_a_time_is_the_reaper_until_its_lease_is_over(live: LiveState) -> None:
    assert live.reap_sessions("w#1", 100_000).is_reaper
    end(live)
    grow_old(live, "s", "ended", seconds=11)
    assert live.reap_sessions("w#2", LONG_US) == Reaped(is_reaper=False, is_done=True), "it changes nothing"
    wait_until(lambda: live.reap_sessions("w#2", LONG_US).is_reaper, "the lease of the first one is over")
    assert not live.reap_sessions("w#1", LONG_US).is_reaper
    assert live.repairs() == {"completion": 1}
    live.client.delete(live.space.key("reaper"))


def test_all_sessions_are_looked_at_in_turn(live: LiveState) -> None:
    for number in range(1000):
        open_session(live, f"s{number}")
    live.client.delete(live.space.key("waiting", "r"))
    calls = 0
    while not live.reap_sessions("w#1", LONG_US, most=100).is_done:
        calls += 1
    assert 5 <= calls <= 30
    assert live.repairs() == {"runner": 1000}
    assert live.client.zcard(live.space.key("waiting", "r")) == 1000


def test_sessions_that_want_for_nothing_are_left_as_they_are(live: LiveState) -> None:
    live.beat_worker("w#1", ["q"], 2, LONG_US, 1, 2)
    open_session(live, "running", most_sessions=2)
    claim_of(live, "running")
    open_session(live, "paused", most_sessions=2, deadline_us=LONG_US, max_wait_us=LONG_US)
    live.pause_sessions("session", ["paused"])
    open_session(live, "queued", most_sessions=2, max_wait_us=LONG_US, header=1)
    prefix = f"{live.space.prefix}*"
    before = {key: live.client.dump(key) for key in live.client.scan_iter(prefix)}
    assert reap(live) == Reaped(is_reaper=True, is_done=True)
    live.client.delete(live.space.key("reaper"))
    assert {key: live.client.dump(key) for key in live.client.scan_iter(prefix)} == before
