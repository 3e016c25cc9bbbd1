"""Two minutes of all faults, mixed: one comes during the recovery from another."""

from __future__ import annotations

import pytest

from tests.chaos.campaign import run_campaign
from tests.chaos.mix import FAULTS

SEED, SECONDS, A_SECOND = 7, 120.0, 12.0


@pytest.mark.timeout(600)
def test_a_campaign_keeps_every_promise(capsys: pytest.CaptureFixture[str]) -> None:
    report = run_campaign(SEED, SECONDS, A_SECOND, FAULTS)
    with capsys.disabled():
        print(f"\n{report.text()}")  # noqa: T201 - the figures are for whoever reads the run
    assert report.findings.holds
    assert len(report.faults) >= SECONDS / 3
    assert report.findings.runs >= SECONDS
