"""Checkpoints of the steps of a branch: waited for when they must be there, and not otherwise."""

from __future__ import annotations

import uuid
from dataclasses import replace

import pytest

from orchestration import action
from orchestration.engine.processor import Fork, RunRequest
from orchestration.state.live import LiveState
from orchestration.vocabulary import Verdict
from tests.support.stepping import SteppingEngine

_watched: list[LiveState] = []
_unanswered: list[int] = []


@action("tests.unanswered")
def unanswered() -> None:
    """Note how many checkpoints are without an answer while a step runs."""
    _unanswered.append(len(_watched[-1].scripts._due))


@pytest.mark.parametrize(("attempt", "expected"), [(1, [0, 0, 1, 2]), (2, [0, 0, 0, 0])])
def test_only_after_a_crash_a_step_waits_until_the_one_before_it_is_kept(
    engine: SteppingEngine, attempt: int, expected: list[int]
) -> None:
    """The first checkpoint of a connection is waited for in any case."""
    _watched.append(engine.live)
    _unanswered.clear()
    step = {"uses": "tests.unanswered"}
    actions = {f"s{n}": {**step, "needs": [f"s{n - 1}"] if n else []} for n in range(4)}
    request = RunRequest(str(uuid.uuid4()), {"name": "chain", "actions": actions}, {}, "branches")
    fork = engine.forking.process_workflow_parallel(request)
    assert isinstance(fork, Fork)
    assert engine.processor.open_fork(replace(fork, attempt=attempt), "{}") is Verdict.GO
    assert engine.processor.run_fork(fork) is Verdict.ENDED
    assert _unanswered == expected
