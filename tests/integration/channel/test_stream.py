"""The status stream: repeated fields, consumers that take over from each other, a group that makes itself."""

from __future__ import annotations

import pytest
import redis

from orchestration.errors import ServiceUnreachable
from orchestration.state.stream import StatusStream
from tests.integration.store.gate import Gate


def test_an_entry_comes_back_with_its_repeated_fields_in_order(stream: StatusStream) -> None:
    fields = [(b"s", b"1"), (b"b", b"one"), (b"b", b"\xff two"), (b"c", b""), (b"b", b"three")]
    entry_id = stream.append(fields)
    assert stream.read_batch("me", 10, 0) == [(entry_id, fields)]
    assert stream.read_batch("me", 10, 0) == []


def test_an_entry_stays_pending_until_it_is_acknowledged(stream: StatusStream) -> None:
    ids = [stream.append([("n", str(n))]) for n in range(3)]
    stream.read_batch("me", 2, 0)
    assert (stream.length(), stream.pending()) == (3, 2)
    assert [entry.id for entry in stream.read_pending("me", 10)] == ids[:2]
    assert [entry.id for entry in stream.read_pending("me", 10, ids[0])] == ids[1:2]
    stream.acknowledge(ids[:2])
    assert (stream.length(), stream.pending()) == (1, 0)


def test_entries_of_a_consumer_that_is_gone_are_taken_over(stream: StatusStream) -> None:
    ids = [stream.append([("n", str(n))]) for n in range(3)]
    stream.read_batch("gone", 3, 0)
    assert stream.claim_idle("me", 60_000, 10) == []
    assert [entry.id for entry in stream.claim_idle("me", 0, 2)] == ids[:2]
    assert [entry.id for entry in stream.read_pending("me", 10)] == ids[:2]
    stream.acknowledge(ids)
    assert stream.claim_idle("me", 0, 10) == []


def test_the_group_is_made_again_after_redis_lost_everything(
    stream: StatusStream, redis_url: str, namespace: str
) -> None:
    stream.append([("n", "1")])
    stream.read_batch("me", 1, 0)
    with redis.Redis.from_url(redis_url) as client:
        client.delete(f"pz:{{{namespace}}}:status")
    stream.append([("n", "2")])
    assert [entry.fields for entry in stream.read_batch("me", 10, 0)] == [[(b"n", b"2")]]
    assert stream.pending() == 1


def test_consumers_that_hold_something_or_came_lately_are_not_forgotten(stream: StatusStream) -> None:
    stream.append([("n", "1")])
    stream.read_batch("me", 1, 0)
    stream.forget_consumers()
    assert len(stream.read_pending("me", 1)) == 1


def test_redis_out_of_reach_is_told_with_its_place(redis_url: str, namespace: str) -> None:
    with Gate(redis_url) as gate:
        stream = StatusStream(gate.url, namespace)
        stream.append([("n", "1")])
        gate.close()
        with pytest.raises(ServiceUnreachable, match=r"127\.0\.0\.1.*REDIS_URL"):
            stream.length()
        gate.open()
        assert stream.length() == 1
        stream.close()
