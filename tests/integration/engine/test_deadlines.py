"""Deadlines in the engine: from when a run was accepted, however often its message comes; what waits too long."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from orchestration.engine import control
from orchestration.engine.processor import Fork, RunRequest
from orchestration.state.live import LiveState
from orchestration.vocabulary import Publication, Verdict
from tests.support.stepping import SteppingEngine

ECHO = {"a": {"uses": "core.echo", "with": {"value": 1}}}


@pytest.fixture
def engine(redis_url: str, database_url: str, namespace: str) -> Iterator[SteppingEngine]:
    engine = SteppingEngine(redis_url, database_url, namespace)
    yield engine
    engine.close()


def request_of(**limits: Any) -> RunRequest:
    return RunRequest(str(uuid.uuid4()), {"name": "due", "limits": limits, "actions": ECHO}, {}, "branches")


def begin(engine: SteppingEngine, request: RunRequest) -> Fork:
    fork = engine.processor.process_workflow_parallel(request)
    assert isinstance(fork, Fork), "nothing runs before the session is open"
    return fork


def age(engine: SteppingEngine, session: str, seconds: float) -> None:
    """The session was accepted so much earlier."""
    statement = (
        "UPDATE flow_sessions SET created_at = created_at - make_interval(secs => %s) WHERE flow_session_id = %s"
        " RETURNING 1"
    )
    assert engine.database.execute(statement, (seconds, session))


def make_due(live: LiveState, session: str) -> None:
    """What is to be ended of the session at some time is to be ended now."""
    assert live.client.zadd(live.space.key("due"), {session: 1}, xx=True, ch=True)


def completions(publications: tuple[Publication, ...]) -> list[str]:
    return [publication.message for publication in publications if not publication.runner]


def test_a_message_that_comes_again_does_not_put_the_deadline_off(engine: SteppingEngine) -> None:
    request = request_of(deadline_seconds=100)
    begin(engine, request)  # its process dies before the session is open
    age(engine, request.flow_session_id, 1000)
    fork = begin(engine, request)
    assert engine.processor.open_fork(fork, "its completion") is Verdict.GO
    assert engine.processor.run_fork(fork) is Verdict.STOP, "nothing of it begins"
    publications, _, _ = engine.live.wake_sessions()
    assert completions(publications) == ["its completion"]
    result = engine.processor.complete_workflow(request.flow_session_id)
    assert (result.status, result.counts) == ("timed_out", {"cancelled": 1})


def test_a_completion_that_is_lost_is_published_again_until_the_session_is_closed(engine: SteppingEngine) -> None:
    request = request_of(deadline_seconds=100)
    fork = begin(engine, request)
    session = request.flow_session_id
    assert engine.processor.open_fork(fork, "its completion") is Verdict.GO
    make_due(engine.live, session)
    assert completions(engine.live.wake_sessions()[0]) == [], "its deadline has not passed"
    engine.live.client.hset(engine.live.space.key("session", session), "deadline", 1)
    make_due(engine.live, session)
    assert completions(engine.live.wake_sessions()[0]) == ["its completion"]
    assert engine.live.reap_sessions("stepping#1", 60_000_000).publications == (), "not before some seconds have passed"
    engine.live.client.hincrby(engine.live.space.key("session", session), "ended", -11_000_000)
    assert completions(engine.live.reap_sessions("stepping#1", 60_000_000).publications) == ["its completion"]
    assert engine.processor.complete_workflow(session).status == "timed_out"
    assert engine.live.wake_sessions()[1] is None


def test_cancelling_a_run_whose_deadline_has_passed_says_so(engine: SteppingEngine) -> None:
    request = request_of(deadline_seconds=100)
    session, live = request.flow_session_id, engine.live
    assert engine.processor.open_fork(begin(engine, request), "its completion") is Verdict.GO
    live.client.hset(live.space.key("session", session), "deadline", 1)
    make_due(live, session)
    live.wake_sessions()
    answer = control.cancel_session(engine.database, live, engine.links.publish_runners, session)
    assert answer.found is control.Found.ENDED
    assert "at its deadline" in answer.message
    assert engine.processor.complete_workflow(session).status == "timed_out"


def test_without_a_deadline_the_first_branch_runs_at_once(engine: SteppingEngine) -> None:
    assert not isinstance(engine.processor.process_workflow_parallel(request_of()), Fork)


def test_a_branch_of_a_paused_run_is_not_overdue_and_waits_anew_when_that_is_resumed(engine: SteppingEngine) -> None:
    request = request_of(max_wait_seconds=100)
    fork = begin(engine, request)
    session, live = request.flow_session_id, engine.live
    assert engine.processor.open_fork(fork, "its completion") is Verdict.GO
    fields, ready = live.space.key("session", session), live.space.key("ready", session, "branches")

    def overdue() -> list[str]:
        make_due(live, session)
        return [found.claim.unit for found in live.wake_sessions()[2]]

    assert overdue() == []
    live.client.zincrby(ready, -101_000_000, "b:a|1|1|0")
    live.client.hincrby(fields, "began", -101_000_000)
    live.pause_sessions("session", [session])
    assert overdue() == []
    live.resume_sessions("session", [session])
    assert overdue() == []
    live.client.hincrby(fields, "began", -101_000_000)
    assert overdue() == ["b:a"]
