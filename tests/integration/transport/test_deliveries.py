"""What a worker does with the messages that it holds when Celery connects anew."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest
import redis
from kombu.utils.json import dumps, loads

from tasks.transport import scripts
from tasks.transport.deliveries import Deliveries

QUEUE = "deliveries"


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with closing(redis.Redis.from_url(redis_url)) as client:
        client.delete(QUEUE)
        yield client
        client.delete(QUEUE)


def holding(client: redis.Redis, consumer: str, count: int) -> tuple[Deliveries, list[str]]:
    """A worker with so many messages, and their ids."""
    deliveries = Deliveries()
    deliveries.serve(consumer, 60, blocks=False)
    deliveries.connect_as(dict(client.connection_pool.connection_kwargs))
    held = []
    for place in range(count):
        client.lpush(QUEUE, dumps({"headers": {"id": str(place)}, "properties": {}}))
        number = deliveries.begin_take()
        connection = deliveries.next_connection()
        taken = client.eval(scripts.take.source, 1, QUEUE, consumer, number, 60_000, QUEUE, connection)
        text = taken[1]
        deliveries.end_take(number)
        held.append(deliveries.id_of(number))
        deliveries.hold(held[-1], loads(text))
    return deliveries, held


def waiting(client: redis.Redis) -> list[str]:
    return [loads(text)["headers"]["id"] for text in client.lrange(QUEUE, 0, -1)]


def test_what_has_begun_stays_and_what_has_not_goes_back(client: redis.Redis) -> None:
    deliveries, (at_work, ended, dropped) = holding(client, "reconnecting#1", 3)
    # on threads: Celery counts it no more as at work, and its acknowledgement is under way
    deliveries.end(ended)
    deliveries.reopen({at_work})
    assert waiting(client) == ["2"]
    deliveries.settle(ended)
    deliveries.settle(at_work)
    deliveries.reopen(())
    assert waiting(client) == ["2"]
    assert scripts.held(client, "reconnecting#1", 10) == []
    assert dropped not in deliveries._held


def test_one_that_has_ended_and_comes_back_after_all_may_be_dropped_again(client: redis.Redis) -> None:
    deliveries, (first,) = holding(client, "reconnecting#2", 1)
    deliveries.end(first)
    deliveries.give_back(first)  # Celery rejects it, say
    assert waiting(client) == ["0"]
    deliveries.end(first)
    deliveries.hold(first, {"headers": {"id": "0"}, "properties": {}})
    deliveries.reopen(())
    assert first not in deliveries._held
