"""What a session was when Redis was lost, it is again: tried twice, paused, queued, cancelled, in its first branch."""

from __future__ import annotations

import uuid
from collections import Counter
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestration.definition import load_definition
from orchestration.engine.context import ProcessingContext
from orchestration.engine.finish import RunResult, end_session
from orchestration.engine.inline import InlineRun
from orchestration.engine.processor import Fork, RunRequest
from orchestration.errors import SessionClosed, StaleClaim
from orchestration.plan import compile_plan
from orchestration.state.rows import encode_rows
from orchestration.state.stream import StatusStream
from orchestration.store import recovery, sessions, workflows
from orchestration.vocabulary import RunStatus, Verdict
from tasks.rehydration import GIVE_SECONDS, TAKE_UP_SECONDS, Rehydration
from tests.support.journal import read_journal
from tests.support.stepping import QUEUE, SteppingEngine


class RedisLost(Exception):
    """Raised between two steps."""


def starts(journal: Path) -> Counter[str]:
    return Counter(task for kind, task, *_ in read_journal(journal) if kind == "start")


def record(journal: Path, *needs: str, **inputs: object) -> dict[str, Any]:
    return {"uses": "test.record", "needs": list(needs), "with": {"journal": str(journal), **inputs}}


def run_until(engine: SteppingEngine, workflow: dict[str, Any], settled: str, alone: int = 1) -> str:
    """Run until PostgreSQL has a row with an end, or a wait, of the action, then lose Redis; returns the session."""
    session = ""

    def check(context: ProcessingContext) -> None:
        nonlocal session
        session = context.flow_session_id
        engine.updater.drain_all()
        rows = engine.database.fetch(
            "SELECT 1 FROM tasks WHERE flow_session_id = %s AND action = %s AND status <> 'running'", (session, settled)
        )
        if rows:
            raise RedisLost

    with pytest.raises(RedisLost):
        engine.run(workflow, check=check, alone=alone)
    engine.lose_redis()
    return session


def fork_of(engine: SteppingEngine, session: str) -> Fork:
    fork = engine.processor.take_up(RunRequest(session, "", None, QUEUE))
    assert isinstance(fork, Fork)
    return fork


def test_a_step_that_waits_for_its_second_attempt_has_had_one(engine: SteppingEngine, journal: Path) -> None:
    flaky = {
        "uses": "test.fail_first", "needs": ["a"], "with": {"journal": str(journal), "times": 2},
        "retry": {"max_attempts": 3, "delay_seconds": 0.01},
    }  # fmt: skip
    actions = {"a": record(journal), "b": record(journal, "a"), "flaky": flaky}
    session = run_until(engine, {"name": "retried", "actions": actions}, "flaky")
    result = engine.take_up(session)
    assert (result.status, starts(journal)["flaky"]) == ("succeeded", 3)
    (row,) = engine.database.fetch(
        "SELECT attempt, status FROM tasks WHERE flow_session_id = %s AND action = 'flaky'", (session,)
    )
    assert row == (3, "succeeded")


def test_an_item_that_waits_for_its_second_attempt_has_had_one(engine: SteppingEngine, journal: Path) -> None:
    flaky = {
        "uses": "test.fail_first", "for_each": [0, 2, 0], "with": {"journal": str(journal), "times": "${{ item }}"},
        "retry": {"max_attempts": 3, "delay_seconds": 0.01},
    }  # fmt: skip
    session = run_until(engine, {"name": "items", "actions": {"flaky": flaky}}, "flaky", alone=0)
    result = engine.take_up(session)
    assert (result.status, starts(journal)["flaky:1"]) == ("succeeded", 3)
    assert engine.database.fetch(
        "SELECT item, attempt FROM tasks WHERE flow_session_id = %s AND item >= 0 ORDER BY item", (session,)
    ) == [(0, 1), (1, 3), (2, 1)]


def test_steps_behind_a_checkpoint_go_on_and_results_are_there(engine: SteppingEngine, journal: Path) -> None:
    """A large result is read from where it was put; those of items too; a null is one."""
    large = {"uses": "test.large", "needs": ["a"], "with": {"size_bytes": 300_000}}
    actions = {
        "a": record(journal), "large": large, "null": {"uses": "core.noop", "needs": ["a"]},
        "each": {**record(journal, "a"), "for_each": {"range": 3}},
        "last": record(journal, "large", "null", "each"), "end": record(journal, "last"),
    }  # fmt: skip
    output = {
        "size": "${{ size(tasks.large.result) }}", "null": "${{ tasks.null.result }}",
        "each": "${{ tasks.each.result }}", "end": "${{ tasks.end.result }}",
    }  # fmt: skip
    session = run_until(engine, {"name": "large", "actions": actions, "output": output}, "last")
    result = engine.take_up(session)
    expected = {"size": 300_000, "null": None, "each": ["each:0", "each:1", "each:2"], "end": "end"}
    assert (result.status, result.output) == ("succeeded", expected)
    assert set(starts(journal).values()) == {1}


def test_a_session_that_was_cancelled_ends_as_cancelled(engine: SteppingEngine, journal: Path) -> None:
    actions = {"a": record(journal), "b": record(journal, "a"), "c": record(journal, "a")}
    session = run_until(engine, {"name": "cancelled", "actions": actions}, "b")
    row = sessions.load_session(engine.database, session)
    assert row is not None
    recovery.note_cancelled(engine.database, session, row.session_day)
    result = engine.take_up(session)
    assert (result.status, dict(result.counts)) == ("cancelled", {"succeeded": 2, "cancelled": 1})
    assert starts(journal)["c"] == 0


def test_a_session_that_was_paused_is_paused(engine: SteppingEngine, journal: Path) -> None:
    actions = {"a": record(journal), "b": record(journal, "a"), "c": record(journal, "a")}
    session = run_until(engine, {"name": "paused", "actions": actions}, "b")
    row = sessions.load_session(engine.database, session)
    assert row is not None
    sessions.set_status(engine.database, session, row.session_day, [RunStatus.RUNNING], RunStatus.PAUSED)
    engine.database.execute("UPDATE flow_sessions SET sequence = 7 WHERE flow_session_id = %s RETURNING 1", (session,))
    fork = fork_of(engine, session)
    assert engine.processor.open_fork(fork, "{}") is Verdict.GO
    assert engine.processor.run_fork(fork) is Verdict.STOP
    snapshot = engine.live.snapshot(session)
    assert snapshot is not None
    assert (snapshot.status, set(snapshot.paused)) == ("paused", {"session"})
    found, publications = engine.live.resume_sessions("session", [session])
    assert found == ["resumed"]
    engine.updater.drain_all()
    row = sessions.load_session(engine.database, session)
    assert row is not None
    assert row.status is RunStatus.RUNNING, "statuses go on counting where PostgreSQL is"
    assert [publication.flow_session_id for publication in publications] == [session]
    assert int(publications[0].runner.rpartition(".")[2]) > 1_000_000, "no runner of the former life has this number"


def test_above_a_limit_of_sessions_what_was_done_is_kept(
    redis_url: str, database_url: str, namespace: str, journal: Path
) -> None:
    engine = SteppingEngine(redis_url, database_url, namespace, max_concurrent_workflows=1)
    try:
        actions = {"a": record(journal), "b": record(journal, "a"), "c": record(journal, "a")}
        session = run_until(engine, {"name": "queued", "actions": actions}, "b", alone=0)
        other = engine.processor.process_workflow_parallel(
            RunRequest(f"{session}-2", {"name": "other", "actions": {"x": record(journal)}}, None, QUEUE)
        )
        assert isinstance(other, Fork)
        assert engine.processor.open_fork(other, "{}") is Verdict.GO
        fork = fork_of(engine, session)
        assert engine.processor.open_fork(fork, "{}") is Verdict.QUEUED
        engine.live.cancel_session(f"{session}-2")
        engine.live.close_session(f"{session}-2")
        snapshot = engine.live.snapshot(session)
        assert snapshot is not None
        assert (snapshot.status, snapshot.open_branches, snapshot.ready) == ("running", 1, 1)
    finally:
        engine.close()


def test_a_session_whose_completion_was_lost_is_completed(engine: SteppingEngine, journal: Path) -> None:
    fork = engine.forking.process_workflow_parallel(
        RunRequest(
            "11111111-1111-4111-8111-111111111111", {"name": "done", "actions": {"a": record(journal)}}, None, QUEUE
        )
    )
    assert isinstance(fork, Fork)
    inline = InlineRun(fork.context, engine.processor.spawn_branch_processor(fork.context, fork.runner), QUEUE)
    inline.run_first_branch()
    rows = [row for settlement in inline.settlements for row in settlement.rows]
    session = fork.request.flow_session_id
    assert engine.live.record_rows(session, fork.context.day, "w", encode_rows(rows), alone=True)
    engine.updater.drain_all()
    engine.lose_redis()
    result = engine.take_up(session)
    assert (result.status, result.output, starts(journal)["a"]) == ("succeeded", {"a": "a"}, 1)


def test_a_first_branch_that_was_taken_for_dead_settles_nothing(engine: SteppingEngine, journal: Path) -> None:
    """It comes when the session has been rebuilt: its checkpoint and its end are refused."""
    actions = {"a": record(journal), "b": record(journal, "a")}
    session = "22222222-2222-4222-8222-222222222222"
    late = engine.forking.process_workflow_parallel(
        RunRequest(session, {"name": "late", "actions": actions}, None, QUEUE)
    )
    assert isinstance(late, Fork)
    fork = fork_of(engine, session)
    assert engine.processor.open_fork(fork, "{}") is Verdict.GO
    inline = InlineRun(late.context, engine.processor.spawn_branch_processor(late.context, late.runner), QUEUE)
    with pytest.raises(StaleClaim):
        inline.run_first_branch()
    inline.counts = {"succeeded": 2}
    assert engine.processor._end_inline(late, inline) is late
    assert engine.processor.open_fork(late, "{}") is Verdict.DUPLICATE
    assert engine.processor.run_fork(replace(fork, leaves=False)) is Verdict.ENDED
    result = engine.processor.complete_workflow(session)
    assert isinstance(result, RunResult)
    assert result.status == "succeeded"


def test_a_runner_of_the_former_life_settles_nothing(engine: SteppingEngine, journal: Path) -> None:
    actions = {"a": record(journal), "b": record(journal, "a"), "c": record(journal, "a")}
    session = "33333333-3333-4333-8333-333333333333"
    workflow = {"name": "former", "actions": actions}
    former = engine.forking.process_workflow_parallel(RunRequest(session, workflow, None, QUEUE))
    assert isinstance(former, Fork)
    assert engine.processor.open_fork(former, "{}") is Verdict.GO
    claimed = engine.live.settle_branch(former.runner, [], call=1)
    branches = engine.processor.spawn_branch_processor(former.context, former.runner)
    engine.lose_redis()
    fork = fork_of(engine, session)
    assert engine.processor.open_fork(fork, "{}") is Verdict.GO
    settlement = branches.process_task_and_branches_parallel(claimed.claims[0])
    assert engine.live.settle_branch(former.runner, [settlement], call=2).verdict is Verdict.LOST
    snapshot = engine.live.snapshot(session)
    assert snapshot is not None
    assert (snapshot.open_branches, snapshot.in_use, snapshot.ready) == (3, 0, 1)


def test_a_completion_that_redis_loses_half_way_records_nothing(engine: SteppingEngine, journal: Path) -> None:
    """Its results are gone when they are read: that is no failure of the run, which is taken up again."""
    session = "44444444-4444-4444-8444-444444444444"
    workflow = {"name": "half", "actions": {"a": record(journal)}, "output": "${{ tasks.a.result }}"}
    fork = engine.forking.process_workflow_parallel(RunRequest(session, workflow, None, QUEUE))
    assert isinstance(fork, Fork)
    context = engine.processor._fork(
        fork.request, engine.processor.versions.load(fork.row.version_id), fork.row, {}, ""
    )
    with pytest.raises(SessionClosed):
        end_session(context.context, fork.row, {"succeeded": 1}, failed=False, is_open=True)
    row = sessions.load_session(engine.database, session)
    assert row is not None
    assert row.status is RunStatus.RUNNING
    assert engine.take_up(session).output == "a"


def test_an_epoch_begins_once(engine: SteppingEngine) -> None:
    space = engine.live.space.namespace
    assert recovery.load_epoch(engine.database, space).number == 0
    assert recovery.begin_epoch(engine.database, space, 0, 1).number == 1
    assert recovery.begin_epoch(engine.database, space, 0, 1).number == 1
    assert recovery.begin_epoch(engine.database, space, 1, 2).number == 2
    engine.live.begin_epoch(2)
    engine.live.begin_epoch(1)
    assert engine.live.epoch() == 2


def test_who_held_a_session_in_a_former_epoch_is_forgotten(engine: SteppingEngine) -> None:
    """It was taken up, opened by whoever had it all the while, and dropped: Redis came back with an older state."""
    lost, minutes = [("session", QUEUE)], 300_000_000
    engine.live.begin_epoch(1)
    assert engine.live.take_up_sessions(1, lost, minutes) == ["session"]
    engine.live.begin_epoch(1)
    assert engine.live.take_up_sessions(1, lost, minutes) == []
    engine.live.begin_epoch(2)
    assert engine.live.take_up_sessions(2, lost, minutes) == ["session"]


def test_redis_that_has_gone_back_begins_one_epoch_for_all(engine: SteppingEngine, redis_url: str) -> None:
    """Each upkeep process sees that it has; whoever sees it when another one has begun an epoch begins none."""

    def nothing(*_: object) -> None:
        return

    with closing(StatusStream(redis_url, engine.live.space.namespace)) as stream:
        both = [Rehydration(engine.live, engine.database, stream, 0.0, nothing, nothing) for _ in range(2)]
        for rehydration in [*both, *both]:
            rehydration.look()
            rehydration.tick()
        assert engine.live.epoch() == 1
        engine.live.client.set(engine.live.space.key("ticks"), 1)
        both[0].tick()
        both[0].look()
        assert engine.live.epoch() == 2
        both[1].look()
        both[1].tick()
        for rehydration in [*both, *both]:
            rehydration.look()
        assert engine.live.epoch() == 2
        engine.live.client.set(engine.live.space.key("ticks"), 1)
        both[1].tick()
        both[1].look()
        assert engine.live.epoch() == 3


def accept_and_lose(engine: SteppingEngine, journal: Path) -> str:
    """A session that was accepted, and whose message is gone; a worker serves its queue."""
    session = str(uuid.uuid4())
    definition = load_definition({"name": "given", "actions": {"a": record(journal)}})
    version_id = compile_plan(definition).version_id
    version = workflows.register_version(
        engine.database, definition.name, version_id, definition.to_dict(), publish=False
    )
    sessions.insert_session(
        engine.database, session, workflow="given", version_id=version_id, version=version.number, payload="{}",
        celery_task_id=session, call=f'{{"namespace": "{engine.live.space.namespace}", "queue": "{QUEUE}"}}',
    )  # fmt: skip
    engine.live.beat_worker("w#1", [QUEUE], 1, 60_000_000)
    return session


def test_a_session_that_could_not_be_published_is_published_with_the_next_look(
    engine: SteppingEngine, redis_url: str, journal: Path
) -> None:
    """Its broker was away; it was given to this process, and another one always looks before it."""
    session, sent = accept_and_lose(engine, journal), list[str]()

    def publish(flow_session_id: str, *_: object) -> None:
        sent.append(flow_session_id)
        if len(sent) == 1:
            raise ConnectionError("the broker is away")

    with closing(StatusStream(redis_url, engine.live.space.namespace)) as stream:
        rehydration = Rehydration(engine.live, engine.database, stream, 0.0, publish, lambda _: None)
        rehydration.look()
        with pytest.raises(ConnectionError):
            rehydration.look()
        assert engine.live.client.exists(engine.live.space.key("looking")), "it is not its turn to look"
        assert rehydration.look() == 1
    assert sent == [session, session]


def test_who_was_given_a_session_and_died_keeps_it_for_seconds_and_who_published_it_for_minutes(
    engine: SteppingEngine, redis_url: str, journal: Path
) -> None:
    session, sent = accept_and_lose(engine, journal), list[str]()
    key = engine.live.space.key("held_sessions")

    def seconds_left() -> float:
        until = engine.live.client.zscore(key, session)
        assert until is not None
        return (float(until) - engine.live.now_us()) / 1e6

    def publish(flow_session_id: str, *_: object) -> None:
        assert 0 < seconds_left() <= GIVE_SECONDS, "should this process die now"
        sent.append(flow_session_id)

    with closing(StatusStream(redis_url, engine.live.space.namespace)) as stream:
        rehydration = Rehydration(engine.live, engine.database, stream, 0.0, publish, lambda _: None)
        rehydration.look()
        assert rehydration.look() == 1
    assert sent == [session]
    assert TAKE_UP_SECONDS - 10 < seconds_left() <= TAKE_UP_SECONDS
