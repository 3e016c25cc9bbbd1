"""A session at its own limit, with work on two queues: the older work has the next permit, and none lies idle."""

from __future__ import annotations

import pytest

from orchestration.state.live import LiveState
from orchestration.state.records import NewSession, Runner
from orchestration.vocabulary import Claim, Mode, Next, Publication, Settlement, Verdict

LEASE_US = 3_600_000_000
SECOND_US = 1_000_000


@pytest.fixture
def live(live: LiveState) -> LiveState:
    for queue in ("cpu", "gpu"):
        live.beat_worker(f"{queue}#1", [queue], 1, LEASE_US)
    return live


class OneRunner:
    """A runner of a session, which settles an item and asks for the next."""

    def __init__(self, live: LiveState, session: str, name: str, queue: str) -> None:
        self.live = live
        self.runner = Runner(session, name, f"{queue}#1/{name}", queue, f"{queue}#1")
        self.calls = 0
        self.claims: tuple[Claim, ...] = ()

    def step(self, mode: Mode = Mode.GO, settlements: list[Settlement] | None = None, elapsed_us: int = 0) -> Next:
        self.calls += 1
        if settlements is None:
            settlements = [Settlement(claim, "items", settled=1, counts={"succeeded": 1}) for claim in self.claims]
        answer = self.live.settle_branch(self.runner, settlements, call=self.calls, mode=mode, elapsed_us=elapsed_us)
        self.claims = answer.claims
        return answer


def begin(live: LiveState, name: str, ready: list[tuple[str, str]], queue: str) -> OneRunner:
    """A session with a limit of 1, and its first runner, which has expanded a for_each called `each`."""
    new = NewSession(
        workflow="w", version_id="v", day="2026-01-01", limit=1, branch_timeout_seconds=300.0,
        open_branches=len(ready), signature="{}", queues=["cpu", "gpu"], ready=ready,
    )  # fmt: skip
    runner = OneRunner(live, name, f"{name}.0", queue)
    _, publications = live.open_session(runner.runner, new, LEASE_US)
    (claim,) = runner.step().claims
    assert claim.name == "each"
    assert runner.step(settlements=[Settlement(claim, "expand", size=1000)]).verdict is Verdict.GO
    for publication in publications:
        assert start(live, publication).step().verdict is Verdict.STOP, "the one permit is taken"
    return runner


def start(live: LiveState, publication: Publication) -> OneRunner:
    session, name, queue = publication.flow_session_id, publication.runner, publication.queue
    started = OneRunner(live, session, name, queue)
    assert live.start_runner(started.runner, LEASE_US).verdict is Verdict.GO
    return started


def wait_on(live: LiveState, session: str, queue: str, seconds: float) -> None:
    """What is ready on a queue has waited for so much longer."""
    key = live.space.key("ready", session, queue)
    for member in live.client.zrange(key, 0, -1):
        live.client.zincrby(key, -seconds * SECOND_US, member)


def test_older_work_of_another_queue_with_a_free_slot_has_the_next_permit(live: LiveState) -> None:
    cpu = begin(live, "s", [("each", "cpu"), ("train", "gpu")], "cpu")
    assert cpu.step().verdict is Verdict.GO, "neither has waited longer than the other"
    wait_on(live, "s", "gpu", 0.5)
    answer = cpu.step()
    assert answer.verdict is Verdict.STOP
    (publication,) = answer.publications
    assert publication.queue == "gpu", "the permit is not given to the runner's own queue again"
    gpu = start(live, publication)
    (claim,) = gpu.step().claims
    assert claim.name == "train"
    ended = gpu.step(settlements=[Settlement(claim, "done")])
    assert [each.queue for each in ended.publications] == ["cpu"], "and back"


def test_no_permit_lies_idle_while_the_other_queue_has_no_free_slot(live: LiveState) -> None:
    other = begin(live, "other", [("each", "gpu")], "gpu")
    cpu = begin(live, "s", [("each", "cpu"), ("train", "gpu")], "cpu")
    wait_on(live, "s", "gpu", 5)
    for _ in range(20):
        assert cpu.step().verdict is Verdict.GO
        assert other.step().verdict is Verdict.GO


def test_work_that_has_waited_for_long_is_not_passed_over_for_want_of_a_slot(live: LiveState) -> None:
    """It would starve if its slot and its permit had to be free at the same instant."""
    other = begin(live, "other", [("each", "gpu")], "gpu")
    cpu = begin(live, "s", [("each", "cpu"), ("train", "gpu")], "cpu")
    wait_on(live, "s", "gpu", 11)
    answer = cpu.step()
    assert (answer.verdict, answer.publications) == (Verdict.STOP, ())
    gives_way = other.step(Mode.SLICE, elapsed_us=SECOND_US)
    assert gives_way.verdict is Verdict.YIELD
    (publication,) = gives_way.publications
    assert (publication.flow_session_id, publication.queue) == ("s", "gpu")
    assert start(live, publication).step().claims[0].name == "train"


def test_a_permit_is_not_kept_for_a_queue_that_nobody_serves_any_more(live: LiveState) -> None:
    begin(live, "other", [("each", "gpu")], "gpu")
    cpu = begin(live, "s", [("each", "cpu"), ("train", "gpu")], "cpu")
    wait_on(live, "s", "gpu", 11)
    assert cpu.step().verdict is Verdict.STOP
    assert live.wake_sessions()[0] == ()
    live.stop_worker("gpu#1")
    (publication,) = live.wake_sessions()[0]
    assert (publication.flow_session_id, publication.queue) == ("s", "cpu")


def test_two_queues_with_work_of_the_same_age_do_not_swap_at_every_branch(live: LiveState) -> None:
    """Each swap costs a message: there is one for a quarter second of work at most."""
    cpu = begin(live, "s", [("each", "cpu"), *((f"b{number}", "gpu") for number in range(20))], "cpu")
    assert {cpu.step().verdict for _ in range(100)} == {Verdict.GO}
