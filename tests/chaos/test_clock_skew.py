"""No host's clock decides anything: one worker of three has a wrong one, also one that is set while it works."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from orchestration.state.live import LiveState
from tests.chaos.campaign import break_things
from tests.chaos.faults import CLOCK_SET, Fault
from tests.chaos.mix import BY_NAME
from tests.chaos.stack import NAMESPACE, WRONG_CLOCK, ChaosStack, chaos_stack
from tests.chaos.workload import kinds, publish
from tests.support import skewed_clock

#: Nothing but load.
NONE = Fault("none", 1, lambda _stack, _chance: None)
#: Repairs of what is taken for lost when its lease is over.
EXPIRIES = ("worker", "lease", "message")


@pytest.fixture(scope="module")
def stack() -> Iterator[ChaosStack]:
    skewed_clock.require()
    with chaos_stack() as started:
        publish(started.database_url, kinds())
        started.start_workers()
        yield started


def expiries(stack: ChaosStack) -> dict[str, int]:
    repairs = LiveState(stack.redis_url, NAMESPACE).repairs()
    return {cause: repairs[cause] for cause in EXPIRIES if cause in repairs}


@pytest.mark.parametrize("seconds", [3600.0, -3600.0, 90.0, -90.0])
def test_a_worker_with_a_wrong_clock_changes_nothing(stack: ChaosStack, seconds: float) -> None:
    before = expiries(stack)
    stack.clocks[WRONG_CLOCK].set(seconds)
    report = break_things(stack, abs(int(seconds)), 6.0, 10.0, [NONE])
    assert report.findings.holds, report.text()
    assert report.findings.again == 0, report.text()
    assert expiries(stack) == before, "something was taken for lost that was not"


def test_a_wrong_clock_changes_nothing_of_a_recovery(stack: ChaosStack) -> None:
    weights = {"child killed": 4, "host lost": 1, CLOCK_SET: 4}
    faults = [replace(BY_NAME[name], weight=weight) for name, weight in weights.items()]
    report = break_things(stack, 7, 20.0, 10.0, faults)
    assert {fault.kind for fault in report.faults} == set(weights), report.text()
    assert report.findings.holds, report.text()
