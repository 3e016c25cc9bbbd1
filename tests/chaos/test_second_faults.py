"""A fault while the fleet recovers from another one: nothing is lost, and nobody waits for ever."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Final

import pytest

from orchestration.state.keys import KeySpace
from parallelizer.services.supervision import LoggedProgram
from tests.chaos.scene import Scene, scene
from tests.chaos.stack import NAMESPACE, ChaosStack, chaos_stack
from tests.chaos.workload import Kind, step
from tests.support.waiting import wait_until

LEASE = 3.0
RUNS = 10
#: Seconds that a service stays away.
AWAY = 2.0
CHUNK_KILLS = 4
#: What upkeep says of a session that it takes up again.
TAKEN_UP: Final = "nobody is at work on flow session"

WIDE = Kind(
    {"name": "wide", "actions": {
        "first": step([], 0.01), "each": step(["first"], 0.1, for_each={"range": 12}),
        "a": step(["first"], 0.3), "b": step(["a"], 0.3), "join": step(["each", "b"], 0.0),
    }},
    0, {"succeeded": 16},
)  # fmt: skip


@pytest.fixture(scope="module")
def stack() -> Iterator[ChaosStack]:
    with chaos_stack(LEASE_SECONDS=str(LEASE)) as started:
        started.start_workers()
        yield started


def begin_wide(playing: Scene) -> list[str]:
    """Runs that are at work."""
    runs = [playing.send(WIDE) for _ in range(RUNS)]
    for run in runs:
        playing.wait_for_start(run, "a")
    return runs


def wait_taken_up(playing: Scene, runs: list[str]) -> None:
    """Return when one of these is taken up again."""

    def lines() -> list[str]:
        return [line for line in playing.log_lines(TAKEN_UP) if any(run in line for run in runs)]

    wait_until(lambda: bool(lines()), "a run is taken up again", seconds=60)


def all_succeed(playing: Scene, runs: list[str]) -> None:
    for run in runs:
        assert playing.wait_for_end(run, seconds=90) == "succeeded"


def reaper(stack: ChaosStack) -> LoggedProgram:
    """The worker whose upkeep process looks after open sessions just now."""
    with closing(stack.redis(decode_responses=True)) as client:
        name = str(client.hget(KeySpace(NAMESPACE).key("reaper"), "holder") or "")
    return next((each for each in stack.workers if name.startswith(f"{each.name}.")), stack.workers[0])


def test_the_reaper_is_lost_before_it_can_give_up_what_another_lost_host_had(stack: ChaosStack) -> None:
    with scene(stack, WIDE) as playing:
        runs = begin_wide(playing)
        second = reaper(stack)
        playing.lose_host(next(each for each in stack.workers if each is not second))
        playing.lose_host(second)
        all_succeed(playing, runs)


def test_all_of_redis_is_lost_while_a_lost_host_is_made_up_for(stack: ChaosStack) -> None:
    with scene(stack, WIDE) as playing:
        runs = begin_wide(playing)
        playing.lose_host(stack.workers[0])
        time.sleep(LEASE / 2)  # its lease has not run out yet
        playing.lose_redis()
        all_succeed(playing, runs)


def restart_postgres(playing: Scene) -> None:
    fault = playing.inject("PostgreSQL crashed")
    time.sleep(AWAY)
    fault.end()


def kill_redis(playing: Scene) -> None:
    fault = playing.inject("Redis killed")
    time.sleep(AWAY)
    fault.end()


@pytest.mark.parametrize(
    "second", [restart_postgres, kill_redis, lambda playing: playing.lose_host(playing.stack.workers[1])],
    ids=["PostgreSQL restarts", "Redis is killed", "a host is lost"],
)  # fmt: skip
def test_runs_are_being_taken_up_again_when(stack: ChaosStack, second: Callable[[Scene], object]) -> None:
    """As where a restart of the database during recovery left work for ever (dbos-transact-py#716)."""
    with scene(stack, WIDE) as playing:
        runs = begin_wide(playing)
        playing.lose_redis()
        wait_taken_up(playing, runs)
        second(playing)
        all_succeed(playing, runs)


def test_redis_is_killed_while_postgresql_is_away(stack: ChaosStack) -> None:
    with scene(stack, WIDE) as playing:
        runs = begin_wide(playing)
        away = playing.inject("PostgreSQL crashed")
        time.sleep(AWAY / 2)
        kill_redis(playing)
        away.end()
        all_succeed(playing, runs)


def test_who_takes_over_a_killed_process_s_chunk_is_killed_too(stack: ChaosStack) -> None:
    slow = 30
    seconds = f"${{{{ item == {slow} ? 1.0 : 0.004 }}}}"
    each = {"uses": "chaos.work", "needs": ["first"], "with": {"seconds": seconds}, "for_each": {"range": 60}}
    kind = Kind({"name": "chunks", "actions": {"first": step([], 0.0), "each": each}}, 0, {"succeeded": 61})
    with scene(stack, kind, a_second=2.0) as playing:
        run = playing.send(kind)
        for times in range(1, CHUNK_KILLS + 1):
            pid = playing.wait_for_start(run, f"each:{slow}", times).pid
            worker = playing.worker_of(pid)
            if worker.process is not None and worker.process.pid == pid:  # a thread of the main process
                playing.lose_host(worker)
            else:
                playing.kill(pid)
        all_succeed(playing, [run])
    assert len(playing.runs_of(run, f"each:{slow}")) == CHUNK_KILLS + 1


def test_runs_that_only_waited_when_redis_lost_all_go_on(stack: ChaosStack) -> None:
    """For a retry, for admission, for a permit: nobody waits for ever (restate#5196, argo-workflows#9875, #17013)."""
    retry = {"max_attempts": 3, "delay_seconds": 12, "jitter": 0}
    kinds = [
        Kind({"name": "retries", "actions": {
            "first": step([], 0.0), "again": {"uses": "chaos.flaky", "needs": ["first"], "retry": retry},
        }}, 0, {"succeeded": 2}, retries={"again": 2}),
        Kind({"name": "admitted", "limits": {"max_concurrent_sessions": 1}, "actions": {
            "first": step([], 0.0), "long": step(["first"], 1.0),
        }}, 0, {"succeeded": 2}),
        Kind({"name": "permitted", "limits": {"max_concurrent_branches_of_workflow": 1}, "actions": {
            "first": step([], 0.0), "long": step(["first"], 0.8),
        }}, 0, {"succeeded": 2}),
    ]  # fmt: skip
    with scene(stack, *kinds, a_second=2.0) as playing:
        runs = [playing.send(kind) for kind in kinds for _ in range(6)]
        known = "SELECT count(*) FROM flow_sessions WHERE flow_session_id = ANY (%s)"
        wait_until(lambda: playing.rows(known, runs)[0][0] == len(runs), "all are accepted", seconds=60)
        for run in runs[:6]:
            playing.wait_for_start(run, "again")
        playing.lose_redis()
        all_succeed(playing, runs)


def test_status_updates_that_can_not_be_recorded_hold_no_others_up(stack: ChaosStack) -> None:
    """As where one row with a conflict stopped all others (oban#1416)."""
    with scene(stack, WIDE) as playing:
        runs = begin_wide(playing)
        for _ in range(5):
            playing.inject("bad status updates")
        all_succeed(playing, runs)
        letters = "SELECT count(*) FROM status_dead_letters"
        wait_until(lambda: playing.rows(letters)[0][0] >= 10, "they are kept, with the reason")
