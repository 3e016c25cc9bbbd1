"""Limits of a workflow and of a key in the engine: no branch runs before it has its permits, no run without its key."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from orchestration.engine.finish import RunResult
from orchestration.engine.processor import Fork, RunRequest
from orchestration.errors import PayloadError
from orchestration.state.limits import read_limits
from orchestration.store import sessions
from orchestration.vocabulary import RunStatus, Verdict
from tests.support.stepping import SteppingEngine

ECHO = {"a": {"uses": "core.echo", "with": {"value": 1}}}


@pytest.fixture
def engine(redis_url: str, database_url: str, namespace: str) -> Iterator[SteppingEngine]:
    engine = SteppingEngine(redis_url, database_url, namespace)
    yield engine
    engine.close()


def begin(engine: SteppingEngine, payload: object = None, session: str = "", **limits: Any) -> RunResult | Fork:
    workflow = {"name": "limited", "limits": limits, "actions": ECHO}
    request = RunRequest(session or str(uuid.uuid4()), workflow, payload, "branches")
    return engine.processor.process_workflow_parallel(request)


@pytest.mark.parametrize("payload", [{"customer": None}, {}, {"customer": [1]}])
def test_a_run_without_a_usable_key_is_refused_and_leaves_nothing(engine: SteppingEngine, payload: object) -> None:
    session = str(uuid.uuid4())
    with pytest.raises(PayloadError, match=r"limits\.concurrency_key"):
        begin(engine, payload, session, concurrency_key="${{ payload.customer }}")
    assert sessions.load_session(engine.database, session) is None
    assert not engine.live.is_open(session)


@pytest.mark.parametrize(
    "limits",
    [
        {"max_concurrent_branches_of_workflow": 2},
        {"concurrency_key": "${{ payload.customer }}"},
        {"concurrency_key": "${{ payload.customer }}", "max_concurrent_branches_per_key": 2},
    ],
)
def test_with_such_a_limit_even_the_first_branch_takes_its_permits(
    engine: SteppingEngine, limits: dict[str, Any]
) -> None:
    fork = begin(engine, {"customer": "Ada"}, **limits)
    assert isinstance(fork, Fork), "nothing runs before the session is open"
    assert engine.processor.open_fork(fork, "{}") is Verdict.GO
    found = {report.name: report.limit for report in read_limits(engine.live)}
    assert found.get("workflow:limited") == limits.get("max_concurrent_branches_of_workflow")
    assert found.get("key:Ada") == limits.get("max_concurrent_branches_per_key")
    assert engine.processor.run_fork(fork) is Verdict.ENDED
    assert engine.processor.complete_workflow(fork.row.flow_session_id).output == {"a": 1}


def test_without_one_the_first_branch_runs_at_once(engine: SteppingEngine) -> None:
    assert isinstance(begin(engine, max_concurrent_branches=2), RunResult)


@pytest.mark.parametrize("name", ["global", "workflow:limited", "sessions"])
def test_with_an_operators_limit_even_the_first_branch_takes_its_permits(engine: SteppingEngine, name: str) -> None:
    engine.live.set_limit(name, 3)
    assert isinstance(begin(engine), Fork)


def open_next(engine: SteppingEngine, customer: str, **limits: Any) -> tuple[Fork, Verdict]:
    fork = begin(engine, {"customer": customer}, concurrency_key="${{ payload.customer }}", **limits)
    assert isinstance(fork, Fork)
    return fork, engine.processor.open_fork(fork, f"completion of {fork.row.flow_session_id}")


def status_of(engine: SteppingEngine, fork: Fork) -> sessions.SessionRow:
    engine.updater.drain_all()
    row = sessions.load_session(engine.database, fork.row.flow_session_id)
    assert row is not None
    return row


def test_sessions_above_the_limit_of_their_key_wait_and_keep_no_other_waiting(engine: SteppingEngine) -> None:
    limits = {"max_concurrent_sessions": 2, "max_concurrent_sessions_per_key": 1}
    first, verdict = open_next(engine, "Ada", **limits)
    assert verdict is Verdict.GO
    second, verdict = open_next(engine, "Ada", **limits)
    assert verdict is Verdict.QUEUED
    assert status_of(engine, second).status is RunStatus.QUEUED
    other, verdict = open_next(engine, "Grace", **limits)
    assert verdict is Verdict.GO, "another key"
    third, verdict = open_next(engine, "Edsger", **limits)
    assert verdict is Verdict.QUEUED, "two of the workflow run"
    found = {report.name: (report.limit, report.in_use, report.waiting) for report in read_limits(engine.live)}
    assert found["sessions:key:Ada"] == (1, 1, 1)
    assert found["sessions:workflow:limited"] == (2, 2, 1)
    assert engine.processor.run_fork(other) is Verdict.ENDED
    engine.processor.complete_workflow(other.row.flow_session_id)
    assert status_of(engine, second).status is RunStatus.QUEUED
    assert status_of(engine, third).status is RunStatus.RUNNING
    assert engine.processor.run_fork(first) is Verdict.ENDED
    engine.processor.complete_workflow(first.row.flow_session_id)
    assert status_of(engine, second).status is RunStatus.RUNNING


@pytest.mark.parametrize("dispatch", ["counted", "chord"])
def test_a_session_that_is_not_to_wait_fails_at_once_and_says_why(engine: SteppingEngine, dispatch: str) -> None:
    limits = {"max_concurrent_sessions": 1, "when_full": "reject"}
    _, verdict = open_next(engine, "Ada", **limits)
    assert verdict is Verdict.GO
    workflow = {"name": "limited", "dispatch": dispatch, "limits": limits, "actions": ECHO}
    request = RunRequest(str(uuid.uuid4()), workflow, {}, "branches")
    fork = engine.processor.process_workflow_parallel(request)
    assert isinstance(fork, Fork)
    assert engine.processor.open_fork(fork, "its completion") is Verdict.REJECTED
    assert engine.links.completions == [(request.flow_session_id, "its completion")]
    result = engine.processor.complete_workflow(request.flow_session_id)
    assert result.status == "failed"
    row = status_of(engine, fork)
    assert row.error is not None
    assert "max_concurrent_sessions 1" in row.error
    assert not engine.live.is_open(request.flow_session_id)
    assert engine.processor.process_workflow_parallel(request) == result, "the message comes again"
