"""Celery's settings, derived from ours. Each line says which fault it prevents; measured with Celery 5.7 on Redis.

What differs on RabbitMQ is in config/broker.py.
"""

from __future__ import annotations

from typing import Any

from config.broker import celery_url, is_rabbitmq, rabbitmq_config, socket_options
from config.settings import Settings

#: The queue of branches that name no other.
DEFAULT_QUEUE = "branches"
#: A runner leaves after this even if nobody waits, so that Celery's time limits can stand behind it.
TOUR_SECONDS = 60.0


def celery_config(settings: Settings) -> dict[str, Any]:
    """The configuration of the application.

    Args: settings: with `redis_url`; `broker_url` may name another broker.
    """
    redis_options = {
        "socket_timeout": 10,  # a frozen server or a silent cut: reconnect
        "socket_connect_timeout": 5,
        "socket_keepalive": True,
        "socket_keepalive_options": socket_options(),
        "health_check_interval": 3,  # a silent cut that a proxy hides from TCP: the wait for messages is given up
        "retry_on_timeout": True,
    }
    broker = celery_url(settings.broker_url or settings.redis_url or "") or None
    results = celery_url(settings.redis_url or "") or None
    transport = {
        **redis_options,
        # Workers hold messages by a lease of LEASE_SECONDS (tasks/transport). This is for other processes that read
        # messages and acknowledge them, and nobody renews theirs: what they are at is not delivered again for so long
        "visibility_timeout": 7200,
        "priority_steps": [0],  # one list for each queue: its depth is one LLEN
    }
    return {
        "broker_url": broker,
        "result_backend": results,
        **(rabbitmq_config(settings.lease_seconds) if is_rabbitmq(broker) else {"broker_transport_options": transport}),
        "result_backend_transport_options": {},
        # Delivery
        "task_acks_late": True,  # a process that dies does not take its message along
        "task_acks_on_failure_or_timeout": True,  # a failed message is settled, not repeated for ever
        "task_reject_on_worker_lost": True,  # a killed child: its message comes back at once
        "worker_prefetch_multiplier": 1,  # a message reserved behind a long one waits although other processes are free
        "worker_cancel_long_running_tasks_on_connection_loss": False,  # a reset is no reason to run work twice
        "broker_connection_retry_on_startup": True,  # a worker that starts before its broker waits for it
        "broker_connection_max_retries": None,  # an outage of any length is ridden out
        # Results
        "task_ignore_result": True,  # runners return nothing; `run_workflow` stores its result
        "result_expires": 86_400,
        "result_chord_expires": 2_592_000,  # chords of workflows that take days keep their count
        "result_backend_always_retry": True,  # a result is not lost to a restart of Redis
        "result_backend_max_retries": 100,  # ten give up within an outage of 20 s
        "redis_socket_timeout": 10,
        "redis_socket_connect_timeout": 5,
        "redis_socket_keepalive": not (results or "").startswith("redis+socket"),  # Celery passes it on to any socket
        "redis_backend_health_check_interval": 10,
        "redis_retry_on_timeout": True,
        # Messages
        "task_serializer": "json",
        "result_serializer": "json",
        "accept_content": ["json"],  # a pickle in the broker would run as code
        "result_accept_content": ["json"],
        "task_default_queue": DEFAULT_QUEUE,
        # Behind the timers of branches: ends what they can't, in a first branch; runners bring limits of their own
        "task_soft_time_limit": settings.branch_processing_timeout_secs + TOUR_SECONDS,
        "task_time_limit": settings.branch_processing_timeout_secs + TOUR_SECONDS + settings.branch_grace_seconds,
        "task_create_missing_queues": True,  # `queue: gpu` needs no declaration
        # Workers
        "worker_disable_rate_limits": True,  # Celery's are per worker; ours hold for the fleet
        "worker_send_task_events": False,  # events cost a third of the message rate
        "worker_hijack_root_logger": False,  # our logging is configured by config/logs.py
        "worker_proc_alive_timeout": 30.0,  # a loaded machine may take seconds to start a process
        "worker_soft_shutdown_timeout": 30.0,  # a cold shutdown lets branches end first
        "worker_max_tasks_per_child": None,
        "timezone": "UTC",
        "enable_utc": True,
    }
