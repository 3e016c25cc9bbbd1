"""Whoever asks can't know whether it was done: each call is made again, and does nothing more."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import pytest

from tests.chaos.campaign import Report, break_things
from tests.chaos.faults import Fault
from tests.chaos.stack import ChaosStack, chaos_stack
from tests.chaos.wire import cut_connections
from tests.chaos.workload import kinds, publish

#: Runs are sent for a little longer than connections are cut.
CUT_SECONDS, SECONDS, A_SECOND = 12.0, 14.0, 10.0
#: Repairs that say that somebody at work was taken for lost.
FALSE = ("worker", "lease")


@pytest.fixture(scope="module")
def stack() -> Iterator[ChaosStack]:
    """All workers reach their servers by way of the proxies."""
    with chaos_stack(direct=frozenset()) as started:
        publish(started.database_url, kinds())
        started.start_workers()
        yield started


def run_under(stack: ChaosStack, fault: Fault) -> Report:
    """Runs under load, with this fault once. Nothing runs again, and nobody is taken for lost."""
    before = stack.repairs()
    report = break_things(stack, zlib.crc32(fault.name.encode()), SECONDS, A_SECOND, [fault], most=1)
    assert report.findings.holds, report.text()
    assert report.findings.again == 0, report.text()
    assert report.ended_alone == 0, report.text()
    repairs = stack.repairs() - before
    assert not any(repairs[cause] for cause in FALSE), repairs
    return report


def test_a_reply_of_redis_that_is_lost_costs_a_repetition(stack: ChaosStack) -> None:
    """5 % of the answers to scripts, transactions and messages sent."""
    run_under(stack, Fault("replies", 1, cut_connections(CUT_SECONDS, 0.05, server="redis")))
    assert stack.cuts[-1].lost_replies > 50


def test_a_commit_whose_outcome_is_unknown_is_made_once(stack: ChaosStack) -> None:
    """A fifth of what changes the record, cut behind the request or before it."""
    run_under(stack, Fault("commits", 1, cut_connections(CUT_SECONDS, 0.2, server="postgres")))
    cuts = stack.cuts[-1]
    assert min(cuts.lost_replies, cuts.lost_requests) > 10
