"""Processes and whole workers that die, stand still or are replaced: how soon it is noticed, and what runs again."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from parallelizer.services.supervision import LoggedProgram
from parallelizer.services.workers import registered_workers
from tests.chaos.audit import Execution
from tests.chaos.faults import all_of
from tests.chaos.scene import Scene, measured, scene
from tests.chaos.stack import NAMESPACE, ChaosStack, chaos_stack
from tests.chaos.workload import Kind, step
from tests.support.crashes import is_running, kill, pool_processes, quit_at_once, signal_worker, upkeep_process
from tests.support.waiting import wait_until

#: Seconds; what a lost host costs is told in it.
LEASE = 8.0
#: What a lost host may cost beyond its lease, and a lost process in all, seconds.
MOST_BEYOND_LEASE, MOST_FOR_A_PROCESS = 5.0, 2.0
KILLS = 5


@pytest.fixture(scope="module")
def stack() -> Iterator[ChaosStack]:
    with chaos_stack(LEASE_SECONDS=str(LEASE)) as started:
        started.start_workers()
        yield started


def wait_renewed(stack: ChaosStack, worker: LoggedProgram) -> None:
    """Return when the lease of a worker that is registered is a new one."""

    def lease() -> float:
        found = registered_workers(stack.redis_url, NAMESPACE, NAMESPACE)
        return next((until for name, until in found.items() if name.startswith(f"{worker.name}.")), 0.0)

    before = lease()
    wait_until(lambda: lease() > before, f"{worker.name} has renewed its lease")


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Kind]:
    """Four items that each wait for a file: at work until the test says so."""
    each = {
        "uses": "chaos.held", "with": {"folder": str(tmp_path)}, "needs": ["first"], "for_each": {"range": 4},
    }  # fmt: skip
    actions = {"first": step([], 0.0), "each": each, "after": step(["each"], 0.0)}
    yield Kind({"name": f"held-{tmp_path.name[:40]}", "actions": actions}, 0, {"succeeded": 6})
    (tmp_path / "all").touch()  # a test that failed must not keep the slots from the next one


def begin_held(playing: Scene, kind: Kind) -> tuple[str, LoggedProgram, list[Execution]]:
    """A run whose four items are at work; a worker that has some of them, and these."""
    run = playing.send(kind)
    wait_until(lambda: len(items_of(playing, run)) == 4, "all items are at work", seconds=60)
    worker = playing.worker_of(items_of(playing, run)[0].pid)
    return run, worker, in_worker(items_of(playing, run), worker)


def items_of(playing: Scene, run: str) -> list[Execution]:
    return [each for each in playing.runs_of(run) if each.task.startswith("each:")]


def in_worker(runs: list[Execution], worker: LoggedProgram) -> list[Execution]:
    pids = all_of(worker)
    return [each for each in runs if each.pid in pids]


def begun_again(playing: Scene, run: str, cut: list[Execution], since: float, most: float) -> float:
    """Return when all of these have begun once more: seconds since then, of the last one."""

    def last() -> list[float]:
        runs = playing.runs_of(run)
        return [max([other.started for other in runs if other.task == each.task], default=0.0) for each in cut]

    wait_until(lambda: min(last()) > since, "what was cut has begun again", seconds=most + 30)
    return max(last()) - since


def end_with_what_was_cut(
    playing: Scene, run: str, cut: list[Execution], since: float, most: float, folder: Path
) -> float:
    """When all of these have begun once more, items are held no longer, and the run succeeds; as `begun_again`."""
    took = begun_again(playing, run, cut, since, most)
    (folder / "all").touch()
    assert playing.wait_for_end(run) == "succeeded"
    return took


def test_a_lost_process_is_noticed_at_once(stack: ChaosStack) -> None:
    each = step(["first"], 0.25, for_each={"range": 80})
    kind = Kind({"name": "many", "actions": {"first": step([], 0.0), "each": each}}, 0, {"succeeded": 81})
    took = []
    with scene(stack, kind) as playing:
        run = playing.send(kind)
        for _ in range(KILLS):
            done = len(items_of(playing, run))
            wait_until(lambda: len(items_of(playing, run)) > done, "it goes on")  # noqa: B023
            children = [pid for worker in stack.workers for pid in pool_processes(worker)]
            wait_until(lambda: bool(running(playing, run, children)), "a process runs an item")  # noqa: B023
            (cut, *_) = running(playing, run, children)
            fault = playing.kill(cut.pid)
            took.append(begun_again(playing, run, [cut], fault.began, MOST_FOR_A_PROCESS))
        assert playing.wait_for_end(run) == "succeeded"
    assert max(took) <= MOST_FOR_A_PROCESS, took


def running(playing: Scene, run: str, pids: list[int]) -> list[Execution]:
    return [each for each in items_of(playing, run) if each.pid in pids and each.ended is None and is_running(each.pid)]


def test_a_process_that_is_told_to_end_says_nothing_of_its_branch_which_begins_again(
    stack: ChaosStack, held: Kind, tmp_path: Path
) -> None:
    """As systemd tells all processes of a service at once."""
    with scene(stack, held) as playing:
        run, _, _ = begin_held(playing, held)
        children = [pid for worker in stack.workers for pid in pool_processes(worker)]
        (cut, *_) = running(playing, run, children)
        fault = playing.note("child told to end", pids=frozenset({cut.pid}))
        os.kill(cut.pid, signal.SIGTERM)
        wait_until(lambda: not is_running(cut.pid), "it has ended")
        fault.over = time.time()
        took = end_with_what_was_cut(playing, run, [cut], fault.began, MOST_FOR_A_PROCESS, tmp_path)
    assert took <= MOST_FOR_A_PROCESS


def test_a_lost_host_is_noticed_when_its_lease_is_over(stack: ChaosStack, held: Kind, tmp_path: Path) -> None:
    with scene(stack, held) as playing:
        run, worker, cut = begin_held(playing, held)
        fault = playing.lose_host(worker)
        took = end_with_what_was_cut(playing, run, cut, fault.began, LEASE + MOST_BEYOND_LEASE, tmp_path)
    assert took <= LEASE + MOST_BEYOND_LEASE


def test_what_a_cold_shutdown_cuts_begins_again_when_the_lease_is_over(
    stack: ChaosStack, held: Kind, tmp_path: Path
) -> None:
    """The first signal lets branches end; the second one does not."""
    with scene(stack, held) as playing:
        run, worker, cut = begin_held(playing, held)
        fault = playing.note("cold shutdown", pids=all_of(worker))
        quit_at_once(worker)
        fault.over = time.time()
        worker.sweep()
        stack.replace_worker(worker)
        took = end_with_what_was_cut(playing, run, cut, fault.began, LEASE + MOST_BEYOND_LEASE, tmp_path)
    assert took <= LEASE + MOST_BEYOND_LEASE


def test_what_a_worker_settles_that_was_frozen_for_longer_than_its_lease_is_refused(
    stack: ChaosStack, held: Kind, tmp_path: Path
) -> None:
    with scene(stack, held) as playing:
        run, worker, cut = begin_held(playing, held)
        fault = playing.note("zombie worker", pids=all_of(worker))
        signal_worker(worker, signal.SIGSTOP)
        fault.ends = lambda: signal_worker(worker, signal.SIGCONT)
        took = begun_again(playing, run, cut, fault.began, LEASE + MOST_BEYOND_LEASE)
        (tmp_path / "all").touch()
        fault.end()
        assert playing.wait_for_end(run) == "succeeded"

        def refused() -> int:
            lines = playing.log_lines(f"in {run} refused")
            return sum(f"settlement of c:{each.task} " in line for line in lines for each in cut)

        wait_until(lambda: refused() == len(cut), "all that it settled late was refused, and said so")
    rows = playing.rows("SELECT item, worker, attempt FROM tasks WHERE flow_session_id = %s AND action = 'each'", run)
    late = {int(each.task.partition(":")[2]) for each in cut}
    for item, name, attempt in rows:
        if item in late:
            assert (name.startswith(f"{worker.name}."), attempt) == (False, 2), "nothing of it was accepted"
    assert took <= LEASE + MOST_BEYOND_LEASE


def test_a_main_process_that_stands_still_costs_its_time_only(stack: ChaosStack, held: Kind, tmp_path: Path) -> None:
    """Its upkeep process renews its leases, and its pool goes on with what it has."""
    with scene(stack, held, a_second=3.0) as playing:
        run, _, _ = begin_held(playing, held)
        worker = stack.workers[0]  # on threads the actions would stand still with it
        fault = playing.note("main process stopped")
        worker.send(signal.SIGSTOP)
        fault.ends = lambda: worker.send(signal.SIGCONT)
        time.sleep(1.2 * LEASE)  # the fault lasts
        assert len(items_of(playing, run)) == 4, "nobody takes it for lost"
        (tmp_path / "all").touch()
        wait_until(lambda: all(each.ended for each in items_of(playing, run)), "what its pool had ends")
        fault.end()
        assert playing.wait_for_end(run) == "succeeded"
    assert playing.findings.again == 0


def test_an_upkeep_process_that_is_killed_is_there_again_and_nobody_notices(
    stack: ChaosStack, held: Kind, tmp_path: Path
) -> None:
    with scene(stack, held) as playing:
        run, worker, _ = begin_held(playing, held)
        playing.note("upkeep process killed")
        before = upkeep_process(worker)
        assert before is not None
        kill(before)
        took = measured(lambda: upkeep_process(worker) not in (None, before), "another one is there", seconds=30)
        wait_renewed(stack, worker)
        assert len(items_of(playing, run)) == 4
        (tmp_path / "all").touch()
        assert playing.wait_for_end(run) == "succeeded"
    assert took <= 3
    assert playing.findings.again == 0


def test_an_upkeep_process_that_is_stopped_is_replaced_before_its_leases_are_over(
    stack: ChaosStack, held: Kind, tmp_path: Path
) -> None:
    with scene(stack, held) as playing:
        run, worker, _ = begin_held(playing, held)
        playing.note("upkeep process stopped")
        before = upkeep_process(worker)
        assert before is not None
        os.kill(before, signal.SIGSTOP)
        measured(lambda: not is_running(before), "the stopped one is gone", seconds=30)
        wait_renewed(stack, worker)
        assert len(items_of(playing, run)) == 4
        (tmp_path / "all").touch()
        assert playing.wait_for_end(run) == "succeeded"
    assert playing.findings.again == 0


def test_workers_that_are_replaced_one_by_one_run_nothing_again(stack: ChaosStack) -> None:
    with scene(stack, a_second=8.0) as playing:
        for worker in list(stack.workers):
            playing.note("rolling restart")
            worker.send(signal.SIGTERM)
            wait_until(worker.has_exited, f"{worker.name} has ended", seconds=60)
            worker.sweep()
            stack.replace_worker(worker)
    assert playing.findings.executions
    assert playing.findings.again == 0
