"""What an explanation is: causes, each a code for programs and a sentence for people, with its numbers. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Final

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: Names of tasks that one cause lists; `tasks_total` counts all.
MOST_TASKS: Final = 20


class CauseCode(StrEnum):
    """Why something is not running, failed, or ended as it did."""

    # It goes on
    RUNNING = "running"
    NEXT = "next"
    FIRST_BRANCH = "first_branch"
    COMPLETION = "completion"
    CANCELLING = "cancelling"
    # It waits
    PREDECESSORS = "predecessors"
    PAUSED = "paused"
    QUEUED = "queued"
    SESSION_LIMIT = "session_limit"
    LIMIT = "limit"
    FOR_EACH_LIMIT = "for_each_limit"
    TURN = "turn"
    NO_WORKER = "no_worker"
    SLOTS_BUSY = "slots_busy"
    RUNNER_COMING = "runner_coming"
    RETRY = "retry"
    RATE_LIMIT = "rate_limit"
    STATUS_CHANNEL_FULL = "status_channel_full"
    # Something was lost, or is away
    PROCESS_DIED = "process_died"
    WORKER_LOST = "worker_lost"
    LOST = "lost"
    REDIS_AWAY = "redis_away"
    POSTGRESQL_AWAY = "postgresql_away"
    # Times at which it is ended, or was
    DEADLINE = "deadline"
    MAX_WAIT = "max_wait"
    # It failed, or never ran
    RAISED = "raised"
    TIMED_OUT = "timed_out"
    POISON = "poison"
    EXPRESSION = "expression"
    UNUSABLE = "unusable"
    ITEMS_FAILED = "items_failed"
    OUTPUT = "output"
    REJECTED = "rejected"
    GAVE_WAY = "gave_way"
    CANCELLED = "cancelled"
    UPSTREAM_FAILED = "upstream_failed"
    CONDITION = "condition"
    TRIGGER_RULE = "trigger_rule"
    SUCCEEDED = "succeeded"
    # Which run is whose retry
    RETRY_OF = "retry_of"
    RETRIED = "retried"


@dataclass(frozen=True, slots=True)
class Cause:
    """One reason."""

    code: CauseCode
    #: Whole, without a full stop at its end.
    sentence: str
    #: What would change it; empty: nothing, or time alone.
    remedy: str = ""
    #: Tasks that it holds for, as `action` or `action[item]`, MOST_TASKS at most, and how many they are.
    tasks: tuple[str, ...] = ()
    tasks_total: int = 0
    #: Its numbers and names, as JSON.
    details: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The fields that scripts rely on."""
        return {
            "code": self.code.value, "sentence": self.sentence, "remedy": self.remedy, "tasks": list(self.tasks),
            "tasks_total": self.tasks_total, "details": dict(self.details),
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class PathStep:
    """One task of the critical path, with the seconds of the path from the end of the one before to its own end."""

    task: str
    running_seconds: float
    permits_seconds: float = 0.0
    queueing_seconds: float = 0.0
    retries_seconds: float = 0.0
    rate_limits_seconds: float = 0.0
    overhead_seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        return {"task": self.task} | {name: round(getattr(self, f"{name}_seconds"), 6) for name in PARTS}


#: Where time goes on the critical path, each the field `<part>_seconds` of its steps.
PARTS: Final = ("running", "permits", "queueing", "retries", "rate_limits", "overhead")


@dataclass(frozen=True, slots=True)
class TimeSpent:
    """Where the time of a run went, from when it was accepted to its end."""

    total_seconds: float
    #: The chain of tasks of which each began when the one before it had ended, up to the last end of all.
    path: tuple[PathStep, ...]
    #: Accepted, but not begun: queued, or on its way to a worker.
    before_seconds: float
    #: From the end of the path to the recorded end.
    after_seconds: float
    #: Time of all branches and items together: at work, and ready but not claimed (of branches).
    busy_seconds: float
    waited_seconds: float
    #: Most branches and items at once.
    most_at_once: int
    #: How long it would have taken with nothing ever waiting: the longest chain of running times.
    shortest_seconds: float

    def seconds(self, part: str) -> float:
        """Of the whole path."""
        return float(sum(getattr(step, f"{part}_seconds") for step in self.path))

    def shares(self) -> dict[str, float]:
        """Part → share of the total, 0 to 1; what is before the path counts as queueing, what is after as overhead."""
        seconds = {part: self.seconds(part) for part in PARTS}
        seconds["queueing"] += self.before_seconds
        seconds["overhead"] += self.after_seconds
        whole = self.total_seconds or 1.0
        return {part: spent / whole for part, spent in seconds.items()}

    def to_json(self) -> dict[str, Any]:
        """The fields that scripts rely on."""
        return {
            "total_seconds": round(self.total_seconds, 6), "before_seconds": round(self.before_seconds, 6),
            "after_seconds": round(self.after_seconds, 6), "busy_seconds": round(self.busy_seconds, 6),
            "waited_seconds": round(self.waited_seconds, 6), "most_at_once": self.most_at_once,
            "shortest_seconds": round(self.shortest_seconds, 6),
            "shares": {part: round(share, 4) for part, share in self.shares().items()},
            "path": [step.to_json() for step in self.path],
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a run, or one task of it, stands as it does."""

    flow_session_id: str
    #: Empty where PostgreSQL is away and live state does not say.
    workflow: str
    #: Of the run; empty where nobody can say.
    run_status: str
    #: What was asked for: None for the run.
    action: str | None
    item: int | None
    #: Of what was asked for.
    status: str
    #: One sentence.
    summary: str
    #: The most important first.
    causes: tuple[Cause, ...]
    #: Of a run that has ended.
    time_spent: TimeSpent | None = None

    def to_json(self) -> dict[str, Any]:
        """The fields that scripts rely on."""
        return {
            "flow_session_id": self.flow_session_id, "workflow": self.workflow, "run_status": self.run_status,
            "action": self.action, "item": self.item, "status": self.status, "summary": self.summary,
            "causes": [cause.to_json() for cause in self.causes],
            "time_spent": None if self.time_spent is None else self.time_spent.to_json(),
        }  # fmt: skip


def task_name(action: str, item: int | None) -> str:
    """`action` or `action[item]`; a negative item is none."""
    return action if item is None or item < 0 else f"{action}[{item}]"


def moment(us: int) -> datetime:
    """µs since the epoch as a time."""
    return _EPOCH + timedelta(microseconds=us)


def rfc3339(us: int) -> str:
    """The same as a text: UTC, microseconds."""
    return moment(us).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def in_words(seconds: float) -> str:
    """`0.04 s`, `12.3 s`, `2 min 3 s`, `1 h 2 min`."""
    if seconds < 60:
        return f"{seconds:.2f} s" if seconds < 1 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def some(names: tuple[str, ...] | list[str], total: int | None = None, most: int = 3) -> str:
    """`a, b, c and 4 more`."""
    number = len(names) if total is None else total
    shown = list(names[:most])
    rest = number - len(shown)
    if rest > 0:
        return f"{', '.join(shown)} and {rest:,} more" if shown else f"{rest:,}"
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}" if shown else ""


def counted(number: int, one: str, many: str = "") -> str:
    """`1 branch`, `2 branches`."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"
