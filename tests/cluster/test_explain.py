"""`explain` names the true cause of what real workers do, or don't: each test is a situation, and asserts its numbers.

More situations, which need an exact moment of live state, are in tests/integration/reports/test_explain.py.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from orchestration.errors import UnknownRun, UnknownTask
from orchestration.reports.explain import Cause, CauseCode, Explanation, explain_run
from orchestration.state.live import LiveState
from orchestration.store.pool import Database
from orchestration.store.sessions import find_session
from tests.support.clients import Client, running_client
from tests.support.commands import parallelizer
from tests.support.fleet import Fleet
from tests.support.journal import read_journal
from tests.support.records import Records
from tests.support.waiting import wait_until
from tests.support.workflows import Definition, record

SLOTS = 3
LEASE_SECONDS = 3.0
NOOP = {"uses": "core.noop"}


@dataclass
class Stage:
    """A fleet with one worker, and what a test does with it."""

    fleet: Fleet
    client: Client
    database: Database
    live: LiveState
    journal: Path

    def begin(
        self, actions: Definition, name: str = "", payload: object = None, is_accepted: bool = True, **limits: Any
    ) -> str:
        """Send a run; returns its id, when a worker has accepted it."""
        workflow = {"name": name or f"w{uuid.uuid4().hex[:8]}", "limits": limits, "actions": actions}
        code = "result = send(workflow, payload).delay().id"
        session: str = self.client.run(code, workflow=workflow, payload=payload)
        if is_accepted:
            wait_until(lambda: find_session(self.database, session) is not None, "it is accepted")
        return session

    def end(self, session: str) -> str:
        """The status of a run, when it has ended and all its tasks are recorded."""
        code = "result = AsyncResult(session).get(timeout=60)['counts']"
        counts = self.client.run(code, session=session)
        tasks = sum(counts.values())
        Records(self.fleet).tasks(session, tasks)
        wait_until(lambda: self.explain(session).status not in ("running", "queued"), "its end is recorded")
        return self.explain(session).status

    def explain(self, session: str, action: str | None = None, item: int | None = None) -> Explanation:
        return explain_run(
            self.database, self.live, session, action, item, default_limit=10, lease_seconds=LEASE_SECONDS
        )

    def cause(self, session: str, code: CauseCode, action: str | None = None, item: int | None = None) -> Cause:
        """The cause of this code, as soon as it is named."""
        found: list[Cause] = []

        def is_named() -> bool:
            found[:] = [cause for cause in self.explain(session, action, item).causes if cause.code is code]
            return bool(found)

        wait_until(is_named, code)
        return found[0]

    def hold(self, **more: Any) -> Definition:
        """An action that is at work until the test is over, or `release` is called."""
        inputs = {"journal": str(self.journal), "folder": str(self.journal.parent), "seconds": 120}
        return {"uses": "test.hold", "with": inputs, **more}

    def release(self, *tasks: str) -> None:
        for task in tasks:
            (self.journal.parent / f"{task}.1").touch()

    def wait_started(self, number: int) -> list[str]:
        """Names of the tasks that have begun, when they are so many."""
        wait_until(lambda: len(self._started()) >= number, f"{number} tasks have begun")
        return self._started()

    def cancel(self, *sessions: str) -> None:
        for session in sessions:
            self.client.run("from tasks import cancel_session; cancel_session(session)", session=session)

    def _started(self) -> list[str]:
        return [task for kind, task, *_ in read_journal(self.journal) if kind == "start"]


@pytest.fixture(scope="module")
def workers(module_fleet: Fleet) -> Fleet:
    module_fleet.start(
        1, concurrency=SLOTS, LEASE_SECONDS=str(LEASE_SECONDS), ACTION_MODULES="tests.support.journal",
        INLINE_FORK_MS="0",
    )  # fmt: skip
    return module_fleet


@pytest.fixture(scope="module")
def services(workers: Fleet) -> Iterator[tuple[Client, Database, LiveState]]:
    with (
        running_client(workers) as client,
        closing(Database(workers.database_url)) as database,
        closing(LiveState(workers.redis_url, workers.namespace)) as live,
    ):
        yield client, database, live


@pytest.fixture
def stage(workers: Fleet, services: tuple[Client, Database, LiveState], journal: Path) -> Iterator[Stage]:
    """A stage that is empty again after the test."""
    client, database, live = services
    staged = Stage(workers, client, database, live, journal)
    yield staged

    def is_empty() -> bool:
        staged.cancel(*live.open_sessions())
        return not live.open_sessions()

    wait_until(is_empty, "nothing is left of the test's runs")


# Not running


def test_it_waits_for_predecessors(stage: Stage) -> None:
    actions = {"start": NOOP, "slow": stage.hold(needs=["start"]), "quick": {**NOOP, "needs": ["start"]},
               "join": {**NOOP, "needs": ["slow", "quick"]}, "last": {**NOOP, "needs": ["join"]}}  # fmt: skip
    session = stage.begin(actions)
    stage.wait_started(1)
    wait_until(lambda: stage.explain(session, "quick").status == "succeeded", "quick has ended")
    cause, *others = stage.explain(session, "join").causes
    assert cause.code is CauseCode.PREDECESSORS
    assert cause.sentence == "join waits for 1 of 2 actions before it: slow (running)"
    assert cause.details == {"left": ["slow"], "left_total": 1, "needs": 2, "standing": {"slow": "running"}}
    assert [one.code for one in others] == [CauseCode.RUNNING], "and why that one has not ended"
    last = stage.explain(session, "last")
    assert last.status == "pending"
    assert last.causes[0].sentence == "last waits for 1 of 1 action before it: join (waits for others)"
    assert [one.tasks for one in last.causes[1:]] == [("slow",)]
    run = stage.explain(session)
    assert run.status == "running"
    assert {one.code: one.tasks_total for one in run.causes} == {CauseCode.RUNNING: 1, CauseCode.PREDECESSORS: 2}


def test_it_waits_at_the_limit_of_its_run(stage: Stage) -> None:
    session = stage.begin({"a": stage.hold(), "b": stage.hold()}, max_concurrent_branches=1)
    (runs,) = stage.wait_started(1)
    waits = {"a": "b", "b": "a"}[runs]
    cause = stage.cause(session, CauseCode.SESSION_LIMIT, waits)
    limit = f"session:{session}"
    assert cause.sentence == f"{waits} waits for the limit {limit}=1: 1 of 1 permits in use, by {runs}"
    assert {name: cause.details[name] for name in ("limit", "value", "in_use", "holders", "queue")} == {
        "limit": limit, "value": 1, "in_use": 1, "holders": [runs], "queue": "branches",
    }  # fmt: skip
    assert f"limits set {limit}" in cause.remedy


@pytest.mark.parametrize("of_key", [False, True], ids=["workflow", "key"])
def test_it_waits_at_a_limit_of_its_workflow_or_key(stage: Stage, of_key: bool) -> None:
    name = f"limited{uuid.uuid4().hex[:8]}"
    limits: dict[str, Any] = {"max_concurrent_branches_of_workflow": 1}
    level = f"workflow:{name}"
    if of_key:
        limits = {"concurrency_key": "${{ payload.who }}", "max_concurrent_branches_per_key": 1}
        level = f"key:ada-{name}"
    payload = {"who": f"ada-{name}"}
    first = stage.begin({"only": stage.hold()}, name, payload, **limits)
    stage.wait_started(1)
    second = stage.begin({"only": stage.hold()}, name, payload, **limits)
    third = stage.begin({"only": stage.hold()}, name, payload, **limits)
    wait_until(lambda: stage.cause(second, CauseCode.LIMIT).details["waiting"] == 2, "both wait")
    causes = {session: stage.cause(session, CauseCode.LIMIT, "only") for session in (second, third)}
    assert {cause.details["position"] for cause in causes.values()} == {1, 2}
    (cause,) = [cause for cause in causes.values() if cause.details["position"] == 2]
    assert cause.sentence.startswith(
        f"only waits for the limit {level}=1: 1 of 1 permits in use, by run {first} (1); 1 run before it"
    )
    assert cause.details["holders"] == {first: 1}
    assert (cause.details["value"], cause.details["in_use"], cause.details["behind"]) == (1, 1, 1)
    assert cause.remedy == f"parallelizer limits set {level} N"


def test_it_is_queued_at_a_limit_of_runs(stage: Stage) -> None:
    name = f"one{uuid.uuid4().hex[:8]}"
    limits: dict[str, Any] = {"max_concurrent_sessions": 1}
    first = stage.begin({"only": stage.hold()}, name, **limits)
    stage.wait_started(1)
    second = stage.begin({"only": stage.hold()}, name, **limits)
    assert stage.cause(second, CauseCode.QUEUED).details["position"] == 1
    third = stage.begin({"only": stage.hold()}, name, **limits)
    cause = stage.cause(third, CauseCode.QUEUED, "only")
    assert stage.explain(third).status == "queued"
    assert f"at the limit sessions:workflow:{name}=1, at position 2 of 2: 1 of 1 runs are under way" in cause.sentence
    expected = {"value": 1, "in_use": 1, "position": 2, "behind": 1, "waiting": 2, "holders": [first]}
    assert {key: cause.details[key] for key in expected} == expected
    stage.cancel(third, second)


def test_it_is_to_be_tried_again(stage: Stage) -> None:
    retry = {"max_attempts": 4, "delay_seconds": 50, "jitter": 0}
    action = {"uses": "test.fail_first", "with": {"journal": str(stage.journal), "times": 9}, "retry": retry}
    session = stage.begin({"start": NOOP, "unsteady": {**action, "needs": ["start"]}, "beside": NOOP})
    cause = stage.cause(session, CauseCode.RETRY, "unsteady")
    wait_until(
        lambda: bool(stage.cause(session, CauseCode.RETRY, "unsteady").details["error"]), "its error is recorded"
    )
    cause = stage.cause(session, CauseCode.RETRY, "unsteady")
    assert "attempt 2 of 4, since attempt 1 failed: ConnectionError: attempt 1" in cause.sentence
    assert (cause.details["attempt"], cause.details["max_attempts"]) == (2, 4)
    assert 20 < cause.details["left_seconds"] <= 50
    assert stage.explain(session).status == "suspended"


def test_it_waits_for_its_rate_limit(stage: Stage) -> None:
    each = {**record(stage.journal), "for_each": {"range": 3}, "rate_limit": "6/h"}
    session = stage.begin({"each": each})
    stage.wait_started(1)
    wait_until(lambda: len(stage.explain(session).causes) >= 2, "two wait")
    cause = stage.cause(session, CauseCode.RATE_LIMIT, "each", 1)
    assert cause.sentence.startswith("each[1] waits for its turn by the rate limit 6/h, in ")
    assert cause.details["rates"] == ["6/h"]
    assert 550 < cause.details["left_seconds"] <= 600
    second = stage.cause(session, CauseCode.RATE_LIMIT, "each", 2)
    assert 1150 < second.details["left_seconds"] <= 1200, "it is behind the other"


def test_no_worker_serves_its_queue(stage: Stage) -> None:
    session = stage.begin({"first": NOOP, "licensed": {**NOOP, "needs": ["first"], "queue": "gpu"}})
    cause = stage.cause(session, CauseCode.NO_WORKER, "licensed")
    assert cause.sentence == "licensed waits for a worker of the queue gpu, which none serves"
    assert cause.remedy == "start one: celery -A tasks worker -Q gpu"
    assert (cause.details["queue"], cause.details["workers"]) == ("gpu", [])


def test_all_slots_are_busy(stage: Stage) -> None:
    holder = stage.begin({name: stage.hold() for name in ("a", "b", "c")})
    stage.wait_started(SLOTS)
    session = stage.begin({"x": stage.hold(), "y": stage.hold()}, is_accepted=False)
    with pytest.raises(UnknownRun, match="its message may still wait for a process that is free"):
        stage.explain(session)
    assert stage.explain(holder).causes[0].details["at_work"] == SLOTS
    stage.release("a")
    wait_until(lambda: find_session(stage.database, session) is not None, "it is accepted")
    cause = stage.cause(session, CauseCode.SLOTS_BUSY)
    assert f"{SLOTS} of {SLOTS} are busy" in cause.sentence
    assert cause.details["slots"] == cause.details["in_flight"] == SLOTS
    assert cause.details["holders"] == {holder: 2, session: 1}
    assert (cause.details["position"], cause.details["behind"]) == (1, 0)
    assert "start another worker: celery -A tasks worker -Q branches" in cause.remedy


def test_items_wait_at_the_limit_of_their_for_each(stage: Stage) -> None:
    session = stage.begin({"each": stage.hold(for_each={"range": 7}, max_concurrent=2)})
    stage.wait_started(2)
    cause = stage.cause(session, CauseCode.FOR_EACH_LIMIT, "each", 6)
    said = "5 items of each wait for its limit max_concurrent=2: 2 at work, 0 of 7 have ended"
    assert cause.sentence == said
    assert cause.details == {"limit": 2, "in_use": 2, "left": 5, "size": 7, "ended": 0}
    assert stage.explain(session, "each", 0).status == "running"


@pytest.mark.parametrize("why", ["session", "workflow", "all"])
def test_it_is_paused_by_somebody(stage: Stage, why: str) -> None:
    name = f"halted{uuid.uuid4().hex[:8]}"
    session = stage.begin({"each": stage.hold(for_each={"range": 9})}, name, max_concurrent_branches=1)
    stage.wait_started(1)
    if why == "session":
        names = ("REDIS_URL", "DATABASE_URL", "NAMESPACE", "DATA_DIR")
        variables = {name: stage.fleet.environment[name] for name in names}
        assert parallelizer("pause", session, "--by", "Grace", folder=None, **variables).returncode == 0
    else:
        of = name if why == "workflow" else None
        stage.client.run("from tasks import pause_all; pause_all(of, by='Grace')", of=of)
    cause = stage.cause(session, CauseCode.PAUSED, "each", 5)
    assert ", by Grace, " in cause.sentence
    assert (cause.details["why"], cause.details["by"]) == (why, "Grace")
    remedy = {"session": session, "workflow": f"--workflow {name}", "all": "--all"}[why]
    assert cause.remedy == f"parallelizer resume {remedy}"
    assert stage.explain(session).status == "paused"
    of = name if why == "workflow" else None
    resume = "resume_session(session)" if why == "session" else "resume_all(of)"
    stage.client.run(f"from tasks import resume_all, resume_session; {resume}", session=session, of=of)
    assert CauseCode.PAUSED not in [one.code for one in stage.explain(session).causes]


def test_it_is_in_its_first_branch(stage: Stage) -> None:
    session = stage.begin({"first": stage.hold(), "second": {**NOOP, "needs": ["first"]}})
    stage.wait_started(1)
    cause = stage.cause(session, CauseCode.FIRST_BRANCH, "first")
    assert cause.tasks == ("first",)
    assert stage.explain(session, "first").status == "running"
    assert stage.explain(session, "second").causes[0].details["left"] == ["first"]
    stage.release("first")
    assert stage.end(session) == "succeeded"


def test_a_deadline_and_a_longest_wait_are_told(stage: Stage) -> None:
    actions = {"a": stage.hold(), "b": stage.hold()}
    session = stage.begin(actions, max_concurrent_branches=1, deadline_seconds=500, max_wait_seconds=100)
    stage.wait_started(1)
    deadline = stage.cause(session, CauseCode.DEADLINE)
    assert 400 < deadline.details["left_seconds"] <= 500
    wait = stage.cause(session, CauseCode.MAX_WAIT)
    assert wait.details["limit_seconds"] == 100
    assert 50 < wait.details["left_seconds"] <= 100


def test_its_worker_is_lost(stage: Stage) -> None:
    (doomed,) = stage.fleet.start(
        1, concurrency=1, queues=("doomed",), ACTION_MODULES="tests.support.journal", LEASE_SECONDS=str(LEASE_SECONDS)
    )
    session = stage.begin({"first": NOOP, "there": stage.hold(queue="doomed", needs=["first"])})
    stage.wait_started(1)
    assert stage.cause(session, CauseCode.RUNNING, "there").details["at_work"] == 1
    stage.fleet.kill(doomed)
    lost = stage.cause(session, CauseCode.WORKER_LOST, "there")
    assert "has not renewed its lease for" in lost.sentence
    assert lost.details["lease_left_seconds"] < LEASE_SECONDS / 2
    assert lost.details["lease_over_at"].endswith("Z")
    no_worker = stage.cause(session, CauseCode.NO_WORKER, "there")
    assert "there waits for a worker of the queue doomed" in no_worker.sentence
    again = stage.cause(session, CauseCode.WORKER_LOST, "there")
    assert again.sentence == "there is to run again, attempt 2: its worker was lost"
    assert (again.details["attempt"], again.details["crashes"]) == (2, 1)


# Ended


def test_the_first_cause_of_a_failure_and_what_it_made_skip(stage: Stage) -> None:
    bad = record(stage.journal, outcome="fail")
    actions = {"start": NOOP, "bad": {**bad, "needs": ["start"]}, "good": {**NOOP, "needs": ["start"]},
               "join": {**NOOP, "needs": ["bad", "good"]}, "last": {**NOOP, "needs": ["join"]}}  # fmt: skip
    session = stage.begin(actions)
    assert stage.end(session) == "failed"
    (cause,) = stage.explain(session).causes
    assert cause.code is CauseCode.RAISED
    assert cause.sentence == (
        "bad failed: RuntimeError: bad fails as it was told to; because of it join and last were not run"
    )
    assert (cause.details["made_skip"], cause.details["made_skip_total"]) == (["join", "last"], 2)
    (upstream,) = stage.explain(session, "last").causes
    assert upstream.code is CauseCode.UPSTREAM_FAILED
    assert (upstream.details["root"], upstream.details["root_code"]) == ("bad", "raised")
    assert "because bad failed: RuntimeError" in upstream.sentence


def test_an_item_is_the_first_cause(stage: Stage) -> None:
    each = {"uses": "core.fail", "with": {"message": "${{ item }}"}, "for_each": ["ok", "no", "no"],
            "if": "item == 'no'"}  # fmt: skip
    session = stage.begin({"start": NOOP, "each": {**each, "needs": ["start"]}, "last": {**NOOP, "needs": ["each"]}})
    assert stage.end(session) == "failed"
    (cause,) = stage.explain(session).causes
    assert cause.code is CauseCode.RAISED
    assert cause.tasks[0] in ("each[1]", "each[2]")
    assert "2 of 3 items did not succeed; because of it last was not run" in cause.sentence
    assert stage.explain(session, "each", 0).causes[0].code is CauseCode.CONDITION


def test_its_result_is_of_no_use(stage: Stage) -> None:
    session = stage.begin({"start": NOOP, "odd": {"uses": "test.unserialisable", "needs": ["start"]}, "beside": NOOP})
    assert stage.end(session) == "failed"
    (cause,) = stage.explain(session).causes
    assert cause.code is CauseCode.UNUSABLE
    assert "odd failed: the result is not JSON: it holds a builtins.object" in cause.sentence
    (beside,) = stage.explain(session, "beside").causes
    assert (beside.code, beside.sentence) == (CauseCode.SUCCEEDED, "beside succeeded")


def test_it_ran_out_of_time(stage: Stage) -> None:
    slow = {"uses": "core.sleep", "with": {"seconds": 60}, "timeout_seconds": 0.2}
    session = stage.begin({"start": NOOP, "slow": {**slow, "needs": ["start"]}, "beside": NOOP})
    assert stage.end(session) == "failed"
    (cause,) = stage.explain(session, "slow").causes
    assert cause.code is CauseCode.TIMED_OUT
    assert cause.sentence == "slow timed out: it ran longer than 0.2 s (timeout_seconds)"
    assert (cause.details["limit"], cause.details["limit_seconds"]) == ("timeout_seconds", 0.2)
    assert cause.remedy == "raise timeout_seconds"


def test_it_kept_killing_its_process(stage: Stage) -> None:
    deadly = {"uses": "test.die", "with": {"journal": str(stage.journal), "times": 9}, "needs": ["start"]}
    session = stage.begin({"start": NOOP, "deadly": deadly, "beside": NOOP})
    assert stage.end(session) == "failed"
    (cause,) = stage.explain(session).causes
    assert cause.code is CauseCode.POISON
    assert cause.details["died"] == 3
    assert "exit code 9" in cause.details["how"]
    assert "the process that ran it died 3 times" in cause.sentence


def test_its_expression_can_not_be_evaluated(stage: Stage) -> None:
    wrong = {"uses": "core.echo", "with": {"value": "${{ payload.missing.deeper }}"}, "needs": ["start"]}
    session = stage.begin({"start": NOOP, "wrong": wrong, "beside": NOOP}, payload={})
    assert stage.end(session) == "failed"
    (cause,) = stage.explain(session, "wrong").causes
    assert cause.code is CauseCode.EXPRESSION
    assert "payload.missing" in cause.sentence


def test_it_was_skipped_by_its_condition_or_its_rule(stage: Stage) -> None:
    actions = {"start": NOOP, "never": {**NOOP, "needs": ["start"], "if": "1 == 2"},
               "after": {**NOOP, "needs": ["never"]},
               "cleanup": {**NOOP, "needs": ["start"], "trigger_rule": "one_failed"}}  # fmt: skip
    session = stage.begin(actions)
    assert stage.end(session) == "succeeded"
    (never,) = stage.explain(session, "never").causes
    assert (never.code, never.details) == (CauseCode.CONDITION, {"condition": "1 == 2"})
    (after,) = stage.explain(session, "after").causes
    assert (after.code, after.details["needs"]) == (CauseCode.TRIGGER_RULE, {"never": "skipped"})
    (cleanup,) = stage.explain(session, "cleanup").causes
    assert cleanup.sentence == "cleanup was skipped by its trigger rule one_failed: start succeeded"


def test_it_was_cancelled(stage: Stage) -> None:
    session = stage.begin({"a": stage.hold(), "b": {**NOOP, "needs": ["a"]}})
    stage.wait_started(1)
    stage.cancel(session)
    assert stage.end(session) == "cancelled"
    (cause,) = stage.explain(session).causes
    assert cause.code is CauseCode.CANCELLED
    assert cause.sentence.startswith("the run was cancelled: somebody cancelled the run at 20")
    assert stage.explain(session, "b").causes[0].code is CauseCode.CANCELLED


def test_it_passed_its_deadline(stage: Stage) -> None:
    session = stage.begin({"a": stage.hold(), "b": {**NOOP, "needs": ["a"]}}, deadline_seconds=1)
    assert stage.end(session) == "timed_out"
    causes = stage.explain(session).causes
    assert causes[0].code is CauseCode.DEADLINE
    assert causes[0].sentence == "it took longer than 1 s (deadline_seconds)"
    assert causes[1].details["limit"] == "deadline_seconds"


def test_it_waited_too_long(stage: Stage) -> None:
    session = stage.begin({"a": {**NOOP, "queue": "nobody"}}, max_wait_seconds=0.5)
    assert stage.end(session) == "failed"
    (cause,) = stage.explain(session).causes
    assert cause.code is CauseCode.MAX_WAIT
    assert "it waited longer than 0.5 s (max_wait_seconds) for a worker of queue nobody" in cause.sentence


def test_it_was_rejected_at_a_limit(stage: Stage) -> None:
    name = f"full{uuid.uuid4().hex[:8]}"
    limits: dict[str, Any] = {"max_concurrent_sessions": 1}
    stage.begin({"a": stage.hold()}, name, **limits)
    stage.wait_started(1)
    session = stage.begin({"a": NOOP}, name, **limits, when_full="reject")
    wait_until(lambda: stage.explain(session).status == "failed", "it is rejected")
    cause = stage.explain(session).causes[0]
    assert cause.code is CauseCode.REJECTED
    assert "max_concurrent_sessions 1" in cause.sentence


def test_it_gave_way_to_a_newer_one(stage: Stage) -> None:
    name = f"newest{uuid.uuid4().hex[:8]}"
    limits: dict[str, Any] = {"max_concurrent_sessions": 1, "when_full": "cancel_running"}
    first = stage.begin({"a": stage.hold()}, name, **limits)
    stage.wait_started(1)
    second = stage.begin({"a": stage.hold()}, name, **limits)
    assert stage.end(first) == "cancelled"
    cause = stage.explain(first).causes[0]
    assert cause.code is CauseCode.GAVE_WAY
    assert second in cause.sentence


def test_items_of_a_for_each_waited_for_the_permits_of_their_run(stage: Stage) -> None:
    each = {"uses": "core.sleep", "with": {"seconds": 0.05}, "for_each": {"range": 40}}
    session = stage.begin({"start": NOOP, "each": {**each, "needs": ["start"]}}, max_concurrent_branches=2)
    assert stage.end(session) == "succeeded"
    spent = stage.explain(session).time_spent
    assert spent is not None
    assert spent.most_at_once == 2
    shares = spent.shares()
    assert shares["permits"] > 0.5, "the last of 40 items waited for most of the time"
    assert shares["permits"] > 5 * shares["queueing"]


def test_where_the_time_of_a_run_went(stage: Stage) -> None:
    sleep = {"uses": "core.sleep", "with": {"seconds": 0.3}}
    actions = {"a": sleep, "b": {**sleep, "needs": ["a"]}, "c": {**sleep, "needs": ["a"]},
               "d": {**sleep, "needs": ["b", "c"]}, "short": {**NOOP, "needs": ["a"]}}  # fmt: skip
    session = stage.begin(actions, max_concurrent_branches=1)
    assert stage.end(session) == "succeeded"
    found = stage.explain(session)
    spent = found.time_spent
    assert spent is not None
    assert spent.most_at_once == 1
    names = [step.task for step in spent.path]
    assert (names[0], names[-1], len(names)) == ("a", "d", 3)
    assert 0.9 <= spent.shortest_seconds < 1.2
    assert 0.85 <= spent.seconds("running") < 1.2
    assert 0.25 < spent.seconds("permits") < 0.6, "of b and c one waited for the permit of the other"
    assert sum(spent.shares().values()) == pytest.approx(1, abs=0.02)
    assert "waiting for permits" in found.summary


# Asked for on the command line


def test_the_command_says_it_to_people_and_programs(stage: Stage) -> None:
    session = stage.begin({"a": stage.hold(), "b": stage.hold()}, max_concurrent_branches=1)
    (runs,) = stage.wait_started(1)
    waits = {"a": "b", "b": "a"}[runs]
    names = ("REDIS_URL", "DATABASE_URL", "NAMESPACE", "DATA_DIR")
    variables = {name: stage.fleet.environment[name] for name in names}
    told: Callable[..., Any] = lambda *arguments: parallelizer("explain", *arguments, folder=None, **variables)
    shown = told(session, waits)
    assert shown.returncode == 0, shown.stderr
    assert f"session_limit: {waits} waits for the limit session:{session}=1" in shown.stdout
    assert f"→ parallelizer limits set session:{session} N" in shown.stdout
    answer = json.loads(told(session, waits, "--json").stdout)
    assert (answer["action"], answer["status"], answer["causes"][0]["code"]) == (waits, "pending", "session_limit")
    wrong = told(session[:-3] + "000")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert f"near: {session}" in wrong.stderr
    with pytest.raises(UnknownTask, match="near names: a"):
        stage.explain(session, "aa")
    with pytest.raises(UnknownTask, match="a is no for_each, so it has no item 3"):
        stage.explain(session, "a", 3)
