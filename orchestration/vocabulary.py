"""The words of the design as types: statuses, outcomes, trigger rules, claims.

Every layer may import this module; it imports nothing of ours and does no I/O.
"""

from __future__ import annotations

from dataclasses import dataclass, field
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


FINAL_RUN_STATUSES = frozenset({RunStatus.SUCCEEDED, RunStatus.FAILED, RunStatus.CANCELLED, RunStatus.TIMED_OUT})


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


class Dispatch(StrEnum):
    """How the branches of a session are given to runners, and the end of all of them is found."""

    #: Redis counts them; runners are published for free slots.
    COUNTED = "counted"
    #: The runners are the header of a Celery chord, of which each comes, leaves and comes again until the end.
    CHORD = "chord"


class UnitKind(StrEnum):
    """What a runner can claim."""

    #: A branch; of a `for_each`: its expansion into items.
    BRANCH = "b"
    #: A chunk: a range of items of a `for_each`.
    CHUNK = "c"
    #: The end of a `for_each` whose items have all settled.
    FINISH = "f"


class Mode(StrEnum):
    """What a runner asks for when it settles."""

    GO = "go"
    TICK = "tick"
    SLICE = "slice"
    CROWD = "crowd"
    LEAVE = "leave"
    OVER = "over"


class Verdict(StrEnum):
    """What a runner is told."""

    #: Run the claims.
    GO = "go"
    #: Nothing more now; finish what you hold.
    HOLD = "hold"
    #: Others are owed the slot, or the worker stops; finish what you hold and leave.
    DRAIN = "drain"
    #: Nothing before the status channel has been drained; come again in a moment.
    WAIT = "wait"
    #: Nothing to claim; the runner has left.
    STOP = "stop"
    #: It gave way to another session; the runner has left.
    YIELD = "yield"
    #: The session has ended and is to be completed by whoever reads this.
    ENDED = "ended"
    #: The session has ended before, or there is no such session.
    GONE = "gone"
    #: This life of the runner was given up; others go on.
    LOST = "lost"
    #: A runner of a chord for which there is no work, permit or slot now: it is published again when there is.
    PARKED = "parked"
    #: Another delivery of the same message is at work.
    DUPLICATE = "duplicate"
    #: The runner is not needed any more.
    REDUNDANT = "redundant"
    #: The session waits for others to end.
    QUEUED = "queued"
    #: As many sessions run as may, and this one is not to wait: it was not opened.
    REJECTED = "rejected"
    #: The session is open already.
    EXISTS = "exists"
    #: The session is open, and its runners are to be published as the header of a chord.
    CHORD = "chord"


@dataclass(frozen=True, slots=True)
class ItemCounts:
    """How the items of a `for_each` ended."""

    size: int
    succeeded: int = 0
    failed: int = 0
    timed_out: int = 0
    skipped: int = 0
    cancelled: int = 0
    #: Some results are not in Redis: they are read from PostgreSQL.
    spilled: bool = False


@dataclass(frozen=True, slots=True)
class Claim:
    """A unit that a runner owns. `value` is the fence: what Redis holds for the unit while the claim is good."""

    kind: UnitKind
    #: Branch, or action of the `for_each`.
    name: str
    unit: str
    value: str
    #: 1, and one more for each crash it was in.
    attempt: int
    #: Retries after failures, of the step it is at.
    retry: int
    #: First item and number of items of a chunk.
    start: int = 0
    count: int = 1
    #: When it became ready and when it was claimed, µs since the epoch by Redis.
    ready_us: int = 0
    since_us: int = 0
    #: Of a branch: its direct predecessors; of the end of a `for_each`: its items.
    joined: JoinCounts = JoinCounts()
    items: ItemCounts | None = None


@dataclass(frozen=True, slots=True)
class Publication:
    """A runner that must be published."""

    flow_session_id: str
    #: Empty: the completion of the session, which was cancelled, is to be published; it is the message.
    runner: str
    queue: str
    #: How long a branch of its session may run.
    branch_timeout_seconds: float
    #: Of a runner of a chord that was parked: the message that publishes it again.
    message: str = ""


@dataclass(frozen=True, slots=True)
class JoinStep:
    """A branch that counts one more settled predecessor."""

    branch: str
    predecessors: int
    queue: str


class Rest(StrEnum):
    """What becomes of the first item of a chunk that has not ended when the chunk is settled."""

    #: It is ready again.
    BACK = "back"
    #: It is tried again later.
    DEFER = "defer"
    #: It runs on, as a chunk of one.
    KEEP = "keep"


@dataclass(slots=True)
class Settlement:
    """What became of a claim. `verb` is done, expand, items, defer or back; the fields it does not use stay empty."""

    claim: Claim
    verb: str
    #: Rows for the status channel (state/rows.py).
    rows: list[list[object]] = field(default_factory=list)
    #: Tasks that ended, by status.
    counts: dict[str, int] | None = None
    #: Results to keep, by action, as JSON.
    results: list[tuple[str, bytes]] | None = None
    outcome: Outcome = Outcome.SUCCESS
    #: The session fails by it.
    fails_session: bool = False
    successors: tuple[JoinStep, ...] = ()
    #: expand: number of items, and most of them at once (0: no limit).
    size: int = 0
    max_concurrent: int = 0
    #: items: how many have settled, from the start on, and their results as a JSON array (empty: all null).
    settled: int = 0
    item_results: bytes = b""
    #: items: what becomes of the first item that has not ended; all behind it are ready again.
    rest: Rest = Rest.BACK
    #: defer, and items whose rest is deferred: how long, and the number of the retry then.
    delay_us: int = 0
    retry: int = 0


@dataclass(frozen=True, slots=True)
class Next:
    """The answer to a settlement: what the runner does now."""

    verdict: Verdict
    claims: tuple[Claim, ...] = ()
    publications: tuple[Publication, ...] = ()
    #: Units whose settlement was refused: somebody else owns them.
    refused: frozenset[str] = frozenset()
    #: With `ended`: what publishes the completion; empty where a chord does.
    signature: str = ""
