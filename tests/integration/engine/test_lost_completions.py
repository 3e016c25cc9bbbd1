"""Whoever ends a session sends its completion, and sends it again when it comes again: its process may have died."""

from __future__ import annotations

import uuid

from orchestration.engine.processor import Fork, RunRequest
from orchestration.vocabulary import Mode, Verdict
from tests.support.stepping import SteppingEngine


def test_a_runner_that_died_before_it_sent_the_completion_sends_it_when_its_message_comes_again(
    engine: SteppingEngine,
) -> None:
    noop = {"uses": "core.noop"}
    engine.live.beat_worker("stepping#1", ["branches"], 2, 3_600_000_000)
    request = RunRequest(str(uuid.uuid4()), {"name": "two", "actions": {"a": noop, "b": noop}}, {}, "branches")
    fork = engine.processor.process_workflow_parallel(request)
    assert isinstance(fork, Fork)
    engine.processor.open_fork(fork, "signature")
    (message,) = engine.links.published
    assert engine.live.settle_branch(fork.runner, [], call=1, mode=Mode.LEAVE).verdict is Verdict.STOP
    sent = (request.flow_session_id, "signature")
    for delivery in (1, 2):
        verdict = engine.processor.process_branches_parallel(message.flow_session_id, message.runner, message.queue)
        assert verdict is Verdict.ENDED
        assert engine.links.completions == [sent] * delivery
