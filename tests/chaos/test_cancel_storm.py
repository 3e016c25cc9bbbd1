"""A thousand runs are cancelled at once, whatever they wait for: all end, and nobody is left who waits or holds."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from orchestration.errors import UnknownRun
from orchestration.state.keys import KeySpace
from tests.chaos.scene import Scene, scene
from tests.chaos.stack import NAMESPACE, ChaosStack, chaos_stack
from tests.chaos.workload import Definition, Kind, step
from tests.support.waiting import wait_until

#: Of each kind; a thousand together.
BACKS_OFF, QUEUED, LIMITED, AT_WORK = 350, 320, 326, 4
#: Runs of `queued` that go on at once, and branches of `limited`.
ROOM = 2
CALLERS = 8


@pytest.fixture(scope="module")
def stack() -> Iterator[ChaosStack]:
    with chaos_stack((("prefork", 3), ("threads", 12))) as started:
        started.start_workers()
        yield started


def storm(folder: Path) -> dict[str, Kind]:
    """What waits for a retry, for admission, at a limit of branches, and what is at work."""
    held = {"uses": "chaos.held", "with": {"folder": str(folder)}}
    again = {"max_attempts": 3, "delay_seconds": 600, "jitter": 0}
    fails = {"uses": "chaos.fail", "needs": ["first"], "retry": again}
    parts: dict[str, Definition] = {
        "backs-off": {"actions": {"first": step([], 0.0), "fails": fails}},
        "queued": {"limits": {"max_concurrent_sessions": ROOM}, "actions": {"only": held}},
        "limited": {"limits": {"max_concurrent_branches_of_workflow": ROOM}, "actions": {"only": held}},
        "at-work": {"actions": {"first": step([], 0.0), "works": {**held, "needs": ["first"]}}},
    }
    return {
        name: Kind({"name": name, **part}, 0, {"cancelled": len(part["actions"])}, "cancelled")
        for name, part in parts.items()
    }


def cancel_all(runs: list[str]) -> None:
    """Several callers at once; a run whose message nobody has taken on yet is asked for again."""
    from tasks import cancel_session  # noqa: PLC0415 - after the environment is set

    def cancel(run: str) -> None:
        pause = threading.Event()
        for _ in range(600):
            try:
                cancel_session(run, waits=False)
            except UnknownRun:
                pause.wait(0.05)
            else:
                return
        raise AssertionError(f"{run} was not accepted in 30 s")

    with ThreadPoolExecutor(CALLERS) as callers:
        list(callers.map(cancel, runs))


def members(playing: Scene, *names: str) -> int:
    space = KeySpace(NAMESPACE)
    with closing(playing.stack.redis()) as client:
        return sum(client.zcard(space.prefix + name) for name in names)


def test_a_thousand_cancelled_runs_leave_nobody_behind_who_waits_or_holds(stack: ChaosStack, tmp_path: Path) -> None:
    kinds = storm(tmp_path)
    with scene(stack, *kinds.values(), a_second=1.0) as playing:
        runs = [playing.send(kinds["backs-off"]) for _ in range(BACKS_OFF)]
        wait_until(lambda: members(playing, "delayed") >= BACKS_OFF, "all of these wait for a retry", seconds=90)
        runs += [playing.send(kinds["queued"]) for _ in range(QUEUED)]
        runs += [playing.send(kinds["limited"]) for _ in range(LIMITED)]
        runs += [playing.send(kinds["at-work"]) for _ in range(AT_WORK)]
        queued = ("blocked:sessions:workflow:queued",)
        wait_until(lambda: members(playing, *queued) >= QUEUED - ROOM, "all others are queued", seconds=90)
        blocked = ("blocked:workflow:limited",)
        wait_until(lambda: members(playing, *blocked) >= LIMITED - ROOM, "all others wait at the limit", seconds=90)
        for run in runs[-AT_WORK:]:
            playing.wait_for_start(run, "works")
        playing.note("cancel storm", cancelled=frozenset(runs))
        cancel_all(runs)
        statement = "SELECT count(*) FROM flow_sessions WHERE flow_session_id = ANY (%s) AND status = 'cancelled'"

        def ended() -> int:
            return int(playing.rows(statement, runs)[0][0])

        wait_until(lambda: ended() == len(runs), "all have ended as cancelled", seconds=90)
        assert len(runs) == 1000
        assert members(playing, "delayed", "permits:workflow:limited", *blocked, *queued) == 0
