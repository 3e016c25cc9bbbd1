"""The fleet, its limits and its speed, at one moment: `parallelizer top`, and the pages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from orchestration.state.fleet import FleetState, read_fleet
from orchestration.state.limits import LimitReport, read_limits
from orchestration.state.live import LiveState
from orchestration.store.ended import Ended, read_ended
from orchestration.store.pool import Database

#: Open runs that a report has, the oldest.
MOST_SESSIONS = 100


@dataclass(frozen=True, slots=True)
class FleetReport:
    """The fleet as it stands."""

    state: FleetState
    limits: tuple[LimitReport, ...]
    ended: Ended

    def to_json(self) -> dict[str, Any]:
        """The fields that scripts rely on."""
        state = self.state
        return {
            "workers": [worker.to_json() for worker in state.workers],
            "queues": [queue.to_json() for queue in state.queues],
            "runs": {
                "open": state.sessions_open, "running": state.sessions_running, "queued": state.sessions_queued,
                "oldest": [session.to_json() for session in state.sessions],
            },
            "limits": [limit.to_json() for limit in self.limits],
            "status_channel": {"waiting": state.status_entries, "is_full": state.status_is_full},
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Rates:
    """Speed between two reports, by the second."""

    #: Tasks, items among them, and runs that have ended.
    tasks: float
    runs: float
    #: Slots at work, as a share of all, at the later one.
    busy: float

    def to_json(self) -> dict[str, float]:
        return {
            "tasks_per_second": round(self.tasks, 3), "runs_per_second": round(self.runs, 3),
            "busy_share": round(self.busy, 4),
        }  # fmt: skip


def fleet(database: Database, live: LiveState, most_sessions: int = MOST_SESSIONS) -> FleetReport:
    """The fleet as it stands; cheap to ask each second."""
    return FleetReport(read_fleet(live, most_sessions), tuple(read_limits(live)), read_ended(database))


def rates_between(before: FleetReport, after: FleetReport) -> Rates:
    """How fast it went from one report to a later one."""
    seconds = max(1e-6, (after.state.now_us - before.state.now_us) / 1e6)
    slots = sum(worker.slots for worker in after.state.workers)
    busy = sum(worker.busy for worker in after.state.workers)
    return Rates(
        (after.ended.tasks - before.ended.tasks) / seconds,
        (after.ended.sessions - before.ended.sessions) / seconds,
        min(1.0, busy / slots) if slots else 0.0,
    )
