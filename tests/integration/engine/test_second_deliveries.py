"""A message may come twice. Whenever it does, nothing that is recorded is done again, and nothing hangs."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestration.definition import load_definition
from orchestration.engine.finish import RunResult
from orchestration.engine.processor import Fork, RunRequest
from orchestration.errors import ServiceUnreachable
from orchestration.registry import load_actions
from orchestration.state.records import Runner
from orchestration.store import sessions, workflows
from orchestration.vocabulary import RunStatus, Verdict
from tests.support.checkpoint import checkpoint
from tests.support.journal import read_journal
from tests.support.stepping import SteppingEngine


def request_of(definition: str | Mapping[str, object]) -> RunRequest:
    return RunRequest(str(uuid.uuid4()), definition, {}, "branches")


def chain(journal: Path, *names: str) -> dict[str, Any]:
    """Actions one after another, each noted in the journal."""
    actions: dict[str, Any] = {}
    for name in names:
        actions[name] = {"uses": "test.record", "with": {"journal": str(journal)}, "needs": list(actions)[-1:]}
    return {"name": "chain", "actions": actions}


def executions(journal: Path) -> list[str]:
    return [task for kind, task, *_ in read_journal(journal) if kind == "start"]


def test_a_linear_run_that_comes_again_goes_on_behind_its_checkpoints(engine: SteppingEngine, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    request = request_of(chain(journal, "a", "b", "c"))
    version = engine.processor.versions.find(request.workflow)
    first = version.plan.branches["a"]
    sessions.insert_session(
        engine.database,
        request.flow_session_id,
        workflow="chain",
        version_id=version.version_id,
        version=1,
        payload="{}",
    )
    runner = engine.processor._runner(request.flow_session_id, "r", "branches")
    for action in first.actions[:2]:  # the process died in the third step
        assert checkpoint(engine.live, runner, None, action.name, b'+"done"')
    fork = engine.processor.process_workflow_parallel(request)
    assert isinstance(fork, Fork)
    assert engine.processor.open_fork(fork, "{}") is Verdict.GO
    assert engine.processor.run_fork(fork) is Verdict.ENDED
    result = engine.processor.complete_workflow(request.flow_session_id)
    assert (result.status, dict(result.counts)) == ("succeeded", {"succeeded": 3})
    assert executions(journal) == ["c"]


def test_the_recorded_version_is_run_and_not_the_newest(engine: SteppingEngine) -> None:
    load_actions(())
    for number in (1, 2):
        definition = load_definition({"name": "v", "actions": {"a": {"uses": "core.echo", "with": {"value": number}}}})
        workflows.register_version(
            engine.database, "v", definition.version_id, definition.to_dict(), publish=number == 1
        )
        if number == 1:
            request = request_of("v")
            version = engine.processor.versions.find("v")
            sessions.insert_session(
                engine.database,
                request.flow_session_id,
                workflow="v",
                version_id=version.version_id,
                version=1,
                payload="{}",
            )
    workflows.register_version(engine.database, "v", definition.version_id, definition.to_dict(), publish=True)
    fork = engine.processor.process_workflow_parallel(request)
    assert isinstance(fork, Fork)
    engine.processor.open_fork(fork, "{}")
    engine.processor.run_fork(fork)
    assert engine.processor.complete_workflow(request.flow_session_id).output == {"a": 1}


def test_a_session_that_was_closed_is_not_opened_again(engine: SteppingEngine, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    definition = chain(journal, "a")
    definition["actions"]["b"] = {"uses": "test.record", "with": {"journal": str(journal)}}
    fork = engine.processor.process_workflow_parallel(request_of(definition))
    assert isinstance(fork, Fork)
    late = replace(fork)  # a second delivery that got as far as the first
    assert engine.processor.open_fork(fork, "{}") is Verdict.GO
    assert engine.processor.run_fork(fork) is Verdict.ENDED
    engine.processor.complete_workflow(fork.request.flow_session_id)
    assert engine.processor.open_fork(late, "{}") is Verdict.GONE
    assert executions(journal) == ["a", "b"]


def test_a_result_that_was_recorded_says_so_when_it_is_asked_for_again(engine: SteppingEngine) -> None:
    request = request_of({"name": "one", "actions": {"a": {"uses": "core.noop"}}})
    first = engine.processor.process_workflow_parallel(request)
    again = engine.processor.process_workflow_parallel(request)
    assert isinstance(first, RunResult)
    assert isinstance(again, RunResult)
    assert (first.recorded_before, again.recorded_before) == (False, True)
    assert first == again


def test_only_the_runner_that_ended_a_session_may_complete_it_again(engine: SteppingEngine, tmp_path: Path) -> None:
    definition = chain(tmp_path / "journal", "a")
    definition["actions"]["b"] = {"uses": "core.noop"}
    fork = engine.processor.process_workflow_parallel(request_of(definition))
    assert isinstance(fork, Fork)
    engine.processor.open_fork(fork, "signature")
    engine.processor.run_fork(fork)
    session = fork.request.flow_session_id
    assert engine.links.completions == [(session, "signature")]
    again = Runner(session, fork.runner.runner, "stepping#1/2", "branches", "stepping#1")
    assert engine.live.start_runner(again, 1000).verdict is Verdict.ENDED
    other = Runner(session, f"{session}.7", "stepping#1/3", "branches", "stepping#1")
    assert engine.live.start_runner(other, 1000).verdict is Verdict.REDUNDANT


def test_an_end_that_can_not_be_recorded_at_once_is_kept_in_redis(
    engine: SteppingEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = tmp_path / "journal"
    request = request_of(chain(journal, "a", "b"))

    def unreachable(*_: object, **__: object) -> None:
        raise ServiceUnreachable("PostgreSQL was cut off at the last moment")

    with monkeypatch.context() as patch:
        patch.setattr(sessions, "finish_session", unreachable)
        fork = engine.processor.process_workflow_parallel(request)
    assert isinstance(fork, Fork)
    session = request.flow_session_id
    assert engine.processor.open_fork(fork, "signature") is Verdict.ENDED
    assert engine.links.completions == [(session, "signature")], "the completion is tried until it can be recorded"
    assert engine.processor.complete_workflow(session).counts == {"succeeded": 2}
    assert executions(journal) == ["a", "b"]


def test_an_error_that_no_json_can_hold_fails_its_task_and_no_more(engine: SteppingEngine) -> None:
    definition = {"name": "s", "actions": {"a": {"uses": "test.surrogate"}}}
    result = engine.run(definition)
    assert result.status == "failed"
    assert result.counts == {"failed": 1}


def test_a_runner_that_can_not_go_on_hands_what_it_held_to_another(engine: SteppingEngine, tmp_path: Path) -> None:
    definition = chain(tmp_path / "journal", "a")
    definition["actions"]["b"] = {"uses": "core.noop"}
    fork = engine.processor.process_workflow_parallel(request_of(definition))
    assert isinstance(fork, Fork)
    engine.processor.open_fork(fork, "{}")
    claimed = engine.live.settle_branch(fork.runner, [], call=1)
    assert claimed.claims
    engine.processor.give_up(fork.runner)
    (publication,) = engine.links.published
    taker = engine.processor._runner(publication.flow_session_id, publication.runner, publication.queue)
    assert engine.live.start_runner(taker, 60_000_000).verdict is Verdict.GO
    attempts = {claim.unit: claim.attempt for claim in engine.live.settle_branch(taker, [], call=1, want=2).claims}
    assert attempts == {"b:a": 2, "b:b": 1}


def test_a_queued_session_that_comes_again_stays_queued(redis_url: str, database_url: str, namespace: str) -> None:
    engine = SteppingEngine(redis_url, database_url, namespace, max_concurrent_workflows=1)
    definition = {"name": "one", "actions": {"a": {"uses": "core.noop"}}}
    forks = [engine.processor.process_workflow_parallel(request_of(definition)) for _ in range(2)]
    verdicts = [engine.processor.open_fork(fork, "{}") for fork in forks if isinstance(fork, Fork)]
    assert verdicts == [Verdict.GO, Verdict.QUEUED]
    again = engine.processor.process_workflow_parallel(forks[1].request)  # type: ignore[union-attr]
    assert isinstance(again, Fork)
    assert again.row.status is RunStatus.QUEUED
    assert engine.processor.open_fork(again, "{}") is Verdict.REDUNDANT
    engine.close()
