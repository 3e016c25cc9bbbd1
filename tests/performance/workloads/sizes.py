"""The sizes: those that the goals are stated for, and small ones that only show that the benchmark works.

Workloads of one kind of worker stand together, since changing it takes seconds. The million is the last, because
PostgreSQL tidies up for some time after it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from tests.performance.stack import FORKING, PREFORK, THREADS
from tests.performance.workloads.backlog import Backlog
from tests.performance.workloads.branching import Branching
from tests.performance.workloads.crowd import Crowd
from tests.performance.workloads.fairness import Shares, SmallBeside
from tests.performance.workloads.fan_out import FanOut, Growth
from tests.performance.workloads.linear import Chain, OneAction
from tests.performance.workloads.million import Million
from tests.performance.workloads.mixed import Mixed
from tests.performance.workloads.observability import Observability
from tests.performance.workloads.small_runs import SmallRuns
from tests.performance.workloads.waiting import Waiting
from tests.performance.workloads.workload import CHORD, COUNTED, Workload

#: Whose figures are shown; the goals are for the first.
DISPATCHERS: Final = (COUNTED, CHORD)


def full_size(dispatchers: Sequence[str] = DISPATCHERS) -> list[Workload]:
    """What `make bench` measures and the goals are stated for."""
    return [
        *(FanOut(10_000, dispatch) for dispatch in dispatchers),
        Growth(100_000, 10_000),
        Chain(1000, 200),
        OneAction(200),
        SmallRuns(400),
        *(Waiting(40, 0.1, 10, PREFORK, 0.85, dispatch) for dispatch in dispatchers),
        *(Waiting(400, 0.1, 10, PREFORK, 0.95, dispatch) for dispatch in dispatchers),
        *(Waiting(1000, 0.5, 100, PREFORK, 0.9, dispatch) for dispatch in dispatchers),
        Mixed(3000, 300, 1.0),
        *(SmallRuns(400, FORKING, dispatch) for dispatch in dispatchers),
        SmallBeside(100_000, 8.0, 15, 1.0),
        Shares(10_000, (1, 1)),
        Shares(10_000, (1, 3)),
        Crowd(10_000, 2000),
        *(Waiting(40, 0.1, 10, THREADS, 0.85, dispatch) for dispatch in dispatchers),
        *(Waiting(400, 0.1, 10, THREADS, 0.95, dispatch) for dispatch in dispatchers),
        Branching(0.05, 5),
        Observability(100_000, 1000, 400),
        Backlog(1_000_000, 200_000),
        Million(1_000_000, 10_000),
    ]


def quick_size() -> list[Workload]:
    """The same, small: to see that the benchmark works."""
    return [
        FanOut(200),
        Growth(1000, 200),
        Chain(50, 20),
        OneAction(10),
        SmallRuns(8),
        Waiting(40, 0.02, 10, PREFORK, 0.85),
        Waiting(400, 0.005, 10, PREFORK, 0.95),
        Waiting(1000, 0.02, 100, PREFORK, 0.9),
        Mixed(300, 100, 0.1),
        Million(3000, 200),
        SmallRuns(8, FORKING),
        SmallBeside(1000, 0.1, 2, 0.1),
        Shares(300, (1, 1)),
        Shares(300, (1, 3)),
        Crowd(50, 50),
        Waiting(40, 0.02, 10, THREADS, 0.85),
        Waiting(400, 0.005, 10, THREADS, 0.95),
        Branching(0.02, 1),
        Observability(200, 50, 8, rounds=1),
        Backlog(20_000, 5000),
    ]
