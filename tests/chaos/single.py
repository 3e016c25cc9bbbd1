"""One fault under load, and what must not come of it where nothing of the workers died."""

from __future__ import annotations

import zlib

from tests.chaos.campaign import Report, break_things
from tests.chaos.faults import Fault
from tests.chaos.stack import ChaosStack

#: Repairs that say that somebody at work was taken for lost.
FALSE = ("worker", "lease")


def run_under(stack: ChaosStack, fault: Fault, seconds: float, a_second: float = 10.0) -> Report:
    """Runs under load for so long, with this fault once. Nothing runs again, and nobody is taken for lost."""
    before = stack.repairs()
    report = break_things(stack, zlib.crc32(fault.name.encode()), seconds, a_second, [fault], most=1)
    assert report.faults, "there was nothing to hit"
    assert report.findings.holds, report.text()
    assert report.findings.again == 0, report.text()
    assert report.ended_alone == 0, report.text()
    repairs = stack.repairs() - before
    assert not any(repairs[cause] for cause in FALSE), repairs
    return report
