"""Whoever asks can't know whether it was done: each call is made again, and does nothing more."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.chaos.faults import Fault
from tests.chaos.single import run_under
from tests.chaos.stack import ChaosStack, chaos_stack
from tests.chaos.wire import cut_connections
from tests.chaos.workload import kinds, publish

#: Runs are sent for a little longer than connections are cut.
CUT_SECONDS, SECONDS = 12.0, 14.0


@pytest.fixture(scope="module")
def stack() -> Iterator[ChaosStack]:
    """All workers reach their servers by way of the proxies."""
    with chaos_stack(direct=frozenset()) as started:
        publish(started.database_url, kinds())
        started.start_workers()
        yield started


def test_a_reply_of_redis_that_is_lost_costs_a_repetition(stack: ChaosStack) -> None:
    """5 % of the answers to scripts, transactions and messages sent."""
    run_under(stack, Fault("replies", 1, cut_connections(CUT_SECONDS, 0.05, server="redis")), SECONDS)
    assert stack.cuts[-1].lost_replies > 50


def test_a_commit_whose_outcome_is_unknown_is_made_once(stack: ChaosStack) -> None:
    """A fifth of what changes the record, cut behind the request or before it."""
    run_under(stack, Fault("commits", 1, cut_connections(CUT_SECONDS, 0.2, server="postgres")), SECONDS)
    cuts = stack.cuts[-1]
    assert min(cuts.lost_replies, cuts.lost_requests) > 10
