"""Forks that are expected to be short are run where they began; whatever goes otherwise, they are shared then."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import pytest

from orchestration.engine.finish import RunResult
from orchestration.engine.processor import Fork, RunRequest
from orchestration.vocabulary import Verdict
from tests.support.journal import read_journal
from tests.support.stepping import QUEUE, SteppingEngine

NOOP: dict[str, Any] = {"uses": "core.noop"}
SMALL: dict[str, Any] = {
    "name": "small",
    "actions": {
        "first": NOOP,
        "left": {**NOOP, "needs": ["first"]},
        "each": {"uses": "core.echo", "with": {"value": "${{ item }}"}, "needs": ["first"], "for_each": [1, 2, 3]},
        "last": {"uses": "core.echo", "with": {"value": "${{ tasks.each.result }}"}, "needs": ["left", "each"]},
    },
}


def start(engine: SteppingEngine, definition: dict[str, Any]) -> RunResult | Fork:
    return engine.processor.process_workflow_parallel(RunRequest(str(uuid.uuid4()), definition, None, QUEUE))


def shared(engine: SteppingEngine, fork: Fork) -> RunResult:
    assert engine.processor.open_fork(fork, "{}") is Verdict.GO
    assert engine.processor.run_fork(fork) is Verdict.ENDED
    return engine.processor.complete_workflow(fork.request.flow_session_id)


def expect_costs(engine: SteppingEngine, definition: dict[str, Any], nanoseconds: int) -> None:
    costs = engine.processor.versions.find(definition).costs
    for name in definition["actions"]:
        costs.of(name).record(nanoseconds)


def script_calls(engine: SteppingEngine) -> int:
    commands = engine.live.client.info("commandstats")
    return sum(int(commands.get(f"cmdstat_{name}", {"calls": 0})["calls"]) for name in ("eval", "evalsha"))


def test_a_fork_is_shared_until_its_actions_are_known_to_be_short(engine: SteppingEngine) -> None:
    first = start(engine, SMALL)
    assert isinstance(first, Fork)
    assert shared(engine, first).output == {"last": [1, 2, 3]}
    second = start(engine, SMALL)
    assert isinstance(second, RunResult)
    assert second.output == {"last": [1, 2, 3]}
    assert second.counts == {"succeeded": 6}


def test_a_short_run_makes_one_call_of_a_script_and_leaves_nothing_in_redis(engine: SteppingEngine) -> None:
    expect_costs(engine, SMALL, 10_000)
    assert isinstance(start(engine, SMALL), RunResult)  # the script is loaded
    before = script_calls(engine)
    result = start(engine, SMALL)
    assert isinstance(result, RunResult)
    assert script_calls(engine) - before == 1
    assert list(engine.live.client.scan_iter(f"*{result.flow_session_id}*")) == []
    engine.updater.drain_all()
    rows = engine.database.fetch(
        "SELECT count(*), count(started_at), count(finished_at) FROM tasks WHERE flow_session_id = %s",
        (result.flow_session_id,),
    )
    assert rows == [(7, 6, 7)], (
        "five items and actions that ran, two ends of them; the for_each as a whole has no start"
    )


def test_a_fork_that_is_expected_to_be_long_is_shared(engine: SteppingEngine) -> None:
    expect_costs(engine, SMALL, 3_000_000)
    assert isinstance(start(engine, SMALL), Fork)


def test_a_setting_of_zero_shares_every_fork(redis_url: str, database_url: str, namespace: str) -> None:
    engine = SteppingEngine(redis_url, database_url, namespace, inline_fork_ms=0)
    expect_costs(engine, SMALL, 10)
    assert isinstance(start(engine, SMALL), Fork)
    engine.close()


def test_a_fork_that_was_expected_to_be_short_and_is_not_is_shared_then(engine: SteppingEngine, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    slow = {"uses": "test.record", "with": {"journal": str(journal), "seconds": 0.05}, "needs": ["first"]}
    definition = {"name": "surprise", "actions": {"first": NOOP, **{f"b{number}": slow for number in range(5)}}}
    expect_costs(engine, definition, 10_000)
    fork = start(engine, definition)
    assert isinstance(fork, Fork)
    assert len(fork.settlements) == 2, "the first branch, and one that took longer than all were expected to"
    assert shared(engine, fork).counts == {"succeeded": 6}
    started = [task for kind, task, *_ in read_journal(journal) if kind == "start"]
    assert sorted(started) == [f"b{number}" for number in range(5)]


def test_a_for_each_with_a_slow_item_is_shared_behind_it(engine: SteppingEngine, tmp_path: Path) -> None:
    journal, seconds = str(tmp_path / "journal"), "${{ item }}"
    each = {"uses": "test.record", "with": {"journal": journal, "seconds": seconds}, "for_each": [0, 0.1, 0, 0]}
    definition = {"name": "one-slow", "actions": {"each": each}}
    expect_costs(engine, definition, 10_000)
    fork = start(engine, definition)
    assert isinstance(fork, Fork)
    assert len(fork.settlements) == 2, "expanded, and what was done of the chunk"
    assert fork.settlements[1].settled == 2
    assert shared(engine, fork).counts == {"succeeded": 4}
    ran = sorted(task for kind, task, *_ in read_journal(tmp_path / "journal") if kind == "start")
    assert ran == ["each:0", "each:1", "each:2", "each:3"]


def test_a_for_each_that_is_larger_than_expected_is_shared(engine: SteppingEngine) -> None:
    each = {**NOOP, "needs": ["first"], "for_each": {"range": "${{ tasks.first.result }}"}}
    definition = {"name": "grown", "actions": {"first": {"uses": "core.echo", "with": {"value": 500}}, "each": each}}
    expect_costs(engine, definition, 100_000)
    fork = start(engine, definition)
    assert isinstance(fork, Fork)
    assert [settlement.verb for settlement in fork.settlements] == ["done", "expand"]
    assert shared(engine, fork).counts == {"succeeded": 501}


def test_a_step_that_is_tried_again_later_waits_in_redis(engine: SteppingEngine, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    flaky = {
        "uses": "test.fail_first", "with": {"journal": str(journal), "times": 1}, "needs": ["first"],
        "retry": {"max_attempts": 2, "delay_seconds": 0, "jitter": 0},
    }  # fmt: skip
    definition = {"name": "flaky", "actions": {"first": NOOP, "flaky": flaky, "other": {**NOOP, "needs": ["first"]}}}
    result = engine.run(definition, alone=1000)
    assert (result.status, result.output["flaky"]) == ("succeeded", 2)  # type: ignore[index]
    attempts = [attempt for kind, task, attempt, *_ in read_journal(journal)]
    assert attempts == [1, 2]


@pytest.mark.parametrize("change", [{"durability": "sync"}, {"queue": "other"}, {"uses": "test.await"}])
def test_what_must_be_committed_or_belongs_elsewhere_or_waits_is_never_run_so(
    engine: SteppingEngine, change: dict[str, Any]
) -> None:
    branch = {**NOOP, "needs": ["first"], **change}
    if change.get("uses"):
        branch["with"] = {"value": 1}
    definition = {"name": "shared", "actions": {"first": NOOP, "one": branch, "two": {**NOOP, "needs": ["first"]}}}
    expect_costs(engine, definition, 10_000)
    assert isinstance(start(engine, definition), Fork)


def test_a_short_fork_with_a_rate_limit_is_shared(engine: SteppingEngine) -> None:
    """Its actions must be able to wait without a process."""
    limited = {**SMALL["actions"], "left": {**NOOP, "needs": ["first"], "rate_limit": "1000/s"}}
    definition = {"name": "small-limited", "actions": limited}
    expect_costs(engine, definition, 10_000)
    fork = start(engine, definition)
    assert isinstance(fork, Fork)
    assert shared(engine, fork).counts == {"succeeded": 6}
