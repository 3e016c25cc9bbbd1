"""Every metric once: name, type, labels, what it means. No I/O; docs/reference/metrics.md is written from this.

Names of workflows, actions and queues are bounded by `METRICS_MAX_NAMES`; no label ever has the id of a run.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

PREFIX: Final = "parallelizer_"


class Type(StrEnum):
    """As Prometheus calls it."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"
    #: Count and sum only.
    SUMMARY = "summary"


class Source(StrEnum):
    """Of what a metric tells, and where it comes from."""

    #: Of the fleet: counted in PostgreSQL, in the transactions that write what is counted.
    RECORD = "record"
    #: Of the fleet: read from Redis at each scrape.
    LIVE = "live"
    #: Of one worker: its processes since it was started.
    WORKER = "worker"


@dataclass(frozen=True, slots=True)
class Bounds:
    """Upper bounds of a histogram's buckets, ascending: whole numbers of the unit in which is counted."""

    whole: tuple[int, ...]
    #: So many of them are one of the unit that is shown.
    scale: int = 1

    @property
    def shown(self) -> tuple[float, ...]:
        """In the unit that is shown; what is above all comes besides."""
        return tuple(bound / self.scale for bound in self.whole)


#: Durations: from an item of a millisecond to a run of hours.
DURATIONS: Final = Bounds(
    (1_000, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000, 10_000_000,
     30_000_000, 60_000_000, 300_000_000, 1_800_000_000, 7_200_000_000), 1_000_000,
)  # fmt: skip
WAITS: Final = DURATIONS
#: Branches of a run.
BRANCH_COUNTS: Final = Bounds((1, 2, 5, 10, 20, 50, 100, 1_000, 10_000, 100_000))
#: Rows of one write to PostgreSQL.
BATCH_ROWS: Final = Bounds((1, 10, 50, 100, 500, 1_000, 2_500, 5_000, 10_000))
WRITE_TIMES: Final = Bounds(
    (1_000_000, 5_000_000, 10_000_000, 50_000_000, 100_000_000, 250_000_000, 500_000_000, 1_000_000_000,
     5_000_000_000, 30_000_000_000), 1_000_000_000,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric as it is shown."""

    #: Without `PREFIX`.
    short_name: str
    type: Type
    source: Source
    help: str
    labels: tuple[str, ...] = ()
    #: Of a histogram.
    bounds: Bounds | None = None

    @property
    def name(self) -> str:
        """As in PromQL; of a histogram or summary with `_bucket`, `_count`, `_sum` behind it."""
        return PREFIX + self.short_name

    @property
    def series(self) -> tuple[str, ...]:
        """All names under which it may be asked for."""
        ends = {Type.HISTOGRAM: ("_bucket", "_count", "_sum"), Type.SUMMARY: ("_count", "_sum")}.get(self.type, ("",))
        return tuple(self.name + end for end in ends)


def _record(name: str, type_: Type, help_: str, *labels: str, bounds: Bounds | None = None) -> Metric:
    return Metric(name, type_, Source.RECORD, help_, labels, bounds)


def _live(name: str, type_: Type, help_: str, *labels: str) -> Metric:
    return Metric(name, type_, Source.LIVE, help_, labels)


def _worker(name: str, type_: Type, help_: str, *labels: str, bounds: Bounds | None = None) -> Metric:
    return Metric(name, type_, Source.WORKER, help_, labels, bounds)


_EVERY = (
    # The record
    _record("workflows_total", Type.COUNTER, "Runs that ended, by status.", "workflow", "status"),
    _record("workflow_duration_seconds", Type.HISTOGRAM, "From the start of a run to its end.", "workflow",
            bounds=DURATIONS),
    _record("workflow_branches", Type.HISTOGRAM, "Branches of a run that ended, its items among them.", "workflow",
            bounds=BRANCH_COUNTS),
    _record("branches_total", Type.COUNTER, "Branches that ended, by status; without items.", "workflow", "status"),
    _record("branches_undone_total", Type.COUNTER,
            "Of these, ends that were taken back, since the branch ran once more after something was lost.",
            "workflow", "status"),
    _record("branch_duration_seconds", Type.HISTOGRAM, "From the start of a branch to its end.", "workflow",
            bounds=DURATIONS),
    _record("branch_wait_seconds", Type.HISTOGRAM,
            "How long a branch was ready and waited for a slot and its permits (the semaphores).", "workflow",
            bounds=WAITS),
    _record("tasks_total", Type.COUNTER, "Tasks that ended, by status; without items.", "workflow", "action", "status"),
    _record("tasks_undone_total", Type.COUNTER, "Of these, ends that were taken back.",
            "workflow", "action", "status"),
    _record("items_total", Type.COUNTER, "Items of a for_each that ended, by status.", "workflow", "action", "status"),
    _record("items_undone_total", Type.COUNTER, "Of these, ends that were taken back.",
            "workflow", "action", "status"),
    _record("task_duration_seconds", Type.HISTOGRAM, "From the start of a task or item to its end.",
            "workflow", "action", bounds=DURATIONS),
    _record("task_retries_total", Type.COUNTER,
            "Attempts of tasks and items beyond the first: retries, and what ran again after a crash.",
            "workflow", "action"),
    _record("failures_total", Type.COUNTER, "Tasks and items that failed, by the type of their error.", "error"),
    _record("dead_letters", Type.GAUGE, "Status updates that could not be recorded (`parallelizer dead-letters`)."),
    # Live state
    _live("sessions", Type.GAUGE, "Flow sessions with live state: running, or queued at a limit of sessions.",
          "status"),
    _live("branches_active", Type.GAUGE, "Permits in use in the fleet: branches that run or are about to."),
    _live("permits_held", Type.GAUGE,
          "Permits in use of a limit (level global, workflow or key; all keys together are one).", "level", "workflow"),
    _live("permits_limit", Type.GAUGE, "How many permits such a limit has.", "level", "workflow"),
    _live("permits_available", Type.GAUGE, "How many of them are free.", "level", "workflow"),
    _live("sessions_blocked", Type.GAUGE,
          "Flow sessions with ready work that wait at such a limit, or are queued at one of whole sessions.",
          "level", "workflow"),
    _live("workers", Type.GAUGE, "Workers whose lease holds."),
    _live("slots", Type.GAUGE, "Places for runners in workers that serve the queue.", "queue"),
    _live("runners", Type.GAUGE, "Runners that are published or run.", "queue"),
    _live("sessions_waiting", Type.GAUGE, "Flow sessions with ready work that wait for a slot of the queue.", "queue"),
    _live("oldest_wait_seconds", Type.GAUGE,
          "How long the oldest ready unit of the queue has waited to be claimed; of up to 200 sessions that wait.",
          "queue"),
    _live("status_entries", Type.GAUGE, "Entries of the status channel that are not yet recorded."),
    _live("status_lag_seconds", Type.GAUGE, "For how long the oldest of them has not been recorded."),
    _live("status_full", Type.GAUGE, "1 while the status channel is full, and runners wait for that."),
    _live("repairs_total", Type.COUNTER, "What the reaper repaired, by cause.", "cause"),
    _live("lease_expiries_total", Type.COUNTER,
          "What was given up because nobody renewed it: worker, lease (a runner at work), message (one on its way).",
          "of"),
    # One worker
    _worker("service_up", Type.GAUGE, "1 when the service answered at this scrape: redis, postgresql.", "service"),
    _worker("worker_slots", Type.GAUGE, "Places for runners in this worker."),
    _worker("runner_slices_total", Type.COUNTER, "Turns of runners in this worker, by why they left.", "verdict"),
    _worker("permit_seconds_total", Type.COUNTER, "Permits that this worker had, times how long it had them."),
    _worker("busy_seconds_total", Type.COUNTER,
            "Time in actions under these permits; divided by them, it is the parallel efficiency."),
    _worker("poison_branches_total", Type.COUNTER,
            "Branches and items that were failed here because their process died MAX_BRANCH_CRASHES times."),
    _worker("versions_cache_hits_total", Type.COUNTER, "Workflow versions that a process had compiled before."),
    _worker("versions_cache_misses_total", Type.COUNTER, "Workflow versions that had to be compiled."),
    _worker("versions_cache_update_seconds", Type.SUMMARY, "Reading and compiling a workflow version."),
    _worker("send_retries_total", Type.COUNTER, "Calls of a service that was away that were repeated."),
    _worker("fallbacks_total", Type.COUNTER,
            "Status updates that Redis did not take, by where they went: postgresql, spool, memory.", "way"),
    _worker("spool_bytes", Type.GAUGE, "Size of the spool that this worker can see."),
    _worker("spool_files", Type.GAUGE, "Files in it."),
    _worker("status_batch_rows", Type.HISTOGRAM, "Rows in a write of this worker's updater to PostgreSQL.",
            bounds=BATCH_ROWS),
    _worker("status_write_seconds", Type.HISTOGRAM, "How long such a write took.", bounds=WRITE_TIMES),
)  # fmt: skip

#: By name, without the prefix.
METRICS: Final[dict[str, Metric]] = {metric.short_name: metric for metric in _EVERY}
