"""A whole worker is lost between the end of a run and its completion; its messages come again after its lease."""

from __future__ import annotations

from tests.support.clients import running_client
from tests.support.fleet import Fleet
from tests.support.records import Records
from tests.support.waiting import wait_until
from tests.support.workflows import ends_by

ACTION_MODULES = "tests.support.completion_faults"
QUEUE = "two"


def test_a_host_that_is_lost_between_the_end_and_its_completion_is_made_up_for(fleet: Fleet) -> None:
    (lost,) = fleet.start(1, concurrency=1, queues=(QUEUE,), ACTION_MODULES=ACTION_MODULES, LEASE_SECONDS="3")
    with running_client(fleet) as client:
        code = "result = send(workflow).apply_async(queue='two').id"
        session = client.run(code, workflow=ends_by("test.lose_host", queue=QUEUE))
        assert lost.process is not None
        wait_until(lambda: lost.process.poll() is not None, "the worker is gone")  # type: ignore[union-attr]
        fleet.start(1, concurrency=1, queues=(QUEUE,), ACTION_MODULES=ACTION_MODULES, LEASE_SECONDS="3")
        result = client.run("result = AsyncResult(session).get(timeout=60)", session=session)
    assert result["counts"] == {"succeeded": 5}
    Records(fleet).wait_nothing_live()
