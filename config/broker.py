"""Which broker a URL names, and what Celery is to be told for it. Imports nothing of ours."""

from __future__ import annotations

import socket
from typing import Any, Final
from urllib.parse import parse_qs, urlencode, urlsplit

#: What BROKER_URL may begin with. Others that Celery knows lack acknowledgements, or were never tried here.
REDIS_SCHEMES: Final = ("redis", "rediss", "unix", "redis+socket")
RABBITMQ_SCHEMES: Final = ("amqp", "amqps")

#: A peer that went silent is noticed after 5 s, not after two hours; the last is for when data was sent meanwhile, ms.
KEEPALIVE: Final = {"TCP_KEEPIDLE": 2, "TCP_KEEPINTVL": 1, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 5000}
#: How long a sender waits until RabbitMQ has stored a message; then it is sent again.
CONFIRM_SECONDS: Final = 10.0


def check_broker_url(url: str) -> None:
    """Return if it names a broker that is supported.

    Raises: ValueError: why it does not.
    """
    expected = "expected redis://… or amqp://…"
    parts = [part.strip() for part in url.split(";")]
    for part in parts:
        try:
            split = urlsplit(part)
            _ = split.port
        except ValueError as error:
            raise ValueError(f"not a URL ({error}); {expected}") from None
        if split.scheme not in (*REDIS_SCHEMES, *RABBITMQ_SCHEMES):
            raise ValueError(f"its scheme must be one of {', '.join(REDIS_SCHEMES + RABBITMQ_SCHEMES)}; {expected}")
    if len(parts) > 1 and not all(is_rabbitmq(part) for part in parts):
        raise ValueError("several URLs, separated by ;, may name the nodes of one RabbitMQ only")


def is_rabbitmq(url: str | None) -> bool:
    """Whether it is a RabbitMQ."""
    return urlsplit(url or "").scheme in RABBITMQ_SCHEMES


def celery_url(url: str) -> str:
    """As Celery wants it: a Redis behind a socket is `redis+socket://…?virtual_host=<database>` there."""
    parts = urlsplit(url)
    if parts.scheme != "unix":
        return url
    options = {name: values[0] for name, values in parse_qs(parts.query).items()}
    options["virtual_host"] = options.pop("db", "0")
    return f"redis+socket://{parts.netloc}{parts.path}?{urlencode(options)}"


def redis_url_of(url: str) -> str | None:
    """As redis-py wants it; None: the broker is no Redis."""
    parts = urlsplit(url)
    if parts.scheme not in REDIS_SCHEMES:
        return None
    if parts.scheme != "redis+socket":
        return url
    options = {name: values[0] for name, values in parse_qs(parts.query).items()}
    options["db"] = options.pop("virtual_host", "0").strip("/") or "0"
    return f"unix://{parts.netloc}{parts.path}?{urlencode(options)}"


def socket_options() -> dict[int, int]:
    """`KEEPALIVE` by the system's numbers; options that a system does not have are left out."""
    return {getattr(socket, name): value for name, value in KEEPALIVE.items() if hasattr(socket, name)}


def rabbitmq_config(lease_seconds: float) -> dict[str, Any]:
    """Celery's settings for RabbitMQ. Each line says which fault it prevents; tried with RabbitMQ 3.10.

    Args: lease_seconds: how soon a host that is lost is noticed; the broker wants two heartbeats to be missed.
    """
    return {
        "broker_transport_options": {
            "confirm_publish": True,  # a message is accepted when it is stored on a majority of the nodes, not before
            "socket_settings": socket_options(),
        },
        "broker_heartbeat": max(2, round(lease_seconds / 2)),
        "broker_connection_timeout": 5.0,
        "broker_channel_error_retry": True,  # a channel that the broker closes (consumer_timeout) would end the worker
        # Quorum queues: replicated, on disk, and never half declared
        "task_default_queue_type": "quorum",
        "task_create_missing_queue_type": "quorum",
        "worker_detect_quorum_queues": True,  # they refuse a prefetch count for a whole channel
        # Messages with a countdown wait in the broker: in the worker, each would occupy one of its slots. That needs
        # topic exchanges; the routing key of a message is its queue's name all the same, or ends with it
        "task_default_exchange_type": "topic",
        "task_create_missing_queue_exchange_type": "topic",
        "broker_native_delayed_delivery_queue_type": "quorum",
    }
