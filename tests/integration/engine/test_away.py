"""PostgreSQL is away while a session is open: what can go on goes on, and nothing is held up for it."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from orchestration.engine import processor as processor_module
from orchestration.engine.context import Stores, is_database_away
from orchestration.engine.processor import EnhancedParallelProcessor, Fork, RunRequest
from orchestration.engine.versions import VersionCache
from orchestration.state.patience import Patience
from orchestration.store.pool import Database
from orchestration.vocabulary import Verdict
from tasks.worker.limits import PoolTimeLimit
from tests.integration.store.gate import Gate
from tests.support.journal import read_journal
from tests.support.stepping import SteppingEngine
from tests.support.workflows import record

DAYS_US = 3_600_000_000


def test_a_runner_whose_version_can_not_be_loaded_steps_aside_and_its_session_is_published_again(
    engine: SteppingEngine, database_url: str, journal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processor_module, "STEP_ASIDE_SECONDS", 0.01)
    engine.live.beat_worker("stepping#1", ["branches"], 2, DAYS_US)
    actions = {"a": record(journal), "b": record(journal)}
    request = RunRequest(str(uuid.uuid4()), {"name": "two", "actions": actions}, {}, "branches")
    fork = engine.processor.process_workflow_parallel(request)
    assert isinstance(fork, Fork)
    engine.processor.open_fork(fork, "signature")
    with Gate(database_url) as gate:
        other = Database(gate.url)
        stores = Stores(engine.live, other, patience=Patience(is_database_away, repeats=0))
        elsewhere = EnhancedParallelProcessor(
            engine.settings, stores, VersionCache(other, engine.settings), engine.links, PoolTimeLimit(), "stepping#1"
        )
        gate.close()
        for _ in range(3):
            message = engine.links.published.pop()
            verdict = elsewhere.process_branches_parallel(message.flow_session_id, message.runner, message.queue)
            assert verdict is Verdict.STOP
            assert len(engine.links.published) == 1, "the session wants a runner still"
        gate.open()
        message = engine.links.published.pop()
        elsewhere.process_branches_parallel(message.flow_session_id, message.runner, message.queue)
        other.close()
    assert [task for kind, task, *_ in read_journal(journal) if kind == "end"] == ["a", "b"]
    assert engine.links.completions == [(request.flow_session_id, "signature")]
