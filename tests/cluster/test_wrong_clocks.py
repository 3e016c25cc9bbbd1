"""What is to begin later begins on time, and what expires does, though the clocks of hosts are an hour wrong."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import skewed_clock
from tests.support.clients import Client, RaisedInClient, running_client
from tests.support.fleet import Fleet
from tests.support.skewed_clock import SkewedClock

HOUR = 3600.0
#: Queues of the workers whose clocks are wrong; that of the right one is the default.
AHEAD, BEHIND, RIGHT = "ahead", "behind", "branches"
SECONDS = 1.5
#: On a busy machine.
SLACK = 5.0


@pytest.fixture(scope="module")
def clocks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, SkewedClock]:
    """By queue."""
    preloaded = skewed_clock.require()
    folder = tmp_path_factory.mktemp("clocks")
    return {
        AHEAD: SkewedClock(folder / AHEAD, preloaded, HOUR),
        BEHIND: SkewedClock(folder / BEHIND, preloaded, -HOUR),
    }


@pytest.fixture(scope="module")
def fleet(module_fleet: Fleet, clocks: dict[str, SkewedClock]) -> Fleet:
    """A worker on each of the three queues."""
    application = "tests.support.waiting_app"
    paths = {"PYTHONPATH": os.pathsep.join([str(Path.cwd()), os.environ.get("PYTHONPATH", "")])}
    module_fleet.start(1, concurrency=1, queues=(RIGHT,), application=application)
    for queue, clock in clocks.items():
        module_fleet.start(1, concurrency=1, queues=(queue,), application=application, **clock.around(paths))
    return module_fleet


@pytest.fixture(scope="module")
def client(fleet: Fleet) -> Iterator[Client]:
    with running_client(fleet) as running:
        yield running


def come(client: Client, call: str, **options: object) -> float:
    """Seconds until a task has come that was sent so."""
    began = time.monotonic()
    code = f"result = app.signature({call}).apply_async(**options).get(timeout=20)"
    assert client.run(code, options=options) == "came"
    return time.monotonic() - began


@pytest.mark.parametrize("queue", [AHEAD, BEHIND])
def test_a_message_waits_as_long_on_a_host_with_a_wrong_clock(client: Client, queue: str) -> None:
    assert SECONDS <= come(client, "'test.come_once'", countdown=SECONDS, queue=queue) < SECONDS + SLACK


@pytest.mark.parametrize("where", [AHEAD, BEHIND])
def test_a_message_waits_as_long_that_was_sent_by_a_host_with_a_wrong_clock(
    fleet: Fleet, clocks: dict[str, SkewedClock], where: str
) -> None:
    with running_client(fleet, clock=clocks[where]) as client:
        assert SECONDS <= come(client, "'test.come_once'", countdown=SECONDS, queue=RIGHT) < SECONDS + SLACK


@pytest.mark.parametrize(("queue", "other"), [(AHEAD, RIGHT), (BEHIND, RIGHT), (AHEAD, BEHIND), (RIGHT, AHEAD)])
def test_a_task_is_tried_again_on_time_wherever_it_failed(client: Client, queue: str, other: str) -> None:
    seconds = come(client, f"'test.come_again', ({SECONDS}, {other!r})", queue=queue)
    assert SECONDS <= seconds < SECONDS + SLACK


def test_a_message_does_not_expire_early(client: Client) -> None:
    assert come(client, "'test.come_once'", expires=60, queue=AHEAD) < SLACK


def test_a_message_expires_on_time(client: Client) -> None:
    with pytest.raises(RaisedInClient) as raised:
        come(client, "'test.come_once'", countdown=SECONDS, expires=SECONDS / 2, queue=BEHIND)
    assert raised.value.kind == "TaskRevokedError"
