"""How many Celery messages a run takes, by the worker's own count."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.clients import Client, running_client
from tests.support.fleet import Fleet

NOOP = {"uses": "core.noop"}
STEPS = 300
CHAIN = {
    "name": "chain",
    "actions": {f"s{n}": {**NOOP, "needs": [f"s{n - 1}"] if n else []} for n in range(STEPS)},
}
SMALL = {
    "name": "small",
    "actions": {
        "first": NOOP, "left": {**NOOP, "needs": ["first"]}, "right": {**NOOP, "needs": ["first"]},
        "last": {**NOOP, "needs": ["left", "right"]},
    },
}  # fmt: skip
#: A queue whose worker has one process, which takes forks for short on any machine.
ALONE = "alone"
TAKEN = "result = [each['total'] for each in app.control.inspect(timeout=30, limit=2).stats().values()]"
RUN = "result = run_workflow.apply_async((definition,), queue=queue).get(timeout=60)"


@pytest.fixture(scope="module")
def client(module_fleet: Fleet) -> Iterator[Client]:
    """A client of two workers: one with two processes for the default queue, one with a single one for `ALONE`."""
    module_fleet.start(1, concurrency=2)
    module_fleet.start(1, concurrency=1, queues=(ALONE,), INLINE_FORK_MS="1000")
    with running_client(module_fleet) as started:
        yield started


def taken(client: Client) -> Counter[str]:
    """The messages that both workers have taken in their lives, by task name."""
    totals = client.run(TAKEN)
    assert len(totals) == 2
    return Counter({name: sum(total.get(name, 0) for total in totals) for total in totals for name in total})


def messages_of(
    client: Client, definition: dict[str, Any], queue: str = "branches"
) -> tuple[dict[str, Any], dict[str, int]]:
    """The result of a run, and the messages that the workers took for it, by task name."""
    before = taken(client)
    result = client.run(RUN, definition={**definition, "queue": queue}, queue=queue)
    return result, dict(taken(client) - before)


def test_a_linear_workflow_is_one_celery_message(client: Client) -> None:
    result, messages = messages_of(client, CHAIN)
    assert result["counts"] == {"succeeded": STEPS}
    assert messages == {"tasks.run_workflow": 1}


def test_a_fork_adds_its_completion_and_few_runners(client: Client) -> None:
    result, messages = messages_of(client, SMALL)
    assert result["counts"] == {"succeeded": 4}
    runners = messages.pop("tasks.run_branches", 0)
    assert messages == {"tasks.run_workflow": 1, "tasks.complete_workflow": 1}
    assert runners <= 3


def test_a_short_fork_is_one_message_as_soon_as_its_cost_is_known(client: Client) -> None:
    result, messages = messages_of(client, SMALL, ALONE)
    assert result["counts"] == {"succeeded": 4}
    assert messages.pop("tasks.run_branches", 0) <= 1
    assert messages == {"tasks.run_workflow": 1, "tasks.complete_workflow": 1}
    result, messages = messages_of(client, SMALL, ALONE)
    assert result["counts"] == {"succeeded": 4}
    assert messages == {"tasks.run_workflow": 1}
