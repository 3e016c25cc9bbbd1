"""After each reconnect, and when the worker stops: messages that Celery has dropped go back to the broker.

Celery forgets then what it has not begun: requests that wait for a process, and those with an ETA. What is at work goes
on, and is acknowledged as if nothing had happened (tasks/transport/deliveries.py).
"""

from __future__ import annotations

import logging
from typing import Any

import redis
from celery import bootsteps, signals
from celery.worker.state import active_requests

from tasks.celery_app import app
from tasks.transport import LeasedTransport, deliveries

_log = logging.getLogger(__name__)


class HeldMessages(bootsteps.StartStopStep):
    """A step of the consumer: it starts with each connection, and stops after Celery has dropped what it drops."""

    requires = ("celery.worker.consumer.connection:Connection",)

    def start(self, _consumer: Any) -> None:
        """A new connection is there, and nothing has been read from it."""
        _give_back_dropped()

    def stop(self, consumer: Any) -> None:
        """The connection was lost, or the worker stops: then it must not keep others from what it would not begin."""
        _give_back_dropped()
        transport = getattr(consumer.connection, "transport", None)
        if isinstance(transport, LeasedTransport):
            for channel in transport.channels:
                channel.stop_taking()
            try:
                deliveries.give_back_unread()
            except (redis.exceptions.RedisError, OSError) as error:
                _log.warning("what was not begun goes back later: %s", error)


@signals.task_postrun.connect(weak=False)
def _end(task: Any = None, **_: Any) -> None:
    """In a pool of threads: between here and its acknowledgement, Celery forgets that the task was at work."""
    properties = getattr(getattr(task, "request", None), "properties", None)
    if properties:
        deliveries.end(str(properties.get("delivery_tag")))


def _give_back_dropped() -> None:
    deliveries.reopen({str(request.message.delivery_tag) for request in tuple(active_requests)})


app.steps["consumer"].add(HeldMessages)
