"""The words of the design as types: statuses, outcomes, trigger rules, claims.

Every layer may import this module; it imports nothing of ours and does no I/O.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


#: `item` of a task that is not an item of a `for_each`.
NO_ITEM = -1


class RunStatus(StrEnum):
    """Status of a flow session."""

    QUEUED = "queued"
    RUNNING = "running"
    SUSPENDED = "suspended"
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"

    @property
    def is_final(self) -> bool:
        return self in FINAL_RUN_STATUSES


class TaskStatus(StrEnum):
    """Status of a task or of a branch."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"
    UPSTREAM_FAILED = "upstream_failed"

    @property
    def is_final(self) -> bool:
        return self not in (TaskStatus.PENDING, TaskStatus.RUNNING)


FINAL_RUN_STATUSES = frozenset(
    {RunStatus.SUCCEEDED, RunStatus.FAILED, RunStatus.CANCELLED, RunStatus.TIMED_OUT}
)


class Outcome(StrEnum):
    """How a settled action looks to its successors: the four states that trigger rules know."""

    SUCCESS = "S"
    FAILED = "F"
    SKIPPED = "K"
    UPSTREAM_FAILED = "U"


#: A timed-out or cancelled action is a failure to its successors.
OUTCOME_OF_STATUS = {
    TaskStatus.SUCCEEDED: Outcome.SUCCESS,
    TaskStatus.FAILED: Outcome.FAILED,
    TaskStatus.TIMED_OUT: Outcome.FAILED,
    TaskStatus.CANCELLED: Outcome.FAILED,
    TaskStatus.SKIPPED: Outcome.SKIPPED,
    TaskStatus.UPSTREAM_FAILED: Outcome.UPSTREAM_FAILED,
}


class TriggerRule(StrEnum):
    """When an action runs, given the final states of its direct predecessors (Airflow's rules)."""

    ALL_SUCCESS = "all_success"
    ALL_DONE = "all_done"
    ALWAYS = "always"
    ONE_SUCCESS = "one_success"
    NONE_FAILED = "none_failed"
    NONE_FAILED_MIN_ONE_SUCCESS = "none_failed_min_one_success"
    ALL_FAILED = "all_failed"
    ONE_FAILED = "one_failed"
    ONE_DONE = "one_done"
    ALL_SKIPPED = "all_skipped"
    NONE_SKIPPED = "none_skipped"


class Durability(StrEnum):
    """What an action's result must survive before the next action starts."""

    #: Kept by Redis at once, by PostgreSQL a moment later.
    NORMAL = "normal"
    #: Committed to PostgreSQL before the next action starts.
    SYNC = "sync"


@dataclass(frozen=True, slots=True)
class JoinCounts:
    """Final states of the direct predecessors of a branch, counted."""

    succeeded: int = 0
    failed: int = 0
    skipped: int = 0
    upstream_failed: int = 0

    @property
    def total(self) -> int:
        return self.succeeded + self.failed + self.skipped + self.upstream_failed
