"""What is asked of the broker beyond Celery: which queue a message came from, and whether messages wait in a queue."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Mapping
from typing import Any, Final

from kombu.utils.text import version_string_as_tuple

from config.broker import is_rabbitmq, redis_url_of
from orchestration.state.client import RedisError, connect, is_away
from orchestration.state.patience import Patience
from tasks.celery_app import app

_log = logging.getLogger(__name__)
#: Before the queue's name, when a message has waited in RabbitMQ (kombu/transport/native_delayed_delivery.py).
_DELAY: Final = re.compile(r"^(?:[01]\.){28}")
#: A question that nobody has to answer.
_NO_PATIENCE: Final = Patience(is_away, repeats=0)
#: What AMQP answers to a wrong user or password, and to a vhost that is not there or not ours.
_REFUSED: Final = (402, 403, 530)
#: Its quorum queues hand messages on that waited for a time without losing any.
RABBITMQ_AT_LEAST: Final = (3, 10)
#: Between two questions to RabbitMQ; an answer is forgotten, and a queue not asked about any more, after the second.
ASK_SECONDS: Final = 0.05
KNOWN_SECONDS: Final = 1.0


def queue_of(delivery_info: Mapping[str, Any] | None) -> str:
    """The queue that a message came from."""
    key = (delivery_info or {}).get("routing_key")
    return _DELAY.sub("", str(key)) if key else str(app.conf.task_default_queue)


def refusal(broker_url: str) -> str | None:
    """Why RabbitMQ will never serve us at this URL; None: it does, or is away and may later.

    Returns: a sentence that names the setting, without the password.
    """
    connection = app.connection_for_read(broker_url)
    where = f"BROKER_URL: RabbitMQ at {connection.as_uri()}"
    try:
        connection.connect()
        version = str(connection.connection.server_properties.get("version", ""))
    except (*connection.connection_errors, *connection.channel_errors) as error:
        code = getattr(error, "reply_code", None)
        return f"{where} refuses us ({error}); correct user, password and vhost" if code in _REFUSED else None
    finally:
        connection.collect()
    if version_string_as_tuple(version)[:2] < RABBITMQ_AT_LEAST:
        least = ".".join(map(str, RABBITMQ_AT_LEAST))
        return f"{where} is {version}, which is too old; use {least} or newer"
    return None


class QueueLengths:
    """Whether messages wait in queues of the broker, for the processes of a pool."""

    def __init__(self, broker_url: str) -> None:
        self._redis_url = redis_url_of(broker_url)
        self._rabbitmq = _RabbitLengths() if is_rabbitmq(broker_url) else None

    def is_empty(self, queue: str) -> bool:
        """Whether no message waits there, or nobody can say."""
        if self._rabbitmq is not None:
            return not self._rabbitmq.waiting(queue)
        try:
            return self._redis_url is None or not connect(self._redis_url, _NO_PATIENCE).llen(queue)
        except RedisError:
            return True


class _RabbitLengths:
    """Asks in a thread of its own, as long as others want to know: an answer may take as long as RabbitMQ is frozen."""

    def __init__(self) -> None:
        self._wanted: dict[str, float] = {}
        self._known: dict[str, tuple[int, float]] = {}
        self._is_wanted = threading.Event()
        self._asks: threading.Thread | None = None
        self._starting = threading.Lock()

    def waiting(self, queue: str) -> int:
        """How many messages waited a moment ago; 0 if nobody knows."""
        now = time.monotonic()
        self._wanted[queue] = now
        self._is_wanted.set()
        if self._asks is None:
            with self._starting:
                if self._asks is None:
                    self._asks = threading.Thread(target=self._ask, name="queue-lengths", daemon=True)
                    self._asks.start()
        number, asked = self._known.get(queue, (0, 0.0))
        return number if now - asked < KNOWN_SECONDS else 0

    def _ask(self) -> None:
        connection = app.connection_for_write(heartbeat=0)
        while True:
            self._is_wanted.wait()
            try:
                channel = connection.channel()
                while queues := self._recently_wanted():
                    for queue in queues:
                        asked = time.monotonic()
                        number = channel.queue_declare(queue, passive=True).message_count
                        self._known[queue] = number, asked
                    time.sleep(ASK_SECONDS)
                channel.close()
            except Exception as error:  # noqa: BLE001 - it asks again; py-amqp raises many things at a lost connection
                _log.debug("the broker does not say what waits in it: %s", error)
                connection.collect()
                time.sleep(KNOWN_SECONDS)

    def _recently_wanted(self) -> list[str]:
        """Queues that somebody wanted to know of just now; if there are none, there is nothing to ask."""
        self._is_wanted.clear()
        since = time.monotonic() - KNOWN_SECONDS
        queues = [queue for queue, wanted in tuple(self._wanted.items()) if wanted > since]
        if queues:
            self._is_wanted.set()
        return queues
