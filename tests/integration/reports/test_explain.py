"""`explain` names the true cause in situations that need an exact moment of live state, made by the real scripts."""

from __future__ import annotations

import re
import socket
import uuid
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import psycopg2
import pytest

from orchestration.engine.processor import Fork, RunRequest
from orchestration.reports.explain import Cause, CauseCode, Explanation, explain_run
from orchestration.state.client import is_away
from orchestration.state.holding import Holding
from orchestration.state.live import LiveState
from orchestration.state.patience import Patience
from orchestration.state.stream import StatusStream
from orchestration.store.pool import Database
from orchestration.vocabulary import Claim, Verdict
from tests.support.stepping import SteppingEngine

ECHO = {"uses": "core.echo", "with": {"value": 1}}
LEASE_US = 3_600_000_000
WORKER = "stepping#1"


@pytest.fixture
def engine(redis_url: str, database_url: str, namespace: str) -> Iterator[SteppingEngine]:
    stepping = SteppingEngine(redis_url, database_url, namespace)
    stepping.live.beat_worker(WORKER, ["branches"], 3, LEASE_US)
    yield stepping
    stepping.close()


def accept(engine: SteppingEngine, actions: dict[str, Any], **limits: Any) -> Fork:
    """A run that is recorded, and has no live state yet."""
    workflow = {"name": "staged", "limits": limits, "actions": actions}
    fork = engine.forking.process_workflow_parallel(RunRequest(str(uuid.uuid4()), workflow, {}, "branches"))
    assert isinstance(fork, Fork)
    return fork


def begin(engine: SteppingEngine, actions: dict[str, Any], **limits: Any) -> Fork:
    """A run that is open, with the caller as its first runner."""
    fork = accept(engine, actions, **limits)
    assert engine.processor.open_fork(fork, "signature") is Verdict.GO
    return fork


def claim(engine: SteppingEngine, fork: Fork, call: int = 1) -> Claim:
    """What its first runner claims."""
    (claimed,) = engine.live.settle_branch(fork.runner, [], call=call).claims
    return claimed


def explain(engine: SteppingEngine, fork: Fork, action: str | None = None) -> Explanation:
    return explain_run(engine.database, engine.live, fork.request.flow_session_id, action)


def named(found: Explanation, code: CauseCode) -> Cause:
    (cause,) = [one for one in found.causes if one.code is code]
    return cause


def test_runners_are_on_their_way(engine: SteppingEngine) -> None:
    fork = begin(engine, {"a": ECHO, "b": ECHO, "c": ECHO})
    taken = claim(engine, fork).name
    waits = next(name for name in "abc" if name != taken)
    cause = explain(engine, fork, waits).causes[0]
    assert cause.code is CauseCode.RUNNER_COMING
    assert f"{waits} waits for 2 runners of it on the way to a worker of the queue branches" in cause.sentence
    assert cause.details["coming"] == 2


def test_all_has_settled_and_its_end_is_not_recorded(engine: SteppingEngine) -> None:
    fork = begin(engine, {"a": ECHO, "b": ECHO})
    assert engine.processor.run_fork(fork) is Verdict.ENDED
    engine.live.client.hincrby(engine.live.space.key("session", fork.request.flow_session_id), "ended", -7_000_000)
    cause = named(explain(engine, fork), CauseCode.COMPLETION)
    assert re.fullmatch(r"all its branches have settled [\d.]+ s ago; its end is about to be recorded", cause.sentence)
    assert 7 <= cause.details["ended_seconds"] < 60
    assert cause.details["published_again"] == 0


def test_it_was_cancelled_and_something_is_still_at_work(engine: SteppingEngine) -> None:
    fork = begin(engine, {"a": ECHO, "b": ECHO})
    claim(engine, fork)
    engine.live.cancel_session(fork.request.flow_session_id)
    found = explain(engine, fork)
    cause = named(found, CauseCode.CANCELLING)
    assert (cause.details["why"], cause.details["at_work"]) == ("asked", 1)
    assert found.status == "cancelled"


def test_the_process_that_ran_it_died(engine: SteppingEngine) -> None:
    fork = begin(engine, {"a": ECHO, "b": ECHO})
    name = claim(engine, fork).name
    session = fork.request.flow_session_id
    engine.live.expire_runner(session, fork.runner.runner, "branches", WORKER, death="by signal 9 (SIGKILL)")
    cause = named(explain(engine, fork, name), CauseCode.PROCESS_DIED)
    assert cause.sentence == f"{name} is to run again, attempt 2: the process that ran it died by signal 9 (SIGKILL)"
    assert (cause.details["attempt"], cause.details["crashes"]) == (2, 1)


def test_its_message_was_lost(engine: SteppingEngine, redis_url: str, database_url: str, namespace: str) -> None:
    fork = accept(engine, {"a": ECHO, "b": {**ECHO, "needs": ["a"]}})
    session = fork.request.flow_session_id
    assert named(explain(engine, fork), CauseCode.FIRST_BRANCH).tasks == ("a",), "it has just been accepted"
    with closing(psycopg2.connect(database_url)) as connection, connection, connection.cursor() as cursor:
        cursor.execute(
            "UPDATE flow_sessions SET created_at = created_at - interval '2 hours' WHERE flow_session_id = %s",
            (session,),
        )
    lost = named(explain(engine, fork), CauseCode.LOST)
    assert lost.details["workers"] == 1
    assert "a worker takes it up again" in lost.sentence
    Holding(redis_url, namespace, WORKER, 30.0).hold([session], [], 60_000_000)
    assert named(explain(engine, fork, "a"), CauseCode.FIRST_BRANCH)
    engine.live.stop_worker(WORKER)
    nobody = named(explain(engine, fork, "b"), CauseCode.LOST)
    assert "no worker is alive to take it up again" in nobody.sentence


def test_the_status_channel_is_full(engine: SteppingEngine, redis_url: str, namespace: str) -> None:
    fork = begin(engine, {"a": ECHO, "b": ECHO})
    with closing(StatusStream(redis_url, namespace)) as stream:
        for _ in range(20):
            stream.append([("b", "x" * 1000)])
        assert stream.bound(5_000) > 5_000
    assert engine.live.client.persist(engine.live.space.key("status_full")), "for as long as the test takes"
    assert engine.live.settle_branch(fork.runner, [], call=1).verdict is Verdict.WAIT
    cause = named(explain(engine, fork, "a"), CauseCode.STATUS_CHANNEL_FULL)
    assert cause.details["entries"] >= 20
    assert "updates have not reached PostgreSQL" in cause.sentence


def test_a_permit_is_kept_for_another_queue(engine: SteppingEngine) -> None:
    live = engine.live
    live.beat_worker("gpu#1", ["gpu"], 1, LEASE_US)
    busy = begin(engine, {"x": {**ECHO, "queue": "gpu"}, "y": ECHO}, max_concurrent_branches=2)
    claim(engine, busy)
    fork = begin(engine, {"a": ECHO, "b": ECHO, "train": {**ECHO, "queue": "gpu"}}, max_concurrent_branches=1)
    session = fork.request.flow_session_id
    for member in live.client.zrange(live.space.key("ready", session, "gpu"), 0, -1):
        live.client.zincrby(live.space.key("ready", session, "gpu"), -11_000_000, member)
    live.client.hset(live.space.key("session", session), "turn", "gpu")
    cause = named(explain(engine, fork, "a"), CauseCode.TURN)
    assert cause.details["turn"] == "gpu"
    assert "one is kept for the queue gpu, whose work has waited longer" in cause.sentence


def test_its_worker_is_silent_and_nobody_is_there_to_notice(engine: SteppingEngine) -> None:
    fork = begin(engine, {"a": ECHO, "b": ECHO})
    name = claim(engine, fork).name
    live, key = engine.live, engine.live.space.key
    over_us = live.now_us() - 5_000_000
    live.client.zadd(key("inflight", "branches"), {fork.runner.runner: over_us})
    live.client.zadd(key("workers"), {WORKER: over_us})
    lost = explain(engine, fork, name).causes[0]
    assert lost.code is CauseCode.WORKER_LOST
    assert -60 < lost.details["lease_left_seconds"] <= -5
    assert "no worker is alive that would give it up" in lost.sentence
    other = next(one for one in "ab" if one != name)
    none = explain(engine, fork, other).causes[0]
    assert none.code is CauseCode.NO_WORKER
    assert none.details["workers"] == [WORKER]
    assert f"the lease of {WORKER} was over" in none.sentence

    live.beat_worker("other#1", ["elsewhere"], 1, LEASE_US)
    live.client.hset(key("outage"), "until", live.now_us() + 600_000_000)
    graced = named(explain(engine, fork, name), CauseCode.WORKER_LOST)
    assert 540 < graced.details["graced_seconds"] <= 600
    assert "Redis was away" in graced.sentence


def closed_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_redis_is_away(engine: SteppingEngine) -> None:
    fork = begin(engine, {"a": ECHO, "b": ECHO})
    away = LiveState(f"redis://127.0.0.1:{closed_port()}", "nobody", Patience(is_away, repeats=0))
    found = explain_run(engine.database, away, fork.request.flow_session_id)
    assert [cause.code for cause in found.causes] == [CauseCode.REDIS_AWAY]
    assert found.status == "running"
    assert "Redis is away, and nothing new begins until it is back" in found.summary


def test_postgresql_is_away(engine: SteppingEngine) -> None:
    fork = begin(engine, {"a": ECHO, "b": ECHO}, max_concurrent_branches=1)
    taken = claim(engine, fork).name
    with closing(Database(f"postgresql://nobody@127.0.0.1:{closed_port()}/nothing")) as away:
        found = explain_run(away, engine.live, fork.request.flow_session_id)
    codes = [cause.code for cause in found.causes]
    assert codes[0] is CauseCode.POSTGRESQL_AWAY
    assert CauseCode.SESSION_LIMIT in codes, "what Redis knows is said all the same"
    assert named(found, CauseCode.SESSION_LIMIT).details["holders"] == [taken]


def test_its_output_can_not_be_made(engine: SteppingEngine) -> None:
    workflow = {"name": "wrong", "actions": {"a": ECHO}, "output": "${{ tasks.a.result.missing }}"}
    session = engine.run(workflow).flow_session_id
    found = explain_run(engine.database, engine.live, session)
    cause = found.causes[0]
    assert (found.status, cause.code) == ("failed", CauseCode.OUTPUT)
    assert cause.sentence.startswith("its output could not be made: ")
