"""What a branch costs in Redis while many sessions wait for a slot."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from orchestration.state.live import LiveState
from orchestration.state.records import NewSession, Runner
from orchestration.vocabulary import Claim, Mode, Settlement, Verdict
from tests.performance.comparison import Comparison, Goal, Sample
from tests.performance.counting import Counters, expect
from tests.performance.stack import FORKING, WorkerKind

LEASE_US = 3_600_000_000
QUEUE, WORKER = "q", "w#1"
#: Of the slot for each branch: so each call also charges the session and looks who is behind.
ELAPSED_US = 10_000


@dataclass(frozen=True, slots=True)
class Crowd:
    """Calls of `settle_branch` by one runner, with and without sessions that wait for its slot."""

    sessions: int
    calls: int
    name: ClassVar[str] = "waiting-sessions"
    worker: ClassVar[WorkerKind] = FORKING
    repeats: ClassVar[int] = 5
    beside: ClassVar[str] = "nobody waits"
    comparisons: ClassVar[Sequence[Comparison]] = (
        Comparison("a branch settled and the next claimed", "µs", "call", "call", goal=Goal(1.1, is_most=True)),
    )

    @property
    def title(self) -> str:
        return f"settle and claim, {self.sessions:,} sessions wait"

    def warm_up(self, counters: Counters) -> None:
        self._measure(counters, 0)

    def ours(self, counters: Counters) -> Sample:
        return self._measure(counters, self.sessions)

    def other(self, counters: Counters) -> Sample:
        return self._measure(counters, 0)

    def _measure(self, counters: Counters, waiting: int) -> Sample:
        live = LiveState(counters.stack.redis_url, f"crowd{uuid.uuid4().hex[:8]}")
        live.beat_worker(WORKER, [QUEUE], 1, LEASE_US)
        runner = _open(live, "large")
        (claim,) = live.settle_branch(runner, [], call=1).claims
        claims = live.settle_branch(runner, [Settlement(claim, "expand", size=self.calls + 1)], call=2).claims
        for number in range(waiting):
            other = _open(live, f"s{number}")
            expect("left", live.settle_branch(other, [], call=1, mode=Mode.LEAVE).verdict, Verdict.STOP)
        # the large one has more work than its runner can do, and waits for a second slot
        expect("sessions that wait", live.client.zcard(live.space.key("waiting", QUEUE)), waiting + 1)
        try:
            seconds = self._run(live, runner, claims)
        finally:
            for key in live.client.scan_iter(f"{live.space.prefix}*", count=1000):
                live.client.unlink(key)
        return Sample({"call": seconds / self.calls * 1e6}, {"calls": self.calls, "waiting": waiting})

    def _run(self, live: LiveState, runner: Runner, claims: Sequence[Claim]) -> float:
        begun = time.perf_counter()
        for call in range(3, 3 + self.calls):
            settlements = [Settlement(claim, "items", settled=1, counts={"succeeded": 1}) for claim in claims]
            claims = live.settle_branch(runner, settlements, call=call, elapsed_us=ELAPSED_US).claims
        seconds = time.perf_counter() - begun
        expect("claims of the last call", len(claims), 1)
        return seconds


def _open(live: LiveState, name: str) -> Runner:
    runner = Runner(name, f"{name}.0", f"{WORKER}/{name}", QUEUE, WORKER)
    new = NewSession(
        workflow="w", version_id="v", day="2026-01-01", limit=10, branch_timeout_seconds=300.0, open_branches=1,
        signature="{}", queues=[QUEUE], ready=[("each", QUEUE)],
    )  # fmt: skip
    live.open_session(runner, new, LEASE_US)
    return runner
