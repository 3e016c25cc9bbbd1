"""When more status updates wait in Redis than may, runners claim nothing until they have been drained."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing

import pytest

from orchestration.state.live import LiveState
from orchestration.state.records import NewSession, Runner
from orchestration.state.stream import StatusStream
from orchestration.vocabulary import Mode, Settlement, Verdict

LEASE_US = 3_600_000_000
MOST_BYTES = 100_000


@pytest.fixture
def live(live: LiveState) -> LiveState:
    live.beat_worker("w#1", ["q"], 1, LEASE_US)
    return live


@pytest.fixture
def stream(redis_url: str, namespace: str) -> Iterator[StatusStream]:
    with closing(StatusStream(redis_url, namespace)) as stream:
        yield stream


def fill(stream: StatusStream, size_bytes: int) -> None:
    for _ in range(size_bytes // 1000):
        stream.append([("b", os.urandom(1000))])


def drain(stream: StatusStream) -> None:
    while entries := stream.read_batch("c", 1000, 0):
        stream.acknowledge([entry.id for entry in entries])


def test_runners_wait_while_the_stream_is_too_large_and_go_on_when_it_has_shrunk(
    live: LiveState, stream: StatusStream
) -> None:
    runner = Runner("s", "s.0", "w#1/1", "q", "w#1")
    new = NewSession("w", "v", "2026-01-01", 10, 300.0, 2, "{}", ["q"], ready=[("a", "q"), ("b", "q")])
    live.open_session(runner, new, LEASE_US)
    (claim,) = live.settle_branch(runner, [], call=1).claims
    fill(stream, 2 * MOST_BYTES)
    assert stream.bound(MOST_BYTES) > MOST_BYTES
    waiting = live.settle_branch(runner, [Settlement(claim, "done")], call=2)
    assert (waiting.verdict, waiting.claims) == (Verdict.WAIT, ())
    assert live.client.zcard(live.space.key("permits", "global")) == 0, "who waits holds no permit"
    assert live.settle_branch(runner, [], call=3).verdict is Verdict.WAIT
    drain(stream)
    assert stream.bound(MOST_BYTES) < MOST_BYTES
    answer = live.settle_branch(runner, [], call=4)
    assert [claim.unit for claim in answer.claims] == ["b:b"]


def test_a_worker_that_stops_does_not_wait(live: LiveState, stream: StatusStream) -> None:
    runner = Runner("s", "s.0", "w#1/1", "q", "w#1")
    new = NewSession("w", "v", "2026-01-01", 10, 300.0, 1, "{}", ["q"], ready=[("a", "q")])
    live.open_session(runner, new, LEASE_US)
    fill(stream, 2 * MOST_BYTES)
    stream.bound(MOST_BYTES)
    assert live.settle_branch(runner, [], call=1, mode=Mode.LEAVE).verdict is Verdict.STOP


def test_between_the_bound_and_four_fifths_of_it_nothing_changes(live: LiveState, stream: StatusStream) -> None:
    full = live.space.key("status_full")
    fill(stream, 110_000)
    size = stream.bound(1)
    stream.bound(size * 10 // 9)
    assert live.client.exists(full), "it was full, and has not shrunk enough"
    stream.bound(size * 2)
    assert not live.client.exists(full)
    stream.bound(size * 10 // 9)
    assert not live.client.exists(full), "it was not full, and has not grown enough"
