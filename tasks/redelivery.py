"""A message that comes again while its first delivery is still at work: RabbitMQ does that when a connection is lost.

Our transport for Redis does not (tasks/transport), so there is nothing to do there. Runners have leases of their own;
what has none is a session in its first branch, which may take hours. Its delivery says in Redis that it is at work, for
the time of a lease, which the worker's main process renews (worker/holding.py). Another delivery of the same message
leaves a copy of it that comes again later, until the first one has ended, or its process or worker has.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

from celery.exceptions import Ignore, Reject

from config.broker import is_rabbitmq
from config.settings import Settings
from orchestration.engine.processor import EnhancedParallelProcessor
from orchestration.state.client import RedisError
from orchestration.state.holding import hold_message, release_message
from orchestration.state.wire import lives_in
from tasks.canvas import AWAY
from tasks.worker.holding import holder_lease_seconds

#: Between two looks whether the first delivery is still at work.
AGAIN_SECONDS: Final = 2


@contextmanager
def only_delivery(task: Any, processor: EnhancedParallelProcessor) -> Iterator[None]:
    """In the block, no other delivery of the running task's message is at work.

    Raises: Ignore: one is; the message comes again later. Reject: so it does, since RabbitMQ did not take the copy.
    """
    settings: Settings = processor.settings
    if not is_rabbitmq(settings.broker_url):
        yield
        return
    live, name = processor.stores.live, task.request.id
    holder = lives_in(processor.worker, os.getpid()) + secrets.token_hex(4)
    if not hold_message(live, name, holder, holder_lease_seconds(settings)):
        try:
            task.signature_from_request(task.request, countdown=AGAIN_SECONDS).apply_async(add_to_parent=False)
        except AWAY as error:  # a failure would be taken for the run's
            raise Reject(error, requeue=True) from error
        raise Ignore("an earlier delivery of this message is at work; it comes again later")
    try:
        yield
    finally:
        with suppress(RedisError):  # then the lease ends
            release_message(live, name, holder)
