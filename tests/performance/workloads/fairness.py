"""Small sessions beside a large one, and large ones beside each other: who waits for whom, and what it costs."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, ClassVar

from orchestration.state.live import LiveState
from tasks import run_workflow
from tests.performance.comparison import Comparison, Goal, Sample
from tests.performance.counting import Counters, expect
from tests.performance.stack import FORKING, NAMESPACE, WorkerKind
from tests.performance.workloads.workload import NOOP, WARM_RUNS, counted_rows, publish, result_of, run_all
from tests.support.shares import SHARES

LARGE, SMALL = "bench-large", "bench-small-beside"
ITEM_SECONDS = 0.001
#: Tasks of a small run.
SMALL_TASKS = 5
BURST = 20
#: What is done in this time after both have begun is not counted: the later one has a head start.
HEAD_START_SECONDS = 1.0


def publish_large(counters: Counters, name: str = LARGE, weight: float = 1) -> None:
    """A workflow of `payload.items` items of a millisecond."""
    each = {"uses": "bench.sleep", "with": {"seconds": ITEM_SECONDS}, "for_each": {"range": "${{ payload.items }}"}}
    publish(counters, name, {"each": each}, limits={"weight": weight})
    run_all(name, {"items": 100}, WARM_RUNS)


@dataclass(frozen=True, slots=True)
class SmallBeside:
    """Sessions of 1 → 3 → 1 actions, each fork shared, beside one of many short branches, and without it."""

    items: int
    #: How long the large one is alone, and how many small ones then come, one each `pause_seconds`.
    alone_seconds: float
    runs: int
    pause_seconds: float
    name: ClassVar[str] = "small-beside-large"
    worker: ClassVar[WorkerKind] = FORKING
    repeats: ClassVar[int] = 1
    beside: ClassVar[str] = "without the large one"
    comparisons: ClassVar[Sequence[Comparison]] = (
        Comparison("one small run, p50", "s", "one", "one", by="difference", goal=Goal(0.2, is_most=True)),
        Comparison(f"a burst of {BURST}", "s", "burst", "burst", goal=Goal(3.0, is_most=True)),
        Comparison("rate that the large one keeps", "", "keeps", goal=Goal(0.85, of="ours")),
    )

    @property
    def title(self) -> str:
        return f"small runs (1 → 3 → 1) beside {self.items:,} items of {ITEM_SECONDS * 1000:g} ms"

    def warm_up(self, counters: Counters) -> None:
        publish_large(counters)
        actions: dict[str, Any] = {"first": NOOP}
        actions |= {name: {**NOOP, "needs": ["first"]} for name in ("left", "middle", "right")}
        actions["last"] = {**NOOP, "needs": ["left", "middle", "right"]}
        publish(counters, SMALL, actions)
        for _ in range(4):
            run_all(SMALL, {}, WARM_RUNS)
        counters.wait_recorded()

    def ours(self, counters: Counters) -> Sample:
        progress = _Progress(counters)
        sent = run_workflow.delay(LARGE, {"items": self.items})
        progress.wait_begun(sent.id, self.items)
        alone = progress.rate(sent.id, self.items, self.alone_seconds)
        settled, begun = progress.settled(sent.id, self.items), time.perf_counter()
        results: list[dict[str, Any]] = []
        one = self._one_by_one(results)
        seconds = time.perf_counter() - begun
        rate = (progress.settled(sent.id, self.items) - settled) / seconds
        burst = _burst(results)
        large = result_of(sent)
        expect("items that succeeded", large["counts"], {"succeeded": self.items})
        counters.wait_recorded()
        rows = counted_rows(counters, [large, *results], self.items + 1 + SMALL_TASKS * len(results))
        return Sample(
            {"one": one, "burst": burst, "keeps": rate / alone if alone else 1.0},
            {"items": self.items, "runs": len(results), "rows": rows},
        )

    def other(self, counters: Counters) -> Sample:
        results: list[dict[str, Any]] = []
        one = self._one_by_one(results)
        burst = _burst(results)
        counters.wait_recorded()
        rows = counted_rows(counters, results, SMALL_TASKS * len(results))
        return Sample({"one": one, "burst": burst}, {"runs": len(results), "rows": rows})

    def _one_by_one(self, results: list[dict[str, Any]]) -> float:
        """Seconds that a small run takes, the median; one begins each `pause_seconds`."""
        times, pause = [], threading.Event()
        for _ in range(self.runs):
            begun = time.perf_counter()
            results += run_all(SMALL, {}, 1)
            times.append(time.perf_counter() - begun)
            pause.wait(max(0.0, self.pause_seconds - times[-1]))
        return median(times)


@dataclass(frozen=True, slots=True)
class Shares:
    """Two large sessions at once."""

    items: int
    weights: tuple[float, float]
    worker: ClassVar[WorkerKind] = FORKING
    repeats: ClassVar[int] = 3
    beside: ClassVar[str] = ""
    comparisons: ClassVar[Sequence[Comparison]] = (
        Comparison("the first one's share", "", "share"),
        Comparison("away from what its weight says by", "", "away", goal=Goal(0.05, is_most=True)),
        Comparison("runners that begin in a second", "", "runners", goal=Goal(10.0, is_most=True)),
    )

    @property
    def name(self) -> str:
        return "shares-{:g}-{:g}".format(*self.weights)

    @property
    def title(self) -> str:
        return "two sessions of {:,} items of {:g} ms, weights {:g} : {:g}".format(
            self.items, ITEM_SECONDS * 1000, *self.weights
        )

    def warm_up(self, counters: Counters) -> None:
        for name, weight in zip(self._names, self.weights, strict=True):
            publish_large(counters, name, weight)
        counters.wait_recorded()

    def ours(self, counters: Counters) -> Sample:
        before = counters.tasks_run()
        sent = [run_workflow.delay(name, {"items": self.items}) for name in self._names]
        results = [result_of(each) for each in sent]
        for result in results:
            expect("items that succeeded", result["counts"], {"succeeded": self.items})
        counters.wait_recorded()
        rows = counted_rows(counters, results, 2 * (self.items + 1))
        runners = counters.tasks_since(before).get("tasks.run_branches", 0)
        sessions = [str(result["flow_session_id"]) for result in results]
        found = counters.database.fetch(SHARES, (sessions, self._head_start, sessions))
        used = {session: float(seconds) for session, seconds, _ in found}
        together = float(found[0][2]) if found else 0.0
        wanted = self.weights[0] / sum(self.weights)
        share = used.get(sessions[0], 0.0) / sum(used.values()) if together else wanted
        return Sample(
            {"share": share, "away": abs(share - wanted), "runners": runners / max(together, self._head_start)},
            {"items": 2 * self.items, "rows": rows},
        )

    def other(self, counters: Counters) -> None:
        """Nothing: the shares are known."""

    @property
    def _names(self) -> list[str]:
        return [f"{LARGE}-{self.name}-{number}" for number in (1, 2)]

    @property
    def _head_start(self) -> float:
        return min(HEAD_START_SECONDS, self.items * ITEM_SECONDS / 10)


class _Progress:
    """How far a large session is."""

    def __init__(self, counters: Counters) -> None:
        self._live = LiveState(counters.stack.redis_url, NAMESPACE)

    def settled(self, flow_session_id: str, size: int) -> int:
        """Items that have settled; all when the session has ended."""
        snapshot = self._live.snapshot(flow_session_id)
        if snapshot is None:
            return size
        items = snapshot.items.get("each")
        return items.settled if items else 0

    def wait_begun(self, flow_session_id: str, size: int) -> None:
        """Return when some of its items have settled."""
        pause = threading.Event()
        while not self._live.is_open(flow_session_id) or not self.settled(flow_session_id, size):
            pause.wait(0.01)

    def rate(self, flow_session_id: str, size: int, seconds: float) -> float:
        """Items in a second, over so many seconds from now on."""
        before, begun = self.settled(flow_session_id, size), time.perf_counter()
        threading.Event().wait(seconds)
        return (self.settled(flow_session_id, size) - before) / (time.perf_counter() - begun)


def _burst(results: list[dict[str, Any]]) -> float:
    """Seconds until all of a burst of small runs have ended."""
    begun = time.perf_counter()
    results += run_all(SMALL, {}, BURST)
    return time.perf_counter() - begun
