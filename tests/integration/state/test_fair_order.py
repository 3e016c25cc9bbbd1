"""Who gets a slot: the session that has used least, by weight; when a runner gives way, and when it does not."""

from __future__ import annotations

import pytest

from orchestration.state.live import LiveState
from orchestration.state.records import NewSession, Runner
from orchestration.vocabulary import Claim, Mode, Next, Settlement, Verdict

LEASE_US = 3_600_000_000
TURN_US = 100_000


@pytest.fixture
def live(live: LiveState) -> LiveState:
    live.beat_worker("w#1", ["q"], 1, LEASE_US)
    return live


class Session:
    """A session with more work than it will ever get done, and its runner, when it has one."""

    def __init__(self, live: LiveState, name: str, weight: float = 1.0, priority: int = 0) -> None:
        self.live, self.name = live, name
        self.turns = 0
        new = NewSession(
            workflow="w", version_id="v", day="2026-01-01", limit=10, branch_timeout_seconds=300.0, open_branches=2,
            signature="{}", queues=["q"], ready=[("each", "q")], weight=weight, priority=priority,
        )  # fmt: skip
        runner = Runner(name, f"{name}.0", f"w#1/{name}", "q", "w#1")
        live.open_session(runner, new, LEASE_US)
        (claim,) = live.settle_branch(runner, [], call=1).claims
        answer = live.settle_branch(runner, [Settlement(claim, "expand", size=1_000_000)], call=2, mode=Mode.LEAVE)
        self.first = answer.publications

    def start(self, runner: str) -> None:
        self.runner = Runner(self.name, runner, f"w#1/{runner}", "q", "w#1")
        assert self.live.start_runner(self.runner, LEASE_US).verdict is Verdict.GO
        self.calls = 0
        self.claims: tuple[Claim, ...] = ()

    def turn(self, mode: Mode, elapsed_us: int = TURN_US) -> Next:
        """Settle an item that took a turn, and claim the next."""
        self.turns += 1
        self.calls += 1
        settlements = [Settlement(claim, "items", settled=1, counts={"succeeded": 1}) for claim in self.claims]
        answer = self.live.settle_branch(self.runner, settlements, call=self.calls, mode=mode, elapsed_us=elapsed_us)
        self.claims = answer.claims
        return answer


def shares(live: LiveState, sessions: list[Session], turns: int, mode: Mode) -> list[float]:
    """Let one slot be handed on for so many turns; the share of each session in them."""
    by_name = {session.name: session for session in sessions}
    for session in sessions:
        session.turns = 0
    (publication,) = [publication for session in sessions for publication in session.first]
    current = by_name[publication.flow_session_id]
    current.start(publication.runner)
    for _ in range(turns):
        answer = current.turn(mode)
        if answer.verdict is Verdict.YIELD:
            (publication,) = answer.publications
            current = by_name[publication.flow_session_id]
            current.start(publication.runner)
    return [session.turns / turns for session in sessions]


def test_two_equal_sessions_share_a_slot_equally(live: LiveState) -> None:
    one, other = shares(live, [Session(live, "one"), Session(live, "other")], 400, Mode.SLICE)
    assert one == pytest.approx(0.5, abs=0.05)
    assert other == pytest.approx(0.5, abs=0.05)


def test_weights_share_a_slot_in_their_proportion(live: LiveState) -> None:
    light, heavy = shares(live, [Session(live, "light", 1), Session(live, "heavy", 3)], 400, Mode.SLICE)
    assert light == pytest.approx(0.25, abs=0.05)
    assert heavy == pytest.approx(0.75, abs=0.05)


def test_between_slices_a_runner_gives_way_only_to_one_owed_a_quarter_second(live: LiveState) -> None:
    first, second = Session(live, "first"), Session(live, "second")
    (publication,) = first.first
    first.start(publication.runner)
    verdicts: list[Verdict] = []
    while not verdicts or verdicts[-1] is Verdict.GO:
        verdicts.append(first.turn(Mode.TICK).verdict)
    assert second.first == ()
    assert len(verdicts) >= 250_000 // TURN_US
    assert verdicts[-1] is Verdict.YIELD


def test_nobody_gives_way_to_nobody(live: LiveState) -> None:
    alone = Session(live, "alone")
    (publication,) = alone.first
    alone.start(publication.runner)
    assert {alone.turn(mode, 1_000_000).verdict for mode in (Mode.TICK, Mode.SLICE, Mode.GO) for _ in range(20)} == {
        Verdict.GO
    }


def test_one_runner_at_a_time_gives_way_to_a_message_in_the_broker(live: LiveState) -> None:
    live.beat_worker("w#1", ["q"], 2, LEASE_US)
    session = Session(live, "s")
    runners = []
    for publication in session.first:
        session.start(publication.runner)
        runners.append((session.runner, session.turn(Mode.GO)))
    assert len(runners) == 2
    verdicts = [
        live.settle_branch(
            runner, [Settlement(answer.claims[0], "items", settled=1, counts={"succeeded": 1})], call=2, mode=Mode.CROWD
        ).verdict
        for runner, answer in runners
    ]
    assert sorted(verdicts) == [Verdict.GO, Verdict.YIELD]


def test_a_new_session_does_not_own_the_fleet_until_it_has_caught_up(live: LiveState) -> None:
    old = Session(live, "old")
    (publication,) = old.first
    old.start(publication.runner)
    for _ in range(500):
        old.turn(Mode.GO)
    new = Session(live, "new")
    assert new.first == (), "the slot is taken"
    behind = float(live.client.hget(live.space.key("session", "old"), "vtime")) - float(
        live.client.hget(live.space.key("session", "new"), "vtime")
    )
    assert behind <= 500_000, "50 s of the other's work are not owed to it; its head start is"


def test_a_priority_is_a_head_start(live: LiveState) -> None:
    Session(live, "plain")
    Session(live, "urgent", priority=5)
    plain, urgent = (float(live.client.hget(live.space.key("session", name), "vtime")) for name in ("plain", "urgent"))
    assert plain - urgent == pytest.approx(5 * 250_000, abs=50_000)
