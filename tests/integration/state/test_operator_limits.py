"""Limits that an operator sets while everything runs: what is in force, who waits, and since when."""

from __future__ import annotations

import pytest

from orchestration.state.limits import OperatorLimits, read_limits
from orchestration.state.live import LiveState
from orchestration.state.records import NewSession, Runner
from orchestration.vocabulary import Mode, Settlement, Verdict

QUEUE = "branches"
LEASE_US = 3_600_000_000


@pytest.fixture
def live(live: LiveState) -> LiveState:
    live.beat_worker("w#1", [QUEUE], 8, LEASE_US)
    return live


def runner_of(session: str) -> Runner:
    return Runner(session, f"{session}.0", f"w#1/1.{session}", QUEUE, "w#1")


def open_session(
    live: LiveState, session: str, *, branches: int = 4, key: str = "", of_workflow: int = 0, of_key: int = 0
) -> Runner:
    """A session of the workflow `w` with branches that are ready; its first runner has no permit yet."""
    runner = runner_of(session)
    new = NewSession(
        workflow="w", version_id="v", day="2026-01-01", limit=10, branch_timeout_seconds=300.0, open_branches=branches,
        signature="", queues=(QUEUE,), ready=[(f"b{number}", QUEUE) for number in range(branches)],
        key=key, most_of_workflow=of_workflow, most_of_key=of_key,
    )  # fmt: skip
    verdict, _ = live.open_session(runner, new, LEASE_US)
    assert verdict is Verdict.GO
    return runner


def in_force(live: LiveState, name: str) -> tuple[int | None, str]:
    (found,) = (report for report in read_limits(live) if report.name == name)
    return found.limit, found.set_by


def test_an_operators_limit_wins_over_settings_and_definitions_until_it_is_unset(live: LiveState) -> None:
    live.set_limit("workflow:w", 3)
    live.set_limit("global", 5)
    open_session(live, "s1", of_workflow=7)
    live.beat_worker("w#1", [QUEUE], 8, LEASE_US, 9)
    assert in_force(live, "workflow:w") == (3, "operator")
    assert in_force(live, "global") == (5, "operator")
    change = live.set_limit("workflow:w", 0)
    assert change is not None
    assert (change.before, change.now) == (3, 7)
    live.set_limit("global", 0)
    assert in_force(live, "workflow:w") == (7, "settings and definitions")
    assert in_force(live, "global") == (9, "settings and definitions")


def test_the_limit_of_a_key_is_forgotten_with_its_last_session_but_not_the_operators(live: LiveState) -> None:
    for session in ("s1", "s2"):
        open_session(live, session, key="ada", of_key=2)
    live.close_session("s1")
    live.close_session("s1")
    assert in_force(live, "key:ada") == (2, "settings and definitions")
    live.set_limit("key:ada", 4)
    live.close_session("s2")
    assert in_force(live, "key:ada") == (4, "operator")
    live.set_limit("key:ada", 0)
    assert [report.name for report in read_limits(live)] == ["global", "sessions"]
    assert not live.client.exists(live.space.key("key_sessions"))


def test_who_waits_for_a_limit_is_shown_with_the_longest_wait_until_it_is_raised(live: LiveState) -> None:
    holder = open_session(live, "s1", branches=1, key="ada", of_key=1)
    assert live.settle_branch(holder, [], call=1).verdict is Verdict.GO
    before_us = live.now_us()
    waiting = open_session(live, "s2", branches=3, key="ada", of_key=1)
    assert live.settle_branch(waiting, [], call=1).verdict is Verdict.STOP
    (report,) = (one for one in read_limits(live) if one.name == "key:ada")
    assert (report.limit, report.in_use, report.waiting) == (1, 1, 1)
    assert report.longest_wait_seconds is not None
    assert 0 <= report.longest_wait_seconds <= (live.now_us() - before_us) / 1e6
    shown = live.situation("s2").session
    assert shown is not None
    assert [(at.name, at.limit, at.in_use, at.holders, at.position) for at in shown.levels if at.position] == [
        ("key:ada", 1, 1, (("s1", 1),), 1)
    ]
    change = live.set_limit("key:ada", 3)
    assert change is not None
    assert [publication.flow_session_id for publication in change.publications] == ["s2", "s2"]
    assert change.in_use == 3
    live.set_limit("key:ada", 4)
    (report,) = (one for one in read_limits(live) if one.name == "key:ada")
    assert (report.limit, report.in_use, report.waiting, report.longest_wait_seconds) == (4, 4, 0, None)


def test_what_is_above_a_lowered_limit_ends_with_its_branches(live: LiveState) -> None:
    holder = open_session(live, "s1", branches=6)
    held = list(live.settle_branch(holder, [], call=1, want=3).claims)
    assert len(held) == 3
    in_use = int(live.client.zcard(live.space.key("permits", "global")))
    change = live.set_limit("global", 1)
    assert change is not None
    assert change.in_use == in_use >= 3
    assert live.settle_branch(holder, [], call=2, want=3).verdict is Verdict.HOLD
    assert live.client.zcard(live.space.key("permits", "global")) == in_use


def test_the_limit_of_one_session_is_changed_and_left_to_its_definition_again(live: LiveState) -> None:
    open_session(live, "s1", branches=9)
    change = live.set_limit("session:s1", 2)
    assert change is not None
    assert (change.before, change.now) == (10, 2)
    (report,) = (one for one in read_limits(live, sessions=True) if one.name == "session:s1")
    assert (report.limit, report.set_by) == (2, "operator")
    change = live.set_limit("session:s1", 0)
    assert change is not None
    assert (change.before, change.now) == (2, 10)
    assert live.set_limit("session:none", 2) is None


def test_a_process_that_looks_for_the_first_time_knows_what_operators_have_set(live: LiveState) -> None:
    assert not OperatorLimits(live).limit("w")
    live.set_limit("workflow:w", 3)
    assert OperatorLimits(live).limit("w")
    assert not OperatorLimits(live).limit_sessions("w")
    assert not OperatorLimits(live).limit("another")
    live.set_limit("sessions", 3)
    assert OperatorLimits(live).limit_sessions("another")


def test_sessions_that_wait_for_one_permit_take_turns(live: LiveState) -> None:
    """A runner keeps its permit from branch to branch, but gives way to a session that is owed time."""
    names = ["s1", "s2", "s3"]
    for name in names:
        first = open_session(live, name, branches=200, key="ada", of_key=1)
        assert live.settle_branch(first, [], call=1).verdict is Verdict.STOP, "a runner was published with the permit"
    turns: list[str] = []
    name = "s1.1"
    while len(turns) < 24:
        session = name.partition(".")[0]
        turns.append(session)
        runner = Runner(session, name, f"w#1/1.{name}", QUEUE, "w#1")
        assert live.start_runner(runner, LEASE_US).verdict is Verdict.GO
        answer, call = live.settle_branch(runner, [], call=1), 1
        while answer.verdict is Verdict.GO:
            done = [Settlement(claim, "done") for claim in answer.claims]
            call += 1
            answer = live.settle_branch(runner, done, call=call, mode=Mode.TICK, elapsed_us=100_000)
        assert answer.verdict is Verdict.YIELD
        (publication,) = answer.publications
        name = publication.runner
    for at in range(2, len(turns) - 3):
        assert set(turns[at : at + 4]) == set(names), f"somebody waits for long: {turns}"
