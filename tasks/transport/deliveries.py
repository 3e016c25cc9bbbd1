"""The messages that this worker holds: taken from the broker, and neither settled nor given back.

One object for each process, whatever becomes of the connections to the broker: a message is settled by its own id, on
a connection of its own, however often Celery has reconnected since. What can't be said to the broker now is said later.

    waits in its queue --take--> held --settle--> gone
            ^                     |
            +------give back------+   by us: rejected, or dropped by Celery at a reconnect or at the end
                                  |   by any other worker (recovery.py): our lease is over

If the worker dies here: the upkeep process, which renews its lease, ends with it, and all that it holds comes again
when the lease is over. An answer that is lost with its connection: the take is repeated with its number, and the same
message comes. Two deliveries of one message have different ids, so that a late settlement by the first does not touch
the second.
"""

from __future__ import annotations

import itertools
import logging
import os
import threading
from collections.abc import Collection
from typing import Any, Final

import redis
from kombu.utils.json import dumps, loads
from redis.backoff import NoBackoff
from redis.retry import Retry

from tasks.transport import scripts

_log = logging.getLogger(__name__)
#: The event loop of the worker waits for these calls.
CALL_SECONDS: Final = 3
#: What is read of a consumer's messages in one call.
MOST_HELD: Final = 100


def comes_again(message: dict[str, Any]) -> str:
    """The text of a message, marked as one that was delivered before."""
    message.setdefault("headers", {})["redelivered"] = True
    message["properties"].setdefault("delivery_info", {})["redelivered"] = True
    return str(dumps(message))


class Deliveries:
    """What this process holds. Used by the event loop, and by threads of a pool that settle."""

    def __init__(self) -> None:
        self.consumer = ""
        self.lease_ms = 0
        #: Tasks run in the thread that reads messages, which reads nothing meanwhile (pool solo).
        self.blocks = False
        self._client: redis.Redis | None = None
        self._held: dict[str, dict[str, Any]] = {}
        #: Held ones whose tasks have ended: Celery counts them no more as at work, and settles them in a moment.
        self._ended: set[str] = set()
        self._pid = 0
        self._unsaid: dict[str, str | None] = {}
        self._numbers = itertools.count(1)
        self._connections = itertools.count(1)
        self._unanswered: set[int] = set()
        self._orphaned: list[int] = []
        self._saying = threading.Lock()

    @property
    def is_consumer(self) -> bool:
        """Whether this process is a worker; others read messages as Celery's own transport does."""
        return bool(self.consumer)

    def serve(self, consumer: str, lease_seconds: float, *, blocks: bool) -> None:
        """This process takes messages as `consumer`, a name that no process had before."""
        self.consumer, self.lease_ms, self.blocks = consumer, int(lease_seconds * 1000), blocks
        self._pid = os.getpid()

    def connect_as(self, parameters: dict[str, Any]) -> None:
        """Reach the broker with these parameters of a redis-py connection, which the channel made of its URL."""
        if self._client is not None:
            return
        parameters = {
            **parameters, "socket_timeout": CALL_SECONDS, "retry_on_timeout": False,
            "retry": Retry(NoBackoff(), 1), "retry_on_error": [redis.exceptions.ConnectionError],
        }  # fmt: skip
        self._client = redis.Redis(connection_pool=redis.ConnectionPool(**parameters))

    def begin_take(self) -> int:
        """The number of a take. One that an earlier connection took along comes first, as it may have a message."""
        number = self._orphaned.pop() if self._orphaned else next(self._numbers)
        self._unanswered.add(number)
        return number

    def end_take(self, number: int) -> None:
        """The answer to this take has been read; its number is not used again."""
        self._unanswered.discard(number)

    def next_connection(self) -> int:
        """The number of a connection that takes messages; larger than those of all before."""
        return next(self._connections)

    def id_of(self, number: int) -> str:
        """The id of the message that this take brought; Celery's delivery tag."""
        return f"{self.consumer}/{number}"

    def is_ours(self, delivery: str) -> bool:
        """Whether it is an id of a message of this consumer, held or not any more."""
        return self.is_consumer and delivery.startswith(f"{self.consumer}/")

    def hold(self, delivery: str, message: dict[str, Any]) -> None:
        """It has been delivered to Celery."""
        self._held[delivery] = message

    def end(self, delivery: str) -> None:
        """The task of this message has ended; called by the thread that ran it, in a pool of threads."""
        if delivery in self._held and os.getpid() == self._pid:
            self._ended.add(delivery)

    def settle(self, delivery: str) -> None:
        """It needs no more work; without the broker, it is told later."""
        self._held.pop(delivery, None)
        self._ended.discard(delivery)
        self._say(delivery, None)

    def give_back(self, delivery: str) -> None:
        """It goes back to its queue, at the head; without the broker, later."""
        message = self._held.pop(delivery, None)
        self._ended.discard(delivery)
        if message is not None:
            self._say(delivery, comes_again(message))

    def reopen(self, at_work: Collection[str]) -> None:
        """Celery has a new connection, and has forgotten what was not at work: that is given back.

        Args: at_work: ids of messages whose tasks run.
        """
        self._orphaned += self._unanswered
        self._unanswered.clear()
        ended = self._ended.copy()  # before what is held: whoever settles one takes it out in the other order
        dropped = [delivery for delivery in tuple(self._held) if delivery not in at_work and delivery not in ended]
        if dropped:
            _log.info("%d messages that had not begun go back to the broker", len(dropped))
        for delivery in reversed(dropped):
            self.give_back(delivery)

    def give_back_unread(self) -> None:
        """Nothing is read any more: what the broker has given us, and we have not read, goes back.

        Raises: redis.exceptions.RedisError: the broker is out of reach; it goes back at the end, or after the lease.
        """
        if self._client is not None:
            for number, message in _held(self._client, self.consumer):
                if self.id_of(int(number)) not in self._held.keys() | self._unsaid.keys():
                    scripts.give_back(self._client, self.consumer, number, comes_again(message), 0)

    def leave(self) -> None:
        """The worker ends: whatever it still holds goes back at once.

        Raises: redis.exceptions.RedisError: the broker is out of reach; it goes back when the lease is over.
        """
        if self.is_consumer and self._client is not None:
            self.say_unsaid()
            give_all_back(self._client, self.consumer, only_lost=False)

    def say_unsaid(self) -> None:
        """Tell the broker what it could not be told when it happened."""
        if not self._unsaid:
            return
        with self._saying:
            for delivery, message in tuple(self._unsaid.items()):
                if not self._tell(delivery, message):
                    return
                self._unsaid.pop(delivery, None)

    def _say(self, delivery: str, message: str | None) -> None:
        if self._unsaid or not self._tell(delivery, message):  # one call in vain is enough
            self._unsaid[delivery] = message

    def _tell(self, delivery: str, message: str | None) -> bool:
        number = delivery.rpartition("/")[2]
        if self._client is None:
            return False
        try:
            if message is None:
                scripts.settle(self._client, self.consumer, number)
            else:
                scripts.give_back(self._client, self.consumer, number, message, 0)
        except (redis.exceptions.RedisError, OSError) as error:
            _log.warning("the broker is told later what became of message %s: %s", delivery, error)
            return False
        return True


def give_all_back(client: redis.Redis, consumer: str, *, only_lost: bool) -> int:
    """Give back what a consumer holds; how many messages.

    Args: only_lost: nothing, if it lives after all.
    """
    total = 0
    while held := _held(client, consumer):
        given = sum(
            scripts.give_back(client, consumer, number, comes_again(message), int(only_lost))
            for number, message in held
        )
        total += given
        if not given:
            break
    return total


def _held(client: redis.Redis, consumer: str) -> list[tuple[bytes, dict[str, Any]]]:
    """Numbers and messages that a consumer holds, at most `MOST_HELD`."""
    found = scripts.held(client, consumer, MOST_HELD)
    return [(number, loads(text)) for number, text in zip(found[::2], found[1::2], strict=True)]


#: This process's.
deliveries: Final = Deliveries()
