"""Whoever ends a session sends its completion, and sends it again when it comes again: its process may have died."""

from __future__ import annotations

import uuid
from contextlib import closing

import pytest

from orchestration.engine.processor import Fork, RunRequest
from orchestration.store.pool import Database
from orchestration.vocabulary import Mode, Verdict
from parallelizer.services.checks import Grade, check_repairs
from tasks.reaper import LEASE_SECONDS, Reaper
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


def lose_completion(engine: SteppingEngine) -> str:
    """A session that has ended some time ago, and whose completion nobody has."""
    noop = {"uses": "core.noop"}
    request = RunRequest(str(uuid.uuid4()), {"name": "two", "actions": {"a": noop, "b": noop}}, {}, "branches")
    fork = engine.processor.process_workflow_parallel(request)
    assert isinstance(fork, Fork)
    engine.processor.open_fork(fork, "signature")
    assert engine.processor.run_fork(fork) is Verdict.ENDED
    engine.links.published.clear()
    session = request.flow_session_id
    engine.live.client.hincrby(engine.live.space.key("session", session), "ended", -11_000_000)
    return session


def test_the_reaper_publishes_a_completion_that_was_lost_and_says_so(
    engine: SteppingEngine, caplog: pytest.LogCaptureFixture
) -> None:
    session = lose_completion(engine)
    reaper = Reaper(engine.live, engine.database, "stepping#1", engine.links.publish_runners)
    for _ in range(3):
        reaper.reap_sessions()
    (publication,) = engine.links.published
    assert (publication.flow_session_id, publication.runner, publication.message) == (session, "", "signature")
    (said,) = (record.getMessage() for record in caplog.records if record.name == "tasks.reaper")
    assert said.startswith(f"{session}: it has ended and was not completed; its completion is published again")
    assert engine.processor.complete_workflow(session).counts == {"succeeded": 2}
    (finding,) = check_repairs(engine.settings.redis_url or "", engine.settings.namespace)
    assert (finding.grade, finding.message) == (Grade.OK, "done by cause: completion 1")


def test_the_reaper_leaves_completions_alone_while_postgresql_is_away(engine: SteppingEngine) -> None:
    lose_completion(engine)
    with closing(Database("postgresql://nobody@127.0.0.1:1/nothing")) as away:
        reaper = Reaper(engine.live, away, "stepping#1", engine.links.publish_runners)
        for _ in range(3):
            reaper.reap_sessions()
    assert engine.links.published == []
    assert engine.live.client.pttl(engine.live.space.key("reaper")) > LEASE_SECONDS * 900, "it is the reaper still"


def test_the_doctor_says_that_nothing_had_to_be_repaired(engine: SteppingEngine) -> None:
    (finding,) = check_repairs(engine.settings.redis_url or "", engine.settings.namespace)
    assert finding.message == "nothing had to be repaired"
