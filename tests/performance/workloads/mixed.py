"""A few slow items among many that do nothing: how long a result waits for a slow one that it has nothing to do with.

A result is there for everybody when its row is in PostgreSQL. So the database of the benchmark notes when each row was
written, and a result has waited from the end of its item (`finished_at`, by Redis's clock) until then; both clocks are
this machine's. That is more than slow items can be blamed for: the way through the status channel belongs to it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

from orchestration.store.pool import Database
from tests.performance.comparison import Comparison, Goal, Sample
from tests.performance.counting import Counters, expect
from tests.performance.stack import PREFORK, WorkerKind
from tests.performance.workloads.workload import WARM_RUNS, publish, run_all, time_runs

WORKFLOW = "bench-mixed"
_NOTE_TIMES = """
ALTER TABLE tasks ADD COLUMN written_at timestamptz;
CREATE FUNCTION note_time() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN NEW.written_at = clock_timestamp(); RETURN NEW; END';
CREATE TRIGGER note_time BEFORE INSERT OR UPDATE ON tasks FOR EACH ROW EXECUTE FUNCTION note_time()
"""
_FORGET_TIMES = """
DROP TRIGGER note_time ON tasks;
DROP FUNCTION note_time;
ALTER TABLE tasks DROP COLUMN written_at
"""
_LONGEST_WAIT = """
SELECT EXTRACT(epoch FROM max(written_at - finished_at)), count(*) FROM tasks
WHERE flow_session_id = %s AND item %% %s > 0
    AND session_day IN (SELECT session_day FROM session_days WHERE flow_session_id = %s)
"""


@dataclass(frozen=True, slots=True)
class Mixed:
    """The first of each `every` items is slow."""

    items: int
    every: int
    seconds: float
    name: ClassVar[str] = "mixed"
    worker: ClassVar[WorkerKind] = PREFORK
    repeats: ClassVar[int] = 3
    beside: ClassVar[str] = ""
    comparisons: ClassVar[Sequence[Comparison]] = (
        Comparison("longest wait of a fast item's row", "s", "longest_wait", goal=Goal(0.1, is_most=True)),
        Comparison("share of the ideal", "", "share"),
    )

    @property
    def title(self) -> str:
        return f"{self.items:,} items, one in {self.every} of {self.seconds:g} s, the others no-ops"

    def warm_up(self, counters: Counters) -> None:
        inputs = {
            "every": self.every, "seconds": "${{ payload.seconds }}", "index": "${{ item_index }}",
            "journal": "${{ payload.journal }}",
        }  # fmt: skip
        each = {"uses": "bench.one_slow_in", "with": inputs, "for_each": {"range": "${{ payload.items }}"}}
        publish(counters, WORKFLOW, {"each": each})
        journal = str(counters.stack.folder / "warm-up.journal")
        run_all(WORKFLOW, {"items": self.every, "seconds": 0.0, "journal": journal}, WARM_RUNS)
        counters.wait_recorded()

    def ours(self, counters: Counters) -> Sample:
        journal = counters.stack.folder / "mixed.journal"
        journal.unlink(missing_ok=True)
        payload = {"items": self.items, "seconds": self.seconds, "journal": str(journal)}
        with _noted_times(counters.database):
            timed = time_runs(counters, WORKFLOW, payload, 1, self.items + 1)
            session = timed.results[0]["flow_session_id"]
            [(wait, waited)] = counters.database.fetch(_LONGEST_WAIT, (session, self.every, session))
        runs = Counter(journal.read_text().split())
        expect("items that ran once", sum(count == 1 for count in runs.values()), self.items)
        expect("runs of items", runs.total(), self.items)
        slow = len(range(0, self.items, self.every))
        expect("fast items in PostgreSQL", waited, self.items - slow)
        ideal = slow * self.seconds / self.worker.concurrency
        return Sample(
            {"longest_wait": float(wait), "share": ideal / timed.seconds_to_results},
            {"items": self.items, "slow": slow, "rows": timed.rows, "runs": runs.total()},
        )

    def other(self, counters: Counters) -> None:
        """Nothing: plain Celery has no chunks in which one item could wait for another."""


@contextmanager
def _noted_times(database: Database) -> Iterator[None]:
    """In the block, each row of `tasks` has the time when it was written last."""
    _execute(database, _NOTE_TIMES)
    try:
        yield
    finally:
        _execute(database, _FORGET_TIMES)


def _execute(database: Database, statements: Any) -> None:
    with database.transaction() as cursor:
        cursor.execute(statements)
