"""Sessions with a chord, step by step: who publishes it, what its runners are told, when they leave."""

from __future__ import annotations

import threading
import uuid
from pathlib import Path
from typing import Any

import pytest

from orchestration.engine.processor import Fork, RunRequest
from orchestration.errors import SessionClosed, WorkflowExecutionError
from orchestration.vocabulary import Verdict
from tests.support.journal import read_journal
from tests.support.stepping import QUEUE, SteppingEngine
from tests.support.waiting import wait_until
from tests.support.workflows import record


def fork_of(engine: SteppingEngine, definition: dict[str, Any]) -> Fork:
    fork = engine.processor.process_workflow_parallel(RunRequest(str(uuid.uuid4()), definition, {}, QUEUE))
    assert isinstance(fork, Fork)
    return fork


def two(journal: Path, **parts: Any) -> dict[str, Any]:
    """Two actions that need nothing."""
    return {"name": "two", "actions": {"a": record(journal), "b": record(journal)}, **parts}


def come(engine: SteppingEngine, fork: Fork, number: int) -> Verdict:
    session = fork.request.flow_session_id
    return engine.processor.process_branches_parallel(session, f"{session}.{number}", QUEUE, f"message {number}")


def test_the_caller_publishes_the_chord_and_runs_nothing(engine: SteppingEngine, journal: Path) -> None:
    fork = fork_of(engine, two(journal, dispatch="chord"))
    session = fork.request.flow_session_id
    assert engine.processor.open_fork(fork, "signature") is Verdict.CHORD
    assert engine.processor.header_of(session) == 2
    assert (read_journal(journal), engine.links.published) == ([], [])
    assert come(engine, fork, 1) is Verdict.ENDED
    assert engine.links.completions == [], "the chord has its own"
    assert come(engine, fork, 2) is Verdict.REDUNDANT
    assert engine.processor.complete_workflow(session).counts == {"succeeded": 2}
    assert come(engine, fork, 2) is Verdict.GONE


def test_a_session_stays_with_the_dispatcher_that_opened_it(
    redis_url: str, database_url: str, namespace: str, journal: Path
) -> None:
    """The message comes again to a worker that is set otherwise."""
    chord = SteppingEngine(redis_url, database_url, namespace, dispatch="chord", max_concurrent_branches=1)
    counted = SteppingEngine(redis_url, database_url, namespace)
    for first, again in ((chord, counted), (counted, chord)):
        fork = fork_of(first, two(journal))
        opened = first.processor.open_fork(fork, "{}")
        late = again.processor.process_workflow_parallel(fork.request)
        assert isinstance(late, Fork)
        if first is chord:
            assert (opened, again.processor.open_fork(late, "{}")) == (Verdict.CHORD, Verdict.CHORD)
            assert again.processor.header_of(fork.request.flow_session_id) == 1, "as many as the first chord had"
        else:
            assert (opened, again.processor.open_fork(late, "{}")) == (Verdict.GO, Verdict.DUPLICATE)
    chord.close()
    counted.close()


def test_a_definition_that_names_its_dispatcher_wins_over_the_setting(
    redis_url: str, database_url: str, namespace: str, journal: Path
) -> None:
    engine = SteppingEngine(redis_url, database_url, namespace, dispatch="chord")
    verdicts = [
        engine.processor.open_fork(fork_of(engine, two(journal, **parts)), "{}")
        for parts in ({}, {"dispatch": "counted"}, {"dispatch": "chord"})
    ]
    assert verdicts == [Verdict.CHORD, Verdict.GO, Verdict.CHORD]
    engine.close()


def test_without_a_slice_a_runner_leaves_after_one_branch_and_comes_again(
    redis_url: str, database_url: str, namespace: str, journal: Path
) -> None:
    engine = SteppingEngine(redis_url, database_url, namespace, dispatch="chord", runner_slice_seconds=0)
    fork = fork_of(engine, {"name": "each", "actions": {"each": {**record(journal), "for_each": {"range": 4}}}})
    session = fork.request.flow_session_id
    assert engine.processor.open_fork(fork, "{}") is Verdict.CHORD
    for units in range(1, 6):  # the expansion, and four items
        assert come(engine, fork, 1) is Verdict.STOP
        (publication,) = engine.links.published
        engine.links.published.clear()
        assert (publication.runner, publication.message) == (f"{session}.1", "message 1")
        assert len([line for line in read_journal(journal) if line[0] == "end"]) == units - 1
    assert come(engine, fork, 1) is Verdict.ENDED
    engine.close()


def test_without_a_slice_a_runner_that_is_told_to_wait_does_not_leave(
    redis_url: str, database_url: str, namespace: str, journal: Path
) -> None:
    engine = SteppingEngine(redis_url, database_url, namespace, dispatch="chord", runner_slice_seconds=0)
    fork = fork_of(engine, two(journal))
    session = fork.request.flow_session_id
    engine.processor.open_fork(fork, "{}")
    full = engine.live.space.key("status_full")
    engine.live.client.set(full, 1)
    calls = engine.live.space.key("runners", session)
    verdicts: list[Verdict] = []
    runner = threading.Thread(target=lambda: verdicts.append(come(engine, fork, 1)))
    runner.start()
    wait_until(lambda: bool(engine.live.client.hexists(calls, f"{session}.1:call")), "it has asked for work")
    first = engine.live.client.hget(calls, f"{session}.1:call")
    wait_until(lambda: bool(engine.live.client.hget(calls, f"{session}.1:call") != first), "it has asked again")
    assert (engine.links.published, read_journal(journal)) == ([], [])
    engine.live.client.delete(full)
    runner.join(timeout=20)
    assert verdicts == [Verdict.STOP]
    assert [task for kind, task, *_ in read_journal(journal) if kind == "end"] == ["a"]
    engine.close()


def test_a_runner_that_can_not_go_on_is_published_again(
    engine: SteppingEngine, journal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fork = fork_of(engine, two(journal, dispatch="chord"))
    engine.processor.open_fork(fork, "{}")

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("no branch can be run here")

    with monkeypatch.context() as patch:
        patch.setattr(type(engine.processor), "spawn_branch_processor", broken)
        with pytest.raises(RuntimeError, match="no branch"):
            come(engine, fork, 1)
    (publication,) = engine.links.published
    assert publication.message == "message 1"
    assert come(engine, fork, 1) is Verdict.ENDED


def test_a_runner_that_comes_while_its_session_is_closed_finds_it_gone(engine: SteppingEngine, journal: Path) -> None:
    fork = fork_of(engine, two(journal, dispatch="chord"))
    engine.processor.open_fork(fork, "{}")
    engine.live.client.delete(engine.live.space.key("results", fork.request.flow_session_id))
    assert come(engine, fork, 1) is Verdict.GONE


def test_a_body_that_runs_too_early_completes_nothing(engine: SteppingEngine, journal: Path) -> None:
    fork = fork_of(engine, two(journal, dispatch="chord"))
    session = fork.request.flow_session_id
    engine.processor.open_fork(fork, "{}")
    with pytest.raises(WorkflowExecutionError, match="has not ended: 2 to go"):
        engine.processor.complete_workflow(session)
    assert come(engine, fork, 1) is Verdict.ENDED
    assert engine.processor.complete_workflow(session).counts == {"succeeded": 2}
    with pytest.raises(SessionClosed):
        engine.live.ended_counts(session)
    assert engine.processor.complete_workflow(session).recorded_before
