"""Metrics as Prometheus sees them, and what PostgreSQL says of the same."""

from __future__ import annotations

import re
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from orchestration.reports.metrics import Family
from tasks.metrics.endpoint import shown
from tests.support.waiting import wait_until

#: A statement → its rows.
Rows = Callable[[str], list[tuple[Any, ...]]]
#: The name of a sample, and its labels.
Series = tuple[str, frozenset[tuple[str, str]]]
Counts = dict[str, Counter[tuple[str, ...]]]

#: Where a worker logs that its metrics are.
ENDPOINT = r"metrics are at (http://\S+?/metrics)"
_ENDED = "('succeeded', 'failed', 'timed_out', 'cancelled', 'skipped', 'upstream_failed')"
#: Metric → by which labels, and what PostgreSQL has of it: the labels, then a count. A row of no run is of `other`.
#: Ends are to be compared without those that were taken back.
_SAID = {
    "workflows": (("workflow", "status"), """
        SELECT workflow, status, count(*) FROM flow_sessions
        WHERE status NOT IN ('queued', 'running', 'suspended', 'paused') GROUP BY 1, 2"""),
    "branches": (("workflow", "status"), f"""
        SELECT COALESCE(workflow, 'other'), b.status, count(*) FROM branches b
        LEFT JOIN flow_sessions USING (session_day, flow_session_id)
        WHERE b.status IN {_ENDED} GROUP BY 1, 2"""),
    "tasks": (("workflow", "action", "status"), f"""
        SELECT COALESCE(workflow, 'other'), action, t.status, count(*) FROM tasks t
        LEFT JOIN flow_sessions USING (session_day, flow_session_id)
        WHERE item = -1 AND t.status IN {_ENDED} GROUP BY 1, 2, 3"""),
    "items": (("workflow", "action", "status"), f"""
        SELECT COALESCE(workflow, 'other'), action, t.status, count(*) FROM tasks t
        LEFT JOIN flow_sessions USING (session_day, flow_session_id)
        WHERE item >= 0 AND t.status IN {_ENDED} GROUP BY 1, 2, 3"""),
    "workflow_duration_seconds_count": (("workflow",), """
        SELECT workflow, count(*) FROM flow_sessions WHERE started_at <= finished_at GROUP BY 1"""),
    "workflow_branches_count": (("workflow",), """
        SELECT workflow, count(*) FROM flow_sessions WHERE finished_at IS NOT NULL GROUP BY 1"""),
    "task_retries_total": (("workflow", "action"), """
        SELECT COALESCE(workflow, 'other'), action, sum(attempt - 1) FROM tasks
        LEFT JOIN flow_sessions USING (session_day, flow_session_id) WHERE attempt > 1 GROUP BY 1, 2"""),
}  # fmt: skip

_ENDS = ("workflows", "branches", "tasks", "items")


@dataclass(frozen=True)
class Scrape:
    """One answer of an endpoint: (name, labels) → value."""

    values: dict[Series, float]

    @classmethod
    def of(cls, families: Iterable[Family]) -> Scrape:
        """The same, without an endpoint between."""
        return cls({
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in families
            for sample in shown(family).samples
        })  # fmt: skip

    @property
    def series(self) -> set[Series]:
        """All that there is a value of."""
        return set(self.values)

    def get(self, name: str, **labels: str) -> float | None:
        """The value with just these labels; None: there is none."""
        return self.values.get((f"parallelizer_{name}", frozenset(labels.items())))

    def by(self, name: str, labels: Iterable[str]) -> Counter[tuple[str, ...]]:
        """A counter by some of its labels."""
        found: Counter[tuple[str, ...]] = Counter()
        for (metric, pairs), value in self.values.items():
            if metric == f"parallelizer_{name}":
                have = dict(pairs)
                found[tuple(have[label] for label in labels)] += int(value)
        return found


def scrape(url: str) -> Scrape:
    """Ask an endpoint."""
    with urllib.request.urlopen(url, timeout=20) as answer:
        text = answer.read().decode()
    return Scrape({
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    })  # fmt: skip


def endpoint_of(log: Path, after: int = 0) -> str:
    """Where a worker says that its metrics are, in what it has logged behind so many bytes."""
    found: list[str] = []

    def is_said() -> bool:
        found[:] = re.findall(ENDPOINT, log.read_bytes()[after:].decode())
        return bool(found)

    wait_until(is_said, f"the metrics' address in {log}", seconds=90)
    return found[-1]


def counted(told: Scrape) -> Counts:
    """What is counted; of ends, less those that were taken back."""
    return {
        name: +Counter(
            told.by(name, labels) if name not in _ENDS
            else told.by(f"{name}_total", labels) - told.by(f"{name}_undone_total", labels)
        )
        for name, (labels, _) in _SAID.items()
    }  # fmt: skip


def recorded(rows: Rows) -> Counts:
    """The same, as PostgreSQL has it."""
    return {
        name: Counter({tuple(row[:-1]): int(row[-1]) for row in rows(statement)})
        for name, (_, statement) in _SAID.items()
    }


def differences(told: Counts, said: Counts) -> list[str]:
    """Where metrics say another number than the record."""
    return [
        f"metrics count {told[name][labels]} {name} of {', '.join(labels)}, the record {said[name][labels]}"
        for name in told
        for labels in sorted(told[name].keys() | said[name].keys())
        if told[name][labels] != said[name][labels]
    ]
