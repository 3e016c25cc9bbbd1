"""Runs that meet an outage come again: for five minutes at least, completions for good; no message is dropped."""

from __future__ import annotations

import random

import celery
import pytest
import redis
from celery.exceptions import Reject
from celery.utils.time import get_exponential_backoff_interval

from orchestration.errors import ServiceUnreachable
from tasks.canvas import COMPLETE_AT_LAST, RIDE_OUT, ProcessorTask
from tasks.complete import complete_workflow

NOWHERE = "redis://127.0.0.1:9"


@pytest.fixture
def lonely() -> ProcessorTask:
    """A task that is being run, of an application whose broker is away."""
    app = celery.Celery("lonely", broker=NOWHERE, set_as_current=False)
    app.conf.broker_transport_options = {"max_retries": 1, "interval_start": 0, "interval_step": 0}

    @app.task(bind=True, base=ProcessorTask, name="lonely.task", **RIDE_OUT)
    def task(self: ProcessorTask) -> None:
        del self

    task.push_request(id="1", args=[], kwargs={}, retries=0, called_directly=False, delivery_info={})
    made: ProcessorTask = task
    return made


def test_attempts_to_accept_a_run_span_five_minutes_however_the_waits_fall() -> None:
    random.seed(1)
    for _ in range(200):
        waits = [
            get_exponential_backoff_interval(1, attempt, RIDE_OUT["retry_backoff_max"], full_jitter=True)
            for attempt in range(RIDE_OUT["max_retries"])
        ]
        assert 300 < sum(waits) < 1200


def test_a_completion_comes_again_until_it_is_recorded() -> None:
    assert COMPLETE_AT_LAST["max_retries"] is None
    assert complete_workflow.max_retries is None


@pytest.mark.parametrize("error", [ServiceUnreachable("PostgreSQL"), redis.exceptions.ConnectionError("Redis")])
def test_a_task_that_can_not_be_sent_again_keeps_its_message(lonely: ProcessorTask, error: Exception) -> None:
    with pytest.raises(Reject) as rejected:
        lonely.retry(exc=error, countdown=1)
    assert rejected.value.requeue
