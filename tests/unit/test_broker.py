"""Which brokers BROKER_URL may name, and what Celery and redis-py are told for them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from config.broker import celery_url, is_rabbitmq, redis_url_of
from config.celery_config import celery_config
from config.settings import WrongSetting, load_settings
from tasks.broker import queue_of

SERVICES = {"REDIS_URL": "redis://127.0.0.1:1/0", "DATABASE_URL": "postgresql://127.0.0.1:1/none"}


@pytest.mark.parametrize(
    "url", ["kafka://host", "pyamqp://host", "sqs://", "memory://", "host:5672", "amqp://host:port", "http://host",
            "redis://one;redis://two", "amqp://one;redis://two", "amqp://one;kafka://two"],
)  # fmt: skip
def test_a_broker_that_is_not_supported_is_refused_by_the_setting_s_name(url: str) -> None:
    with pytest.raises(WrongSetting, match=r"^BROKER_URL: "):
        load_settings(broker_url=url)


@pytest.mark.parametrize(
    "url", ["redis://host/1", "rediss://host", "unix:///run/redis.sock?db=2", "redis+socket:///run/redis.sock",
            "amqp://user:secret@host:5672//", "amqps://host/vhost", "amqp://one//;amqp://two//"],
)  # fmt: skip
def test_a_broker_that_is_supported_is_taken(url: str) -> None:
    assert load_settings(broker_url=url).broker_url == url


def test_a_wrong_broker_stops_a_worker_with_a_sentence(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "celery", "-A", "tasks", "worker"], capture_output=True, text=True, timeout=60,
        env={**os.environ, **SERVICES, "BROKER_URL": "kafka://user:secret@host"}, cwd=tmp_path, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "BROKER_URL: its scheme must be one of redis" in done.stderr
    assert "Traceback" not in done.stderr
    assert "secret" not in done.stderr


@pytest.mark.parametrize(
    ("url", "for_celery", "for_redis"),
    [
        ("redis://:p@host:1/2", "redis://:p@host:1/2", "redis://:p@host:1/2"),
        ("unix:///run/r.sock?db=2", "redis+socket:///run/r.sock?virtual_host=2", "unix:///run/r.sock?db=2"),
        ("unix://u:p@/run/r.sock", "redis+socket://u:p@/run/r.sock?virtual_host=0", "unix://u:p@/run/r.sock"),
        ("redis+socket:///r.sock", "redis+socket:///r.sock", "unix:///r.sock?db=0"),
        ("redis+socket:///r.sock?virtual_host=3", "redis+socket:///r.sock?virtual_host=3", "unix:///r.sock?db=3"),
        ("amqp://host//", "amqp://host//", None),
    ],
)
def test_a_socket_has_one_url_for_celery_and_one_for_redis_py(url: str, for_celery: str, for_redis: str | None) -> None:
    assert (celery_url(url), redis_url_of(url)) == (for_celery, for_redis)


def test_rabbitmq_gets_quorum_queues_and_confirms_and_redis_none_of_it() -> None:
    rabbit = celery_config(load_settings(redis_url="redis://host", broker_url="amqp://host//"))
    assert is_rabbitmq(rabbit["broker_url"])
    assert rabbit["task_default_queue_type"] == rabbit["task_create_missing_queue_type"] == "quorum"
    assert rabbit["broker_transport_options"]["confirm_publish"] is True
    assert "visibility_timeout" not in rabbit["broker_transport_options"]
    redis = celery_config(load_settings(redis_url="redis://host", broker_url=None))
    assert redis["broker_url"] == "redis://host"
    assert "task_default_queue_type" not in redis
    assert "visibility_timeout" in redis["broker_transport_options"]


def test_the_queue_of_a_message_is_known_after_it_has_waited() -> None:
    assert queue_of({"routing_key": "gpu.large"}) == "gpu.large"
    assert queue_of({"routing_key": ".".join("01" * 14) + ".gpu.large"}) == "gpu.large"
