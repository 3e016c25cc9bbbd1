"""What the upkeep process of a worker does for messages: renew the worker's lease, give back what lost workers hold.

A process of its own, so that a lease says nothing about the pool: a task that holds Python's global lock, or blocks the
thread that reads messages, does not let it end. It ends with the worker.
"""

from __future__ import annotations

import logging
from typing import Any, Final

import redis

from tasks.transport import scripts
from tasks.transport.deliveries import give_all_back

_log = logging.getLogger(__name__)
#: Consumers that are looked at in one call.
MOST_CONSUMERS: Final = 100
#: Looks are a second apart; after so long without one, nobody could renew a lease either.
GAP_SECONDS: Final = 4.0


class MessageLeases:
    """The leases of consumers in one broker."""

    def __init__(self, client: redis.Redis, lease_seconds: float) -> None:
        self._client = client
        self._lease_ms = int(lease_seconds * 1000)

    @classmethod
    def of_broker(cls, app: Any, lease_seconds: float) -> MessageLeases:
        """Those in the broker of a Celery application, a Redis.

        Raises: redis.exceptions.RedisError: it is out of reach.
        """
        with app.connection_for_write() as connection:
            return cls(connection.channel().new_client(), lease_seconds)

    def renew(self, consumer: str) -> None:
        """What `consumer` holds stays with it for another lease."""
        scripts.renew(self._client, consumer, self._lease_ms)

    def give_back_lost(self) -> int:
        """What consumers hold whose lease is over comes again; how many messages."""
        total = 0
        for name in scripts.lost(self._client, self._lease_ms, int(GAP_SECONDS * 1000), MOST_CONSUMERS):
            count = give_all_back(self._client, name.decode(), only_lost=True)
            if count:
                _log.warning("%d messages that worker %s held come again", count, name.decode())
            total += count
        return total
