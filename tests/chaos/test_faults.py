"""Each fault alone, with real processes, under load: what docs/reliability.md says of it holds."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import pytest

from tests.chaos.campaign import break_things
from tests.chaos.faults import CLOCK_SET
from tests.chaos.mix import BY_NAME
from tests.chaos.stack import ChaosStack, chaos_stack
from tests.chaos.workload import kinds, publish
from tests.support import skewed_clock

#: Of each fault, in this time at most; a worker that was frozen or replaced takes longer than others.
TIMES, SECONDS, A_SECOND = 3, 30.0, 8.0
#: Faults with tests of their own (test_lost_workers.py, test_second_faults.py).
ELSEWHERE = {
    "child told to end", "upkeep process killed", "upkeep process stopped", "main process stopped",
    "cold shutdown at once", "bad status updates",
}  # fmt: skip


@pytest.fixture(scope="module")
def stack() -> Iterator[ChaosStack]:
    with chaos_stack() as started:
        publish(started.database_url, kinds())
        started.start_workers()
        yield started


@pytest.mark.parametrize("name", [name for name in BY_NAME if name not in ELSEWHERE])
def test_nothing_is_lost_by(stack: ChaosStack, name: str) -> None:
    if name == CLOCK_SET:
        skewed_clock.require()
    report = break_things(stack, zlib.crc32(name.encode()), SECONDS, A_SECOND, [BY_NAME[name]], TIMES)
    assert report.faults, f"{name}: there was nothing to hit"
    assert report.findings.holds, f"{name}\n{report.text()}"
