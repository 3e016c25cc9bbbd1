"""What goes into live state and comes out of it, as the engine and onlookers see it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from orchestration.vocabulary import Claim, Publication, Settlement, Verdict

PAYLOAD_FIELD = "@payload"
#: µs since the epoch, by Redis, at which the deadline of the session passes.
DEADLINE_FIELD = "@deadline"
#: The session was rebuilt, and any of its branches may have checkpoints.
GAPS_FIELD = "@gaps"
#: The session's `traceparent`, and when it was accepted (engine/traced.py); none where it is not traced.
TRACE_FIELD = "@trace"


@dataclass(frozen=True, slots=True)
class Runner:
    """Who runs: a runner of a session on a queue, in one delivery of its message."""

    flow_session_id: str
    runner: str
    #: `<worker>/<process>.<nonce>`: a second delivery of the message has another.
    life: str
    queue: str
    worker: str


@dataclass(frozen=True, slots=True)
class LostClaim:
    """A claim whose process died."""

    since_us: int
    until_us: int
    worker: str
    #: How the process ended, for people; empty: nobody knows.
    death: str


@dataclass(frozen=True, slots=True)
class NewSession:
    """What `open_session` needs."""

    workflow: str
    version_id: str
    #: ISO date: the session's partition in PostgreSQL.
    day: str
    limit: int
    branch_timeout_seconds: float
    open_branches: int
    signature: str
    #: All queues of the plan.
    queues: Sequence[str]
    #: Most sessions of the fleet at once; 0: no limit.
    most_sessions: int = 0
    weight: float = 1.0
    priority: int = 0
    #: Of the branches in `ready`: 2 when the process died that had begun the first.
    attempt: int = 1
    results: Sequence[tuple[str, bytes]] = ()
    #: (branch, queue) of branches without predecessors.
    ready: Sequence[tuple[str, str]] = ()
    #: What has been done before, in an order in which it could have been, each with the queue of its unit.
    settlements: Sequence[tuple[str, Settlement]] = ()
    item_results_cap: int = 0
    #: Runners in the header of its chord; 0: its branches are counted in Redis.
    header: int = 0
    #: Concurrency key; empty: none.
    key: str = ""
    #: What the definition says of the branches at once of its workflow and of its key; 0: nothing.
    most_of_workflow: int = 0
    most_of_key: int = 0
    #: The same of its flow sessions at once, and what happens when it can't run now: queue, reject, cancel_running or
    #: keep_newest.
    sessions_of_workflow: int = 0
    sessions_of_key: int = 0
    when_full: str = "queue"
    #: µs until what is left of it is ended; 0: it has no deadline.
    deadline_us: int = 0
    #: µs that it may be queued, and that each branch may wait before it begins; 0: as long as it takes.
    max_wait_us: int = 0
    #: Its live state was lost; the number of its last status that PostgreSQL knows; and whether that was `paused`.
    rebuilt: bool = False
    sseq: int = 0
    was_paused: bool = False


@dataclass(frozen=True, slots=True)
class Started:
    """The answer to `start_runner`."""

    verdict: Verdict
    version_id: str = ""
    day: str = ""
    signature: str = ""
    publications: tuple[Publication, ...] = ()


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The answer to `cancel_session`."""

    #: cancelled, again, stopped, ended, unopened or closed; the script says what they mean.
    found: str
    #: Units that are claimed, and are told to end.
    claimed: int
    publications: tuple[Publication, ...]


@dataclass(frozen=True, slots=True)
class Overdue:
    """A branch that has waited too long before anybody began it; nobody owns the claim."""

    flow_session_id: str
    version_id: str
    day: str
    queue: str
    claim: Claim
    #: What it waits for, in words.
    waits_for: str


@dataclass(frozen=True, slots=True)
class Stopped:
    """Why a session ended before its branches had settled."""

    #: asked: somebody cancelled it; place, newer: it gave way to a newer one; deadline: that has passed;
    #: wait: it was queued for too long.
    why: str
    #: The newer session, and the limit at which it gave way, or was queued.
    by: str = ""
    level: str = ""


@dataclass(frozen=True, slots=True)
class Unsettled:
    """What a session has left that was cancelled."""

    #: Branches and ends of `for_each`s that were ready or waited for a time.
    waiting: frozenset[str]
    #: Predecessors that have settled, by branch.
    joined: Mapping[str, int]
    items: Mapping[str, ItemProgress]


@dataclass(frozen=True, slots=True)
class LiveClaim:
    """A claim as an onlooker sees it."""

    token: str
    runner: str
    worker: str
    attempt: int
    count: int
    since_us: int


@dataclass(frozen=True, slots=True)
class ItemProgress:
    """How far a `for_each` is; `counts` by task status."""

    size: int
    started: int
    settled: int
    failed: int
    counts: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class LiveSnapshot:
    """A session's live state at about one moment."""

    #: queued, running, suspended (only waits for a time), paused, cancelled or ended.
    status: str
    limit: int
    in_use: int
    claims: tuple[LiveClaim, ...]
    ready: int
    deferred: int
    open_branches: int
    counts: Mapping[str, int]
    items: Mapping[str, ItemProgress]
    #: Why it is paused: session, workflow, all.
    paused: frozenset[str] = frozenset()


class Repair(NamedTuple):
    """What the reaper found amiss with a session, and repaired."""

    #: As in `lua/reap_sessions.lua`.
    cause: str
    flow_session_id: str
    #: How long it was so, or might have been; 0: unknown.
    age_us: int


@dataclass(frozen=True, slots=True)
class Reaped:
    """The answer to `reap_sessions`."""

    #: False: another process is the reaper.
    is_reaper: bool
    #: All open sessions have been looked at since the first call.
    is_done: bool
    repairs: tuple[Repair, ...] = ()
    publications: tuple[Publication, ...] = ()


@dataclass(frozen=True, slots=True)
class LimitChange:
    """What `set_limit` did; 0 stands for no limit."""

    before: int
    now: int
    in_use: int
    publications: tuple[Publication, ...] = ()


class Unheeded(NamedTuple):
    """Units of a cancelled session whose runners have not seen that it was, and these runners."""

    units: int
    runners: int
