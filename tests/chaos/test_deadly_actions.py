"""Actions that kill, keep or bloat their process, and a process that is stopped: nothing beside them comes to harm."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, Final

import pytest

from tests.chaos.scene import Scene, measured, scene, siblings_succeeded
from tests.chaos.stack import ROOT, ChaosStack, chaos_stack
from tests.chaos.workload import Definition, Kind, step
from tests.support.crashes import is_running
from tests.support.memory_groups import MemoryGroup, why_none
from tests.support.waiting import wait_until

#: Seconds: the limit of a branch, the grace after it, and a tour of a runner; Celery's hard limit is their sum.
LIMIT, GRACE, TOUR = 3.0, 1.0, 0.3
HARD = LIMIT + TOUR + GRACE
MOST_CRASHES = 3
GROUP: Final = "parallelizer-chaos"
MOST_MEGABYTES = 150
SIBLINGS = {f"side{n}": step(["first"], 0.1) for n in range(3)}
SHORT_TOURS = ROOT / "tests" / "support" / "short_tours"


@pytest.fixture(scope="module")
def stack() -> Iterator[ChaosStack]:
    with chaos_stack((("prefork", 3), ("prefork", 2))) as started:
        started.settings |= {
            "MAX_BRANCH_CRASHES": str(MOST_CRASHES), "BRANCH_GRACE_SECONDS": str(GRACE),
            # Celery's limit of the process that began a run is by this one
            "BRANCH_PROCESSING_TIMEOUT_SECS": str(LIMIT),
            "PYTHONPATH": f"{SHORT_TOURS}:{ROOT}",
        }  # fmt: skip
        started.start_workers()
        yield started


def beside_siblings(
    name: str, odd: dict[str, Definition], counts: dict[str, int], limit: float = LIMIT, **more: Any
) -> Kind:
    """A fork of three good branches and the odd ones, and what runs after all of them whatever happened."""
    branches = {branch: {**action, "needs": ["first"]} for branch, action in odd.items()}
    join = step([*SIBLINGS, *branches], 0.0, trigger_rule="all_done")
    actions = {"first": step([], 0.0), **SIBLINGS, **branches, "join": join}
    definition = {"name": name, "limits": {"branch_timeout_seconds": limit}, "actions": actions}
    return Kind(definition, 0, counts, **more)


def error_of(playing: Scene, run: str, action: str, item: int = -1) -> str:
    statement = "SELECT error->>'message' FROM tasks WHERE flow_session_id = %s AND action = %s AND item = %s"
    return str(playing.rows(statement, run, action, item)[0][0])


def test_an_action_that_kills_its_process_fails_after_three_crashes_and_says_by_what(stack: ChaosStack) -> None:
    deadly: dict[str, Definition] = {
        "leaves": {"uses": "chaos.exit", "with": {"code": 7}},
        "crashes": {"uses": "chaos.segfault"},
        "each": {"uses": "chaos.exit_for", "with": {"item": 5, "code": 1}, "for_each": {"range": 12}},
    }
    again = dict.fromkeys(deadly, MOST_CRASHES - 1)
    kind = beside_siblings("poison", deadly, {"failed": 3, "succeeded": 11 + 5}, retries=again)
    with scene(stack, kind) as playing:
        run = playing.send(kind)
        assert playing.wait_for_end(run) == "succeeded"
    ran = {task: len(playing.runs_of(run, task)) for task in ("leaves", "crashes", "each:5")}
    assert ran == dict.fromkeys(ran, MOST_CRASHES)
    for place, death in (("leaves", "with exit code 7"), ("crashes", "by signal 11 (SIGSEGV)")):
        told = error_of(playing, run, place)
        assert told == f"the process that ran it died 3 times (MAX_BRANCH_CRASHES=3), the last time {death}"
    assert error_of(playing, run, "each", 5).endswith("the last time with exit code 1")
    siblings_succeeded(playing, run, [*SIBLINGS, "join"])


def test_an_action_that_takes_more_memory_than_there_is_ends_like_a_killed_process(stack: ChaosStack) -> None:
    reason = why_none()
    if reason:
        pytest.skip(reason)
    inputs = {"group": GROUP, "megabytes": 10 * MOST_MEGABYTES}
    greedy: dict[str, Definition] = {"greedy": {"uses": "chaos.greedy", "with": inputs}}
    again = {"greedy": MOST_CRASHES - 1}
    kind = beside_siblings("greedy", greedy, {"failed": 1, "succeeded": 5}, limit=60.0, retries=again)
    with MemoryGroup(GROUP, MOST_MEGABYTES) as group, scene(stack, kind) as playing:
        run = playing.send(kind)
        for times in range(1, MOST_CRASHES + 1):
            group.add([playing.wait_for_start(run, "greedy", times).pid])
        assert playing.wait_for_end(run) == "succeeded"
        assert all(worker.is_running() for worker in stack.workers)
    assert len(playing.runs_of(run, "greedy")) == MOST_CRASHES
    assert "by signal 9 (SIGKILL), as the kernel ends what takes too much memory" in error_of(playing, run, "greedy")
    siblings_succeeded(playing, run, [*SIBLINGS, "join"])


def test_an_action_that_swallows_its_time_limit_or_loops_in_c_ends_at_the_hard_one(stack: ChaosStack) -> None:
    """The first is left behind when its time is over; the other one keeps its whole process, which is given up."""
    over = {"swallows": {"uses": "chaos.swallow"}, "loops": {"uses": "chaos.loop_in_c"}}
    counts = {"timed_out": 1, "failed": 1, "succeeded": 5}
    kind = beside_siblings("over", over, counts, retries={"loops": MOST_CRASHES - 1})
    with scene(stack, kind) as playing:
        run = playing.send(kind)
        loops = [playing.wait_for_start(run, "loops", times) for times in range(1, MOST_CRASHES + 1)]
        assert playing.wait_for_end(run) == "succeeded"
        wait_until(lambda: not is_running(loops[-1].pid), "the last process that looped has ended")
    for before, after in pairwise(loops):
        assert after.started - before.started <= HARD + 2, "ended a second after the limit, and begun again in another"
    assert error_of(playing, run, "loops").endswith(f"the last time by Celery's hard time limit ({HARD:g} s)")
    statement = (
        "SELECT extract(epoch FROM finished_at - started_at) FROM tasks WHERE flow_session_id = %s AND action = %s"
    )
    ((seconds,),) = playing.rows(statement, run, "swallows")
    assert LIMIT - 0.01 <= float(seconds) <= LIMIT + GRACE, "the run does not wait for what takes no notice"
    siblings_succeeded(playing, run, [*SIBLINGS, "join"])


def test_a_process_that_is_stopped_ends_at_the_hard_limit_and_its_chunk_runs_elsewhere(stack: ChaosStack) -> None:
    items, slow = 240, 150
    seconds = f"${{{{ item == {slow} ? 1.0 : 0.002 }}}}"
    each = {
        "each": {"uses": "chaos.work", "with": {"seconds": seconds}, "for_each": {"range": items}},
    }
    kind = beside_siblings("stopped", each, {"succeeded": items + 5})
    with scene(stack, kind) as playing:
        run = playing.send(kind)
        pid = playing.wait_for_start(run, f"each:{slow}").pid
        worker = playing.worker_of(pid)
        fault = playing.note("stuck child", pids=frozenset({pid}))
        os.kill(pid, signal.SIGSTOP)
        gone_after = measured(lambda: not is_running(pid), "the stopped process has ended", seconds=HARD + 20)
        fault.over = time.time()
        assert playing.wait_for_end(run) == "succeeded"
        assert worker.is_running()
    assert gone_after <= HARD + 1, f"it ended {gone_after:.2f} s after it was stopped; the hard limit is {HARD:g} s"
    again = playing.runs_of(run, f"each:{slow}")
    assert len(again) == 2
    assert again[1].started - fault.over <= 2, "its item begins again at once"
    others = [each for each in playing.runs_of(run) if fault.began < each.started < fault.over and each.pid != pid]
    assert others, "the others went on meanwhile"
