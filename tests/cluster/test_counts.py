"""How many Celery messages a run takes, by the worker's own count."""

from __future__ import annotations

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
TAKEN = "result = next(iter(app.control.inspect(timeout=30, limit=1).stats().values()))['total']"


@pytest.fixture(scope="module")
def client(module_fleet: Fleet) -> Iterator[Client]:
    """A client of one worker with two processes."""
    module_fleet.start(1, concurrency=2)
    with running_client(module_fleet) as started:
        yield started


def messages_of(client: Client, definition: dict[str, Any]) -> tuple[dict[str, Any], dict[str, int]]:
    """The result of a run, and the messages that the worker took for it, by task name."""
    before = client.run(TAKEN)
    result = client.run("result = run_workflow.delay(definition).get(timeout=60)", definition=definition)
    after = client.run(TAKEN)
    return result, {name: count - before.get(name, 0) for name, count in after.items() if count != before.get(name, 0)}


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
