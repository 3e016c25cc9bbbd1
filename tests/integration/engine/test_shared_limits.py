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
from orchestration.vocabulary import Verdict
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
