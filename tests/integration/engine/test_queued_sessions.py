"""MAX_CONCURRENT_WORKFLOWS: what is above it waits whole, holding nothing, and starts when another has ended."""

from __future__ import annotations

import uuid

from orchestration.engine.processor import Fork, RunRequest
from orchestration.engine.runner import RunnerLoop
from orchestration.store import sessions
from orchestration.vocabulary import RunStatus, Verdict
from tests.support.stepping import SteppingEngine

LINEAR = {"name": "linear", "actions": {"a": {"uses": "core.echo", "with": {"value": "${{ payload.n }}"}}}}


def begin(engine: SteppingEngine, number: int, priority: int = 0) -> Fork:
    request = RunRequest(str(uuid.uuid4()), LINEAR, {"n": number}, "branches", priority)
    fork = engine.processor.process_workflow_parallel(request)
    assert isinstance(fork, Fork), "with a limit of sessions nothing runs before it was admitted"
    return fork


def status_of(engine: SteppingEngine, fork: Fork) -> RunStatus:
    engine.updater.drain_all()
    row = sessions.load_session(engine.database, fork.row.flow_session_id)
    assert row is not None
    return row.status


def finish(engine: SteppingEngine, fork: Fork) -> object:
    assert engine.processor.run_fork(fork) is Verdict.ENDED
    return engine.processor.complete_workflow(fork.row.flow_session_id).output


def test_sessions_above_the_limit_wait_and_start_in_order(redis_url: str, database_url: str, namespace: str) -> None:
    engine = SteppingEngine(redis_url, database_url, namespace, max_concurrent_workflows=1)
    engine.live.beat_worker("w#1", ["branches"], 4, 60_000_000, 0, 1)
    first, second, third, urgent = (begin(engine, number, priority) for number, priority in enumerate([0, 0, 0, 9]))
    assert engine.processor.open_fork(first, "{}") is Verdict.GO
    for fork in (second, third, urgent):
        assert engine.processor.open_fork(fork, "{}") is Verdict.QUEUED
    assert [status_of(engine, fork) for fork in (first, second, third, urgent)] == [
        RunStatus.RUNNING, RunStatus.QUEUED, RunStatus.QUEUED, RunStatus.QUEUED
    ]  # fmt: skip
    snapshot = engine.live.snapshot(second.row.flow_session_id)
    assert snapshot is not None
    assert (snapshot.status, snapshot.in_use) == ("queued", 0)

    assert finish(engine, first) == {"a": 0}
    for fork, number in ((urgent, 3), (second, 1), (third, 2)):
        (publication,) = engine.links.published
        engine.links.published.clear()
        assert publication.flow_session_id == fork.row.flow_session_id
        assert status_of(engine, fork) is RunStatus.RUNNING
        runner = engine.processor._runner(publication.flow_session_id, publication.runner, publication.queue)
        assert engine.live.start_runner(runner, 60_000_000).verdict is Verdict.GO
        branches = engine.processor.spawn_branch_processor(fork.context, runner)
        assert RunnerLoop(fork.context, runner, branches, engine.links).run() is Verdict.ENDED
        assert engine.processor.complete_workflow(fork.row.flow_session_id).output == {"a": number}
    assert engine.links.published == []
    assert engine.live.client.zcard(engine.live.space.key("sessions_running")) == 0
    engine.close()


def test_a_raised_limit_admits_at_the_next_beat_of_any_worker(
    redis_url: str, database_url: str, namespace: str
) -> None:
    engine = SteppingEngine(redis_url, database_url, namespace, max_concurrent_workflows=1)
    engine.live.beat_worker("w#1", ["branches"], 4, 60_000_000, 0, 1)
    first, second = begin(engine, 1), begin(engine, 2)
    assert engine.processor.open_fork(first, "{}") is Verdict.GO
    assert engine.processor.open_fork(second, "{}") is Verdict.QUEUED
    (publication,) = engine.live.beat_worker("w#1", ["branches"], 4, 60_000_000, 0, 2)
    assert publication.flow_session_id == second.row.flow_session_id
    engine.close()
