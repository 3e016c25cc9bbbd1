"""Sessions that are cancelled or paused while a limit of sessions keeps them: they keep no other one waiting."""

from __future__ import annotations

import pytest

from orchestration.state.live import LiveState
from orchestration.state.records import NewSession, Runner
from orchestration.vocabulary import Publication, Verdict

QUEUE = "branches"
LEASE_US = 3_600_000_000
at_each_level = pytest.mark.parametrize("level", ["sessions", "sessions:workflow:w", "sessions:key:k"])


@pytest.fixture
def live(redis_url: str, namespace: str) -> LiveState:
    state = LiveState(redis_url, namespace)
    state.beat_worker("w#1", [QUEUE], 8, LEASE_US)
    return state


def open_session(live: LiveState, session: str, level: str) -> Verdict:
    """A session of one branch; one at once may run at this level."""
    runner = Runner(session, f"{session}.0", f"w#1/1.{session}", QUEUE, "w#1")
    new = NewSession(
        workflow="w", version_id="v", day="2026-01-01", limit=10, branch_timeout_seconds=300.0, open_branches=1,
        signature=f"signature of {session}", queues=(QUEUE,), ready=[("b", QUEUE)], key="k",
        most_sessions=int(level == "sessions"), sessions_of_workflow=int(level == "sessions:workflow:w"),
        sessions_of_key=int(level == "sessions:key:k"),
    )  # fmt: skip
    verdict, _ = live.open_session(runner, new, LEASE_US)
    return verdict


def sessions_of(publications: tuple[Publication, ...]) -> list[str]:
    return [publication.flow_session_id for publication in publications]


@at_each_level
def test_a_queued_session_that_is_cancelled_leaves_its_queue(live: LiveState, level: str) -> None:
    verdicts = [open_session(live, session, level) for session in ("s1", "s2", "s3")]
    assert verdicts == [Verdict.GO, Verdict.QUEUED, Verdict.QUEUED]
    cancelled = live.cancel_session("s2")
    assert (cancelled.found, cancelled.claimed) == ("cancelled", 0)
    assert [(p.runner, p.message) for p in cancelled.publications] == [("", "signature of s2")]
    assert sessions_of(live.close_session("s1")[0]) == ["s3"]
    assert live.close_session("s2")[0] == ()
    assert open_session(live, "s4", level) is Verdict.QUEUED
    assert sessions_of(live.close_session("s3")[0]) == ["s4"]


@at_each_level
def test_a_session_that_was_cancelled_before_it_is_opened_counts_nowhere(live: LiveState, level: str) -> None:
    assert open_session(live, "s1", level) is Verdict.GO
    assert open_session(live, "s2", level) is Verdict.QUEUED
    assert live.cancel_session("s3").found == "unopened"
    assert open_session(live, "s3", level) is Verdict.ENDED, "it waits for nobody"
    assert sessions_of(live.close_session("s1")[0]) == ["s2"], "and nobody for it"
    assert live.close_session("s3")[0] == ()


@at_each_level
def test_a_session_that_is_cancelled_while_it_runs_counts_until_it_is_closed(live: LiveState, level: str) -> None:
    assert open_session(live, "s1", level) is Verdict.GO
    assert open_session(live, "s2", level) is Verdict.QUEUED
    assert sessions_of(live.cancel_session("s1").publications) == ["s1"]
    assert sessions_of(live.close_session("s1")[0]) == ["s2"]


@at_each_level
def test_a_queued_session_that_is_paused_begins_when_its_turn_has_come_and_it_is_resumed(
    live: LiveState, level: str
) -> None:
    assert open_session(live, "s1", level) is Verdict.GO
    assert open_session(live, "s2", level) is Verdict.QUEUED
    assert live.pause_sessions("session", ["s2"]) == ["paused"]
    assert live.close_session("s1")[0] == ()
    assert open_session(live, "s3", level) is Verdict.QUEUED, "the paused one runs as far as limits are concerned"
    found, publications = live.resume_sessions("session", ["s2"])
    assert (found, sessions_of(publications)) == (["resumed"], ["s2"])


def test_who_heeds_late_leaves_nothing_behind(live: LiveState) -> None:
    runner = Runner("s1", "s1.0", "w#1/1.s1", QUEUE, "w#1")
    assert open_session(live, "s1", "sessions") is Verdict.GO
    assert not live.heed_cancel(runner), "it is not being cancelled"
    live.cancel_session("s1")
    assert live.heed_cancel(runner)
    assert live.is_heeded("s1")
    live.close_session("s1")
    assert not live.heed_cancel(runner)
    assert not live.is_heeded("s1")


def test_the_end_of_a_session_is_told_once_whoever_closes_it(live: LiveState) -> None:
    """Of two that complete it, the second may find it still open when it looks."""
    assert open_session(live, "s1", "sessions") is Verdict.GO
    before = live.client.xlen(live.space.key("status"))
    for worker in ("w#1", "w#2"):
        live.close_session("s1", worker, LEASE_US, day="2026-01-01", worker=worker, rows=b'[["x"]]')
    entries = live.client.xrange(live.space.key("status"))[before:]
    assert [(fields[b"s"], fields[b"w"], fields[b"b"]) for _, fields in entries] == [(b"s1", b"w#1", b'[["x"]]')]


def test_the_end_of_a_session_that_redis_has_lost_is_told_too(live: LiveState) -> None:
    live.close_session("s1", "w#1", LEASE_US, day="2026-01-01", worker="w#1", rows=b'[["x"]]')
    live.close_session("s1", "w#2", LEASE_US, day="2026-01-01", worker="w#2", rows=b'[["x"]]')
    assert live.client.xlen(live.space.key("status")) == 1
