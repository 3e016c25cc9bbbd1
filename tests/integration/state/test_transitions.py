"""The Lua transitions against the plain Python model, on random plans, outcomes, crashes and interleavings.

Sessions of both dispatchers live side by side. The runners of a chord come by themselves once, then as they are
published; each is at work, on its way or parked, and never two of these.
"""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.integration.state.transitions.callers import CallerRules
from tests.integration.state.transitions.faults import FaultRules
from tests.integration.state.transitions.invariants import Invariants
from tests.integration.state.transitions.machine import LEASE_US, QUEUES, WORKER, WORKFLOWS
from tests.integration.state.transitions.operators import OperatorRules
from tests.integration.state.transitions.runners import RunnerRules
from tests.integration.state.transitions.times import TimeRules

EXAMPLES = int(os.environ.get("TRANSITION_EXAMPLES", "150"))
STEPS = 60


class Transitions(CallerRules, RunnerRules, OperatorRules, TimeRules, FaultRules, Invariants):
    """All rules, and the end."""

    def teardown(self) -> None:
        """From any state, everything ends, and nothing is left behind."""
        if not hasattr(self, "live"):
            return
        for why, workflow in [("session", ""), *(("workflow", workflow) for workflow in WORKFLOWS), ("all", "")]:
            self._resume(why, sorted(self.sessions), workflow)
        for _ in range(10_000):
            self.wake()
            self.reap()
            self._deliver()
            some_have_ended = any(not session.goes_on for session in self.sessions.values())
            if not self.holders and not self.queued and not some_have_ended:
                break
            for name in list(self.holders):
                self._work_off(name)
            self.states_agree()
            if self.queued or some_have_ended:
                self.close()
        stuck = {name: session for name, session in self.sessions.items() if session.goes_on}
        assert not stuck, f"sessions that do not end: {stuck}; {self._fleet()}"
        for name in list(self.sessions):
            self._close(name)
        limits = self.limits.given["global"], self.limits.given["sessions"]
        assert self.live.beat_worker(WORKER, QUEUES, self.slots, LEASE_US, *limits) == (), (
            "it forgets runners of closed sessions"
        )
        left = {
            k.decode().removeprefix(self.live.space.prefix)
            for k in self.live.client.scan_iter(f"{self.live.space.prefix}*")
        }
        assert not [key for key in self.limits.given if "key:" in key]
        assert sorted(self.live.client.hkeys(self.live.space.key("limits_given"))) == sorted(
            level.encode() for level, most in self.limits.given.items() if most
        )
        lasting = {
            "queues",
            "limits",
            "limits:given",
            "limits:set",
            "excess",
            "workers",
            "clock",
            "status",
            "reaper",
            "repairs",
            "outage",
        }
        lasting |= {f"worker:{WORKER}:queues"}
        lasting |= {f"slots:{queue}" for queue in QUEUES} | {f"slots:{queue}:total" for queue in QUEUES}
        assert {k for k in left if not k.startswith(("last:", "closed:", "crowded:"))} <= lasting
        if left:
            self.live.client.unlink(*(f"{self.live.space.prefix}{k}" for k in left))
        self.live.forget_time()
        self.live.close()


@pytest.mark.timeout(600)
def test_transitions_follow_the_model(redis_url: str) -> None:
    Transitions.redis_url = redis_url
    run_state_machine_as_test(
        Transitions,
        settings=settings(max_examples=EXAMPLES, stateful_step_count=STEPS, suppress_health_check=list(HealthCheck)),
    )
