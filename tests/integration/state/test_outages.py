"""Redis refuses, is full, or is away: a patient caller waits, keeps what it has, and does nothing twice."""

from __future__ import annotations

import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import redis

from orchestration.state.client import is_away
from orchestration.state.live import LiveState
from orchestration.state.patience import Patience
from orchestration.state.records import NewSession, Runner
from orchestration.vocabulary import Claim, Outcome, Settlement, Verdict
from parallelizer.services.folder import prepare_folder
from parallelizer.services.valkey import EmbeddedValkey
from tests.support.outages import away, frozen, wait_on_disk
from tests.support.waiting import wait_until

LONG_US = 3_600_000_000
RUNNER = Runner("s", "s.0", "w#1/1", "q", "w#1")


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedValkey]:
    folder = Path(tempfile.mkdtemp(prefix="parallelizer-outage-"))
    server = EmbeddedValkey(prepare_folder(folder / "data"))
    server.start()
    server.wait_ready()
    yield server
    server.stop()
    shutil.rmtree(folder)


@pytest.fixture
def patient(server: EmbeddedValkey, namespace: str) -> Iterator[LiveState]:
    """As a worker at work has it, with short waits."""
    with closing(LiveState(server.url, namespace, Patience(is_away, 2, 0.01, lambda: True))) as live:
        live.beat_worker("w#1", ["q"], 1, LONG_US)
        yield live


def claimed(live: LiveState) -> Claim:
    new = NewSession(
        workflow="w", version_id="v", day="2026-01-01", limit=10, branch_timeout_seconds=300.0, open_branches=1,
        signature="{}", queues=["q"], ready=[("a", "q")],
    )  # fmt: skip
    assert live.open_session(RUNNER, new, LONG_US)[0] is Verdict.GO
    (claim,) = live.settle_branch(RUNNER, [], call=1).claims
    return claim


class Calling:
    """A settlement that a thread tries to make."""

    def __init__(self, live: LiveState) -> None:
        self.kept = threading.Event()
        self.verdicts: list[Verdict] = []
        done = Settlement(
            claimed(live), "done", rows=[["b", "a", "succeeded", 1, 100_005, "q", 1, 1, 0]], outcome=Outcome.SUCCESS,
            counts={"succeeded": 1},
        )  # fmt: skip

        def settle() -> None:
            self.verdicts.append(live.settle_branch(RUNNER, [done], call=2, keep=self.kept.set).verdict)
            live.scripts.close()  # this thread's

        self.thread = threading.Thread(target=settle)

    def check_settled_once(self, live: LiveState) -> None:
        self.thread.join(60)
        assert self.verdicts == [Verdict.ENDED]
        assert live.ended_counts("s")[0] == {"succeeded": 1}
        assert live.client.xlen(live.space.key("status")) == 1


def test_a_settlement_waits_for_a_redis_that_is_killed_and_is_kept_meanwhile(
    server: EmbeddedValkey, patient: LiveState
) -> None:
    calling = Calling(patient)
    wait_on_disk(server)
    with away(server):
        calling.thread.start()
        assert calling.kept.wait(30)
    calling.check_settled_once(patient)


def test_a_settlement_waits_for_a_redis_that_shuts_down_and_comes_back(
    server: EmbeddedValkey, patient: LiveState
) -> None:
    calling = Calling(patient)
    with away(server, signal.SIGTERM):
        calling.thread.start()
        assert calling.kept.wait(30)
    calling.check_settled_once(patient)


def test_a_settlement_whose_answer_did_not_come_in_time_is_made_once(server: EmbeddedValkey, namespace: str) -> None:
    patient = LiveState(server.url, namespace, Patience(is_away, 0, 0.01, lambda: True))
    patient.beat_worker("w#1", ["q"], 1, LONG_US)
    calling = Calling(patient)
    with frozen(server):
        calling.thread.start()
        # it has given up its first connection, on which the settlement was sent, and asks again
        assert calling.kept.wait(60)
    calling.check_settled_once(patient)
    patient.close()


def test_while_the_memory_of_redis_is_full_a_checkpoint_waits(server: EmbeddedValkey, patient: LiveState) -> None:
    claim, kept, answers = claimed(patient), threading.Event(), list[object]()

    def send() -> None:
        patient.send_checkpoint(RUNNER, claim, "2026-01-01", "a", b"+1", b"[]", answers.append, kept.set)
        patient.await_checkpoints()
        patient.scripts.close()  # this thread's

    with redis.Redis.from_url(server.url) as other:
        other.config_set("maxmemory", 1)
        try:
            thread = threading.Thread(target=send)
            thread.start()
            assert kept.wait(30)
            assert answers == []
        finally:
            other.config_set("maxmemory", 0)
    thread.join(30)
    assert answers == [1]
    assert patient.results("s", ["a"]) == [b"+1"]


def test_a_plain_question_waits_too(server: EmbeddedValkey, patient: LiveState) -> None:
    claimed(patient)
    found: list[object] = []
    thread = threading.Thread(target=lambda: found.append(patient.is_open("s")))
    with away(server):
        thread.start()
    thread.join(30)
    assert found == [True]


def test_whoever_is_not_patient_gets_the_error(server: EmbeddedValkey, namespace: str) -> None:
    with closing(LiveState(server.url, namespace, Patience(is_away, 1, 0.01))) as hasty:
        hasty.now_us()
        with away(server):
            with pytest.raises(redis.exceptions.ConnectionError):
                hasty.is_open("s")
            with pytest.raises(redis.exceptions.ConnectionError):
                hasty.resend_runners()
        wait_until(lambda: hasty.resend_runners() == (), "it works again")
