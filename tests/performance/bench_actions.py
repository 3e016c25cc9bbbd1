"""Actions of the workloads (ACTION_MODULES=tests.performance.bench_actions)."""

from __future__ import annotations

import time

from orchestration import action
from tests.support.journal import write_line


@action("bench.sleep")
def sleep(seconds: float) -> None:
    """Keep a process or thread for so long; `core.sleep` keeps none."""
    time.sleep(seconds)


@action("bench.one_slow_in")
def one_slow_in(every: int, seconds: float, index: int, journal: str) -> None:
    """Write the item's index into the journal, and return; the first of `every` items sleeps before that."""
    if index % every == 0:
        time.sleep(seconds)
    write_line(journal, str(index))
