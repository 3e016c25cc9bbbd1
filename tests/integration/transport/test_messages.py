"""Whatever happens to connections and workers, each message is in one place until it is settled, and in order."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import closing

import pytest
import redis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tasks.transport import held_copies, scripts

QUEUES, CONSUMERS = ("q", "q:1", "12:r"), ("one#1", "two#2")
EXAMPLES, STEPS = 200, 60
LEASE_MS = 3_600_000
#: A message as Celery sends it, for these scripts: any bytes.
MESSAGES = st.binary(min_size=1, max_size=30)
queues = st.sampled_from(QUEUES)
consumers = st.sampled_from(CONSUMERS)


def take(client: redis.Redis, consumer: str, number: int, *names: str, connection: int = 2) -> tuple[str, bytes] | None:
    keys = list(names)
    found = client.eval(scripts.take.source, len(keys), *keys, consumer, number, LEASE_MS, keys[0], connection)
    return (found[0].decode(), found[1]) if found else None


def held_by(client: redis.Redis, consumer: str) -> dict[int, bytes]:
    found = scripts.held(client, consumer, 100)
    return {int(number): text for number, text in zip(found[::2], found[1::2], strict=True)}


def copies(client: redis.Redis, text: str) -> dict[bytes, bytes]:
    """Deliveries and messages that hold the text."""
    found, cursor = dict[bytes, bytes](), b"0"
    while True:
        cursor, *pairs = scripts.copies(client, text, cursor)
        found.update(zip(pairs[::2], pairs[1::2], strict=True))
        if cursor == b"0":
            return found


class Messages(RuleBasedStateMachine):
    """The scripts beside a model: lists of messages, oldest last."""

    client: redis.Redis

    @initialize()
    def begin(self) -> None:
        self.client.flushdb()
        self.waiting: dict[str, list[bytes]] = {name: [] for name in QUEUES}
        self.moving: dict[tuple[str, str], list[bytes]] = {}
        self.held: dict[tuple[str, int], tuple[str, bytes]] = {}
        self.lost: set[str] = set()
        self.unanswered: dict[str, int] = {}
        self.numbers = itertools.count(1)
        self.marks = itertools.count(1)

    @rule(queue=queues, text=MESSAGES)
    def send(self, queue: str, text: bytes) -> None:
        text += b"#%d" % next(self.marks)
        self.client.lpush(queue, text)
        self.waiting[queue].insert(0, text)

    @rule(consumer=consumers, names=st.permutations(QUEUES), few=st.integers(1, 3), is_answered=st.booleans())
    def take(self, consumer: str, names: list[str], few: int, is_answered: bool) -> None:
        """The answer may be lost: then the next take has the same number, and brings the same message."""
        number = self.unanswered.pop(consumer, None) or next(self.numbers)
        is_new = (consumer, number) not in self.held
        found = take(self.client, consumer, number, *names[:few])
        assert found == self._taken(consumer, number, names[:few])
        if found and is_new:
            self.lost.discard(consumer)
        if not is_answered:
            self.unanswered[consumer] = number

    @rule(consumer=consumers, queue=queues)
    def take_late(self, consumer: str, queue: str) -> None:
        """On a connection that was given up: nobody would read the answer, or ask for this number again."""
        if self.client.hexists(f"moving:{consumer}", queue):
            assert take(self.client, consumer, next(self.numbers), queue, connection=1) is None

    def _taken(self, consumer: str, number: int, names: list[str]) -> tuple[str, bytes] | None:
        if (consumer, number) in self.held:
            return self.held[consumer, number]
        for name in names:
            for place in (self.moving.get((consumer, name), []), self.waiting[name]):
                if place:
                    self.held[consumer, number] = (name, place.pop())
                    return self.held[consumer, number]
        return None

    @rule(consumer=consumers, queue=queues)
    def move(self, consumer: str, queue: str) -> None:
        """A blocking move whose take does not follow: the connection went between the two."""
        if self.client.hexists(f"moving:{consumer}", queue):
            moved = self.client.lmove(queue, f"moving:{consumer}:{queue}", "RIGHT", "LEFT")
            if moved is not None:
                self.moving.setdefault((consumer, queue), []).insert(0, self.waiting[queue].pop())

    @precondition(lambda self: self.held)
    @rule(data=st.data(), gives_back=st.booleans(), once_more=st.booleans())
    def end(self, data: st.DataObject, gives_back: bool, once_more: bool) -> None:
        """Its task has ended; a call that is repeated changes nothing more."""
        consumer, number = data.draw(st.sampled_from(sorted(self.held)))
        for repeated in (False, True)[: 1 + once_more]:
            if gives_back:
                done = scripts.give_back(self.client, consumer, number, self.held[consumer, number][1], 0)
            else:
                done = scripts.settle(self.client, consumer, number)
            assert done == (not repeated)
        queue, text = self.held.pop((consumer, number))
        if gives_back:
            self.waiting[queue].append(text)
        if self.unanswered.get(consumer) == number:
            del self.unanswered[consumer]

    @rule(consumer=consumers)
    def lose(self, consumer: str) -> None:
        """The consumer's lease ends."""
        if self.client.zadd("unacked_consumers", {consumer: 1}, xx=True, ch=True):
            self.lost.add(consumer)

    @rule(consumer=consumers)
    def renew(self, consumer: str) -> None:
        scripts.renew(self.client, consumer, LEASE_MS)
        self.lost.discard(consumer)

    @rule()
    def recover(self) -> None:
        """Only what lost consumers hold comes again, at the head of its queue."""
        self.client.hset("unacked_look", "looked", 9e15)
        assert {name.decode() for name in scripts.lost(self.client, LEASE_MS, 1, 10)} == self.lost
        for consumer in sorted(self.lost):
            for (owner, queue), texts in self.moving.items():
                if owner == consumer:
                    self.waiting[queue] += texts
                    texts.clear()
            for number, text in held_by(self.client, consumer).items():
                assert self.held[consumer, number][1] == text
                assert scripts.give_back(self.client, consumer, number, text, 1) == 1
                self.waiting[self.held.pop((consumer, number))[0]].append(text)
            assert held_by(self.client, consumer) == {}
            self.unanswered.pop(consumer, None)
        self.lost.clear()

    @rule(consumer=consumers)
    def spare_the_living(self, consumer: str) -> None:
        """A worker that has renewed its lease since somebody looked keeps what it holds."""
        if consumer in self.lost or not self.client.zscore("unacked_consumers", consumer):
            return
        for owner, number in self.held:
            if owner == consumer:
                assert scripts.give_back(self.client, consumer, number, "x", 1) == 0

    @invariant()
    def each_is_in_one_place(self) -> None:
        if not hasattr(self, "waiting"):
            return
        for name, texts in self.waiting.items():
            assert self.client.lrange(name, 0, -1) == texts
        for (consumer, name), texts in self.moving.items():
            assert self.client.lrange(f"moving:{consumer}:{name}", 0, -1) == texts
        expected = {
            f"{consumer}/{number}".encode(): f"{len(name)}:{name}".encode() + text
            for (consumer, number), (name, text) in self.held.items()
        }
        assert self.client.hgetall("unacked") == expected
        assert copies(self.client, "") == {
            f"{consumer}/{number}".encode(): text for (consumer, number), (_, text) in self.held.items()
        }


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    """A client of a database that is empty, before and after."""
    with closing(redis.Redis.from_url(redis_url, db=13)) as own:
        own.flushdb()
        yield own
        own.flushdb()


def test_messages_follow_the_model(client: redis.Redis) -> None:
    Messages.client = client
    run_state_machine_as_test(
        Messages,
        settings=settings(max_examples=EXAMPLES, stateful_step_count=STEPS, suppress_health_check=list(HealthCheck)),
    )


def test_copies_of_a_message_are_found_among_many_others(client: redis.Redis) -> None:
    """Whatever else is held: they are as many as workers hold, by task and id."""
    for number in range(1000):
        client.lpush("q", f'{{"headers": {{"task": "a", "id": "{number // 2}"}}, "body": "id 7"}}')
        assert take(client, "one#1", number, "q")
    client.lpush("q", '{"headers": {"task": "b", "id": "7"}}', '{"headers": {"task": "a", "id": "7"}}')
    assert held_copies(client, "a", "7") == 2
    assert held_copies(client, "a", "none") == 0
    assert scripts.settle(client, "one#1", 14) == 1
    assert held_copies(client, "a", "7") == 1


def test_leases_are_left_alone_after_a_time_without_a_look(client: redis.Redis) -> None:
    """The server was away, or all workers were: their leases are over through no fault of theirs."""
    client.lpush("q", "text")
    assert take(client, "one#1", 1, "q")
    client.zadd("unacked_consumers", {"one#1": 1})
    assert scripts.lost(client, LEASE_MS, 4000, 10) == []
    assert scripts.lost(client, LEASE_MS, 4000, 10) == []
    client.hset("unacked_look", "wait", 1)
    assert scripts.lost(client, LEASE_MS, 4000, 10) == [b"one#1"]
    client.hset("unacked_look", "looked", 1)
    assert scripts.lost(client, LEASE_MS, 4000, 10) == []


def test_a_full_memory_loses_no_message(client: redis.Redis) -> None:
    """What is taken is recorded, and what is held goes back, though commands that need memory are refused."""
    client.lpush("q", "first", "second")
    assert take(client, "one#1", 1, "q") == ("q", b"first")
    client.lmove("q", "moving:one#1:q", "RIGHT", "LEFT")
    before = client.config_get("maxmemory")["maxmemory"]
    client.config_set("maxmemory", 1)
    try:
        with pytest.raises(redis.exceptions.OutOfMemoryError):
            client.lpush("q", "third")
        assert take(client, "one#1", 2, "q") == ("q", b"second")
        assert take(client, "one#1", 3, "q") is None
        assert scripts.settle(client, "one#1", 1) == 1
        assert held_by(client, "one#1") == {2: b"second"}
        assert scripts.give_back(client, "one#1", 2, "second", 0) == 1
        assert client.lrange("q", 0, -1) == [b"second"]
    finally:
        client.config_set("maxmemory", str(before))
