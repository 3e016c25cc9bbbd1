"""How the fleet was, over the last day: a sample each ten seconds, for the page about throughput.

Any number of processes may sample; who finds a fresh sample makes none. Numbers of what has ended are of all time, as
they are in `metric_counts`, so a sample that is missing, or made twice, falsifies nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from orchestration.store.pool import Database
from orchestration.telemetry.metrics import WAITS
from orchestration.telemetry.probes import probed

SAMPLE_SECONDS = 10.0
KEPT_HOURS = 25

_IS_FRESH = """
SELECT 1 FROM fleet_samples WHERE namespace = %s AND sampled_at > clock_timestamp() - make_interval(secs => %s) LIMIT 1
"""

_INSERT = f"""
INSERT INTO fleet_samples (namespace, ended, failed, retried, runs, waits, permits, slots, workers, waiting, entries,
    lag_seconds)
SELECT %(namespace)s,
    COALESCE(sum(count * sign) FILTER (WHERE kind IN ('branch', 'item')), 0),
    COALESCE(sum(count * sign) FILTER (WHERE kind IN ('branch', 'item') AND status IN ('failed', 'timed_out')), 0),
    COALESCE(sum(count) FILTER (WHERE measure = 'task_retries'), 0),
    COALESCE(sum(count) FILTER (WHERE measure = 'workflow'), 0),
    ARRAY(
        SELECT COALESCE(sum(count), 0)::bigint
        FROM generate_series(0, {len(WAITS.whole)}) AS place
        LEFT JOIN metric_counts AS one ON one.measure = 'branch_wait' AND one.bucket = place
        GROUP BY place ORDER BY place
    ),
    %(permits)s, %(slots)s, %(workers)s, %(waiting)s, %(entries)s, %(lag_seconds)s
FROM (
    SELECT *, replace(measure, '_undone', '') AS kind, CASE WHEN measure LIKE '%%\\_undone' THEN -1 ELSE 1 END AS sign
    FROM metric_counts
    WHERE measure IN ('branch', 'branch_undone', 'item', 'item_undone', 'task_retries', 'workflow')
) AS counted
"""

_READ = """
SELECT sampled_at, ended, failed, retried, runs, waits, permits, slots, workers, waiting, entries, lag_seconds
FROM fleet_samples WHERE namespace = %s AND sampled_at > clock_timestamp() - make_interval(secs => %s)
ORDER BY sampled_at
"""


@dataclass(frozen=True, slots=True)
class Gauges:
    """How the fleet is at a moment."""

    #: Branches that run, or are about to.
    permits: int
    slots: int
    workers: int
    #: Runs that wait for a slot, or are queued.
    waiting: int
    #: Status updates that are not recorded yet, and for how long the oldest is not.
    entries: int
    lag_seconds: float


@dataclass(frozen=True, slots=True)
class Sample:
    """How the fleet was, and what had ended by then since the database was made."""

    sampled_at: datetime
    #: Branches, items among them.
    ended: int
    #: Of these, failed or timed out.
    failed: int
    #: Attempts beyond the first.
    retried: int
    runs: int
    #: Branches by how long they had waited: places in WAITS, the last one above all.
    waits: tuple[int, ...]
    gauges: Gauges


def is_sampled(database: Database, namespace: str) -> bool:
    """Whether somebody has made a sample lately."""
    return bool(database.fetch(_IS_FRESH, (namespace, SAMPLE_SECONDS - 1)))


@probed("sql.add_sample")
def add_sample(database: Database, namespace: str, gauges: Gauges) -> None:
    """There is a sample of now."""
    database.execute(
        _INSERT,
        {
            "namespace": namespace, "permits": gauges.permits, "slots": gauges.slots, "workers": gauges.workers,
            "waiting": gauges.waiting, "entries": gauges.entries, "lag_seconds": gauges.lag_seconds,
        },
    )  # fmt: skip


def drop_old_samples(database: Database) -> None:
    """What is older than KEPT_HOURS is gone."""
    database.execute(
        "DELETE FROM fleet_samples WHERE sampled_at < clock_timestamp() - make_interval(hours => %s)", (KEPT_HOURS,)
    )


def read_samples(database: Database, namespace: str, seconds: float) -> list[Sample]:
    """Samples of the last so many seconds, the oldest first."""
    rows = database.fetch(_READ, (namespace, seconds))
    return [Sample(row[0], row[1], row[2], row[3], row[4], tuple(row[5]), Gauges(*row[6:])) for row in rows]
