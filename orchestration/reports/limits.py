"""How the fleet stands, for the pages: limits with holders and waiting runs, queues with their slots, rate limits."""

from __future__ import annotations

from typing import Any

from orchestration.state import occupancy
from orchestration.state.limits import LimitReport
from orchestration.state.live import LiveState
from orchestration.state.occupancy import RateLimits

#: Of one limit: holders that are shown, and runs that wait for it.
MOST_HOLDERS, MOST_WAITING = 100, 20


class LimitsView:
    """What is limited and who waits, as JSON; times are seconds.

    Args: opened: the name of the limit of which holders and waiting runs are told too; empty: of none.
    """

    def __init__(self, live: LiveState, opened: str) -> None:
        self._live = live
        self._opened = opened
        self._rates = RateLimits(live)

    def read(self) -> dict[str, Any]:
        """How it stands now."""
        limits, left_out = occupancy.read_busiest_limits(self._live)
        sessions = occupancy.read_full_sessions(self._live)
        queues = occupancy.read_queues(self._live)
        waiting = [session for queue in queues for session in queue.next]
        names = occupancy.workflows_of(self._live, [*waiting, *(_session_of(report) for report in sessions)])
        return {
            "limits": [report.to_json() for report in limits],
            "left_out": left_out,
            "sessions": [report.to_json() | {"workflow": names.get(_session_of(report), "")} for report in sessions],
            "queues": [
                {
                    "name": queue.name, "workers": dict(queue.workers), "slots": queue.counts.slots,
                    "in_flight": queue.counts.runners, "waiting": queue.counts.waiting,
                    "next": [_run(session, names) for session in queue.next],
                }
                for queue in queues
            ],
            "rates": [{"name": rate.name, "wait_seconds": rate.wait_us / 1e6} for rate in self._rates.read()],
            "opened": _opened(self._live, self._opened) if self._opened else None,
        }  # fmt: skip


def _opened(live: LiveState, name: str) -> dict[str, Any]:
    holders = occupancy.read_holders(live, name, MOST_HOLDERS)
    line = occupancy.read_line(live, name, MOST_WAITING)
    names = occupancy.workflows_of(live, [*line, *(holder.flow_session_id for holder in holders)])
    now_us = live.now_us()
    return {
        "name": name,
        "holders": [
            _run(holder.flow_session_id, names)
            | {
                "runner": holder.runner, "worker": holder.worker,
                "held_seconds": max(0.0, (now_us - holder.since_us) / 1e6),
                "lease_seconds": None if holder.lease_us is None else holder.lease_us / 1e6,
            }
            for holder in holders
        ],
        "line": [_run(session, names) for session in line],
    }  # fmt: skip


def _session_of(report: LimitReport) -> str:
    return report.name.removeprefix("session:")


def _run(flow_session_id: str, names: dict[str, str]) -> dict[str, Any]:
    return {"id": flow_session_id, "workflow": names.get(flow_session_id, "")}
