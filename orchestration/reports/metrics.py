"""Metrics as they are now: what the record has counted, what live state says, what this worker's processes count.

`read` gives values; tasks/metrics shows them in the formats of others. What is of the fleet is read at most once a
second, however many ask, and not waited for beyond `WAIT_SECONDS`: a service that is away costs its own metrics only.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from orchestration.channel.spool import Spool
from orchestration.state.fleet_gauges import FleetGauges, read_gauges
from orchestration.state.reading import LiveReading
from orchestration.state.stream import StatusStream
from orchestration.store.pool import Database
from orchestration.store.totals import NO_BUCKET, OTHER, Measure, Total, read_totals
from orchestration.telemetry.metrics import METRICS, Bounds, Metric, Source, Type
from orchestration.telemetry.metrics_memory import COLUMNS, NS, WorkerCounters

_log = logging.getLogger(__name__)
T = TypeVar("T")
#: What was read is good for so long.
FRESH_SECONDS: Final = 1.0
#: A scrape waits so long for a service.
WAIT_SECONDS: Final = 3.0
#: In `repairs`, what `expire_leases` gives up; all others are the reaper's.
LEASE_CAUSES: Final = frozenset({"worker", "lease", "message"})
Labels = tuple[str, ...]


@dataclass(slots=True)
class Spread:
    """A histogram: how many values are in each bucket alone (the last one is above all bounds), and their sum."""

    counts: list[int]
    total: float = 0.0


@dataclass(slots=True)
class Family:
    """A metric with its values, by labels; a summary's is (count, sum)."""

    metric: Metric
    numbers: dict[Labels, float] = field(default_factory=lambda: defaultdict(float))
    spreads: dict[Labels, Spread] = field(default_factory=dict)

    def spread(self, labels: Labels) -> Spread:
        """The histogram with these labels."""
        bounds = self.metric.bounds or Bounds(())
        return self.spreads.setdefault(labels, Spread([0] * (len(bounds.whole) + 1)))


class Families:
    """Values by name of their metric, without the prefix."""

    def __init__(self) -> None:
        self._found: dict[str, Family] = {}

    def __getitem__(self, name: str) -> Family:
        return self._found.setdefault(name, Family(METRICS[name]))

    def all(self) -> list[Family]:
        """Those that have a value."""
        return [family for family in self._found.values() if family.numbers or family.spreads]


@dataclass(frozen=True, slots=True)
class Recorded:
    """What PostgreSQL has counted."""

    totals: Sequence[Total]
    dead_letters: int


@dataclass(frozen=True, slots=True)
class Live:
    """What Redis has."""

    fleet: FleetGauges
    entries: int
    lag_seconds: float


class MetricsReader:
    """All metrics that one worker shows.

    Args: slots: of this worker. most_names: workflows, and pairs of workflow and action, with series of their own.
    """

    def __init__(
        self, live: LiveReading, stream: StatusStream, database: Database, spool: Spool, counters: WorkerCounters,
        slots: int, most_names: int,
    ) -> None:  # fmt: skip
        self._spool, self._counters, self._slots, self._most_names = spool, counters, slots, most_names
        self._recorded = _Refreshed("PostgreSQL", lambda: Recorded(read_totals(database), _dead_letters(database)))
        self._live = _Refreshed(
            "Redis", lambda: Live(read_gauges(live), stream.length(), stream.oldest_age_seconds())
        )  # fmt: skip

    def read(self, sources: Iterable[Source] = tuple(Source)) -> list[Family]:
        """Values of these sources; of a service that does not answer in time, none."""
        wanted, found = frozenset(sources), Families()
        recorded, live = self._recorded.get(), self._live.get()
        if Source.RECORD in wanted and recorded is not None:
            add_recorded(found, recorded, self._most_names)
        if Source.LIVE in wanted and live is not None:
            add_live(found, live, self._most_names)
        if Source.WORKER in wanted:
            add_counters(found, self._counters.read())
            up = found["service_up"].numbers
            up["redis",], up["postgresql",] = float(live is not None), float(recorded is not None)
            found["worker_slots"].numbers[()] = self._slots
            found["spool_bytes"].numbers[()] = self._spool.size_bytes()
            found["spool_files"].numbers[()] = self._spool.files()
        return found.all()


class _Refreshed(Generic[T]):
    """What a service said lately; asked in a thread, so that nobody waits for one that does not answer."""

    def __init__(self, service: str, ask: Callable[[], T]) -> None:
        self._service, self._ask = service, ask
        self._lock = threading.Lock()
        self._asking: threading.Thread | None = None
        self._said: tuple[float, T] | None = None

    def get(self) -> T | None:
        """What it said at most `FRESH_SECONDS` ago; None: it does not answer."""
        with self._lock:
            if self._is_fresh():
                return self._said[1] if self._said else None
            if self._asking is None or not self._asking.is_alive():
                self._asking = threading.Thread(target=self._refresh, name=f"metrics of {self._service}", daemon=True)
                self._asking.start()
            asking = self._asking
        asking.join(WAIT_SECONDS)
        said = self._said
        return said[1] if said is not None and self._is_fresh() else None

    def _is_fresh(self) -> bool:
        return self._said is not None and time.monotonic() - self._said[0] <= FRESH_SECONDS

    def _refresh(self) -> None:
        try:
            value = self._ask()
        except Exception as error:  # noqa: BLE001 - a scrape must not fail; `service_up` tells
            _log.debug("no metrics of %s: %s", self._service, error)
        else:
            self._said = (time.monotonic(), value)


def add_recorded(found: Families, recorded: Recorded, most_names: int) -> None:
    """What PostgreSQL has counted, names beyond `most_names` as one."""
    found["dead_letters"].numbers[()] = recorded.dead_letters
    shown = _Shown(most_names)
    for total in recorded.totals:
        _add_total(found, shown.bounded(total.of), total)


def _add_total(found: Families, of: Measure, total: Total) -> None:
    match of.measure:
        case "workflow":
            found["workflows_total"].numbers[of.workflow, of.status] += total.count
            _spread(found["workflow_duration_seconds"], (of.workflow,), total)
        case "workflow_branches":
            _spread(found["workflow_branches"], (of.workflow,), total)
        case "branch":
            found["branches_total"].numbers[of.workflow, of.status] += total.count
            _spread(found["branch_duration_seconds"], (of.workflow,), total)
        case "branch_wait":
            _spread(found["branch_wait_seconds"], (of.workflow,), total)
        case "task" | "item":
            found[f"{of.measure}s_total"].numbers[of.workflow, of.action, of.status] += total.count
            _spread(found["task_duration_seconds"], (of.workflow, of.action), total)
        case "branch_undone":
            found["branches_undone_total"].numbers[of.workflow, of.status] += total.count
        case "task_undone" | "item_undone":
            kind = of.measure.removesuffix("_undone")
            found[f"{kind}s_undone_total"].numbers[of.workflow, of.action, of.status] += total.count
        case "task_retries":
            found["task_retries_total"].numbers[of.workflow, of.action] += total.count
        case "failure":
            found["failures_total"].numbers[of.status,] += total.count


def _spread(family: Family, labels: Labels, total: Total) -> None:
    if total.of.bucket == NO_BUCKET:
        return
    spread = family.spread(labels)
    scale = family.metric.bounds.scale if family.metric.bounds is not None else 1
    spread.counts[total.of.bucket] += total.count
    spread.total += total.total / scale


class _Shown:
    """The names that are shown: the first ones that were ever counted, so that they stay the same."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._workflows: set[str] = set()
        self._actions: set[tuple[str, str]] = set()
        self._errors: set[str] = set()

    def bounded(self, of: Measure) -> Measure:
        """The same, under names that are shown."""
        if of.measure == "failure":
            return of if self._has_room(self._errors, of.status) else of._replace(status=OTHER)
        if not self._has_room(self._workflows, of.workflow):
            return of._replace(workflow=OTHER, action=of.action and OTHER)
        if of.action and not self._has_room(self._actions, (of.workflow, of.action)):
            return of._replace(action=OTHER)
        return of

    def _has_room(self, known: set[T], name: T) -> bool:
        if name not in known and len(known) < self._most:
            known.add(name)
        return name in known


def add_live(found: Families, live: Live, most_names: int) -> None:
    """What Redis has, names beyond `most_names` as one."""
    fleet = live.fleet
    found["branches_active"].numbers[()] = fleet.active
    found["workers"].numbers[()] = fleet.workers
    found["sessions"].numbers |= {("running",): fleet.running, ("queued",): fleet.queued}
    found["status_entries"].numbers[()] = live.entries
    found["status_lag_seconds"].numbers[()] = live.lag_seconds
    found["status_full"].numbers[()] = float(fleet.is_full)
    # nought before the first: what begins with its first event has no rate of it
    found["lease_expiries_total"].numbers |= {(cause,): 0 for cause in LEASE_CAUSES}
    for cause, count in fleet.repairs.items():
        found["lease_expiries_total" if cause in LEASE_CAUSES else "repairs_total"].numbers[cause,] = count
    for place, (queue, state) in enumerate(sorted(fleet.queues.items())):
        name = queue if place < most_names else OTHER
        found["slots"].numbers[name,] += state.counts.slots
        found["runners"].numbers[name,] += state.counts.runners
        found["sessions_waiting"].numbers[name,] += state.counts.waiting
        oldest = found["oldest_wait_seconds"].numbers
        oldest[name,] = max(oldest[name,], state.oldest_wait_seconds)
    for place, ((level, workflow), limit) in enumerate(sorted(fleet.limits.items())):
        labels = (level, workflow if place < most_names or not workflow else OTHER)
        found["permits_held"].numbers[labels] += limit.held
        found["permits_limit"].numbers[labels] += limit.most
        found["permits_available"].numbers[labels] += max(0, limit.most - limit.held)
        found["sessions_blocked"].numbers[labels] += limit.blocked


def add_counters(found: Families, numbers: Sequence[int]) -> None:
    """What the processes of this worker count: `numbers` as in `COLUMNS`; nought for what has not happened yet."""
    for column, number in zip(COLUMNS, numbers, strict=True):
        metric = column.metric
        family = found[metric.short_name]
        shown = number / NS if "_seconds" in metric.short_name and column.bucket is None else number
        if metric.type is Type.COUNTER:
            family.numbers[(column.label,) if metric.labels else ()] = shown
        elif column.bucket is None:
            family.spread(()).total = shown
        else:
            family.spread(()).counts[column.bucket] = number


def _dead_letters(database: Database) -> int:
    return int(database.fetch("SELECT count(*) FROM status_dead_letters")[0][0])
