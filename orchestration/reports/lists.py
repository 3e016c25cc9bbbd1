"""Lists of runs, for the pages: by page, by status, and what has become of those that are shown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from orchestration.reports.runs import live_counts, present_status
from orchestration.state.briefs import Brief, read_briefs
from orchestration.state.live import LiveState
from orchestration.store import run_lists
from orchestration.store.pool import Database
from orchestration.store.run_lists import Place, RunFilter
from orchestration.store.sessions import SessionRow
from orchestration.vocabulary import RunStatus, TaskStatus

#: Runs of one status are counted up to here.
MOST_COUNTED = 1000
#: New runs are counted up to here.
MOST_NEWER = 100


@dataclass(frozen=True, slots=True)
class RunLine:
    """A run as a line of a list."""

    flow_session_id: str
    workflow: str
    version: int
    status: RunStatus
    priority: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    #: Its tasks by status. While it is under way: those that have ended, what runs as `running`, and as `pending` what
    #: is known to be left; branches that nothing has begun of count as one each.
    counts: Mapping[str, int]
    #: Why it does not go on, or a part of it, as sentences.
    waits_for: tuple[str, ...]
    #: Permits in use and most of them; None: it has no live state.
    in_use: int | None
    limit: int | None
    #: The id of its retry.
    retried_as: str | None

    @property
    def place(self) -> Place:
        return self.created_at, self.flow_session_id

    def to_json(self) -> dict[str, Any]:
        """The line as JSON; times in ms since the epoch."""
        return {
            "id": self.flow_session_id, "workflow": self.workflow, "version": self.version,
            "status": self.status.value, "priority": self.priority, "created": _ms(self.created_at),
            "started": _ms(self.started_at), "finished": _ms(self.finished_at), "counts": dict(self.counts),
            "waits_for": list(self.waits_for), "in_use": self.in_use, "limit": self.limit,
            "retried_as": self.retried_as,
        }  # fmt: skip


def page_of_runs(
    database: Database, live: LiveState, wanted: RunFilter, limit: int, before: Place | None = None
) -> tuple[list[RunLine], bool]:
    """A page of runs, the newest first, and whether there are more.

    Args: before: the place of the last line of the page before.
    """
    rows = run_lists.find_runs(database, wanted, limit + 1, before)
    return _lines(live, rows[:limit]), len(rows) > limit


def lines_of(database: Database, live: LiveState, flow_session_ids: Sequence[str]) -> list[RunLine]:
    """What has become of these runs; those that are not known any more are left out."""
    rows = run_lists.runs_of(database, flow_session_ids)
    return _lines(live, rows.values())


def counts_of_runs(database: Database, wanted: RunFilter) -> dict[str, int]:
    """Runs by status, whatever `wanted` says of it; MOST_COUNTED stands for that and more."""
    return {status.value: count for status, count in run_lists.count_runs(database, wanted, MOST_COUNTED).items()}


def count_newer(database: Database, wanted: RunFilter, than: Place) -> int:
    """How many runs came after one; MOST_NEWER stands for that and more."""
    return run_lists.count_newer(database, wanted, than, MOST_NEWER)


def _lines(live: LiveState, rows: Iterable[SessionRow]) -> list[RunLine]:
    rows = list(rows)
    briefs = read_briefs(live, [row.flow_session_id for row in rows if not row.status.is_final])
    return [_line(row, briefs.get(row.flow_session_id)) for row in rows]


def _line(row: SessionRow, brief: Brief | None) -> RunLine:
    return RunLine(
        row.flow_session_id, row.workflow, row.version, present_status(row, brief), row.priority, row.created_at,
        row.started_at, row.finished_at, row.counts if brief is None else _counts(brief),
        () if brief is None else _reasons(brief), None if brief is None else brief.in_use,
        None if brief is None else brief.limit, row.retried_as,
    )  # fmt: skip


_PAUSED = {"session": "paused", "workflow": "paused: its workflow is", "all": "paused: everything is"}


def _reasons(brief: Brief) -> tuple[str, ...]:
    reasons = [words for why, words in _PAUSED.items() if why in brief.paused]
    if brief.status == RunStatus.QUEUED:
        reasons.append("queued")
    reasons += [f"waits for the limit {level}={most}" for level, most in brief.waits_at.items()]
    reasons += [f"waits for a worker of queue {queue}" for queue in brief.unserved]
    if brief.status == RunStatus.RUNNING and brief.ready and brief.in_use >= brief.limit:
        more = "1 branch is ready and waits" if brief.ready == 1 else f"{brief.ready:,} branches are ready and wait"
        reasons.append(f"{more} for its own limit of {brief.limit} at once")
    elif brief.status == RunStatus.RUNNING and brief.ready and not brief.in_use and not reasons:
        reasons.append("waits for a slot")
    elif brief.status == RunStatus.SUSPENDED:
        reasons.append("waits for a retry, or for its turn by a rate limit")
    return tuple(reasons)


def _counts(brief: Brief) -> dict[str, int]:
    counts = live_counts(brief)
    # the branch of a `for_each` that is under way is open too
    left = brief.open_branches + sum(
        items.size - items.settled - 1 for items in brief.items.values() if items.settled < items.size
    )
    if brief.in_use:
        counts[TaskStatus.RUNNING.value] = brief.in_use
    if left > brief.in_use:
        counts[TaskStatus.PENDING.value] = left - brief.in_use
    return counts


def _ms(moment: datetime | None) -> int | None:
    return None if moment is None else round(moment.timestamp() * 1000)
