"""The plan: an immutable, compiled definition. What the engine reads; nothing here does I/O."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from orchestration.definition.expressions import Condition, ItemSource, Template
from orchestration.vocabulary import Dispatch, Durability, TriggerRule

#: Name of the rate limit of all sessions with the same concurrency key; each key has one of its own.
KEY_RATE: Final = "key:"


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """In how many attempts and with which waits an action is tried."""

    #: Attempts in all, the first included; 1 means no retry.
    max_attempts: int = 1
    #: Wait before the second attempt.
    delay_ms: int = 1000
    #: Each further wait is this many times longer.
    backoff: float = 2.0
    #: No wait is longer.
    max_delay_ms: int = 60_000
    #: Share of the wait that is random: 0.1 means ± 10 %.
    jitter: float = 0.1
    #: Class names of errors worth another attempt (with their base classes); empty: every `Exception`.
    retry_on: tuple[str, ...] = ()
    #: Class names of errors never tried again; wins over `retry_on`.
    never_on: tuple[str, ...] = ()

    def delay_before(self, attempt: int) -> int:
        """Milliseconds to wait before `attempt` (2, 3, …), jitter included."""
        try:
            wait = min(self.delay_ms * self.backoff ** (attempt - 2), self.max_delay_ms)
        except OverflowError:
            wait = self.max_delay_ms
        return max(0, round(wait * (1 + self.jitter * random.uniform(-1, 1))))  # noqa: S311 - no secret

    def allows(self, attempt: int, error: BaseException) -> bool:
        """Whether `error` in `attempt` (1, 2, …) is followed by another attempt."""
        if attempt >= self.max_attempts or not isinstance(error, Exception):
            return False
        names = {name for kind in type(error).__mro__ for name in (kind.__name__, f"{kind.__module__}.{kind.__name__}")}
        if names.intersection(self.never_on):
            return False
        return not self.retry_on or bool(names.intersection(self.retry_on))


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of the flow sessions; None means the setting of the same name, or no limit."""

    max_concurrent_branches: int | None = None
    branch_timeout_seconds: float | None = None
    #: Share of the fleet beside other sessions.
    weight: float = 1.0
    #: Branches of all flow sessions of the workflow, and of all with the same key.
    max_concurrent_branches_of_workflow: int | None = None
    max_concurrent_branches_per_key: int | None = None
    #: What the sessions are grouped by, or None.
    concurrency_key: Template | None = field(default=None, compare=False)
    #: Sessions of the workflow that run at once, and sessions with the same key.
    max_concurrent_sessions: int | None = None
    max_concurrent_sessions_per_key: int | None = None
    #: What happens at such a limit: queue, reject, cancel_running or keep_newest.
    when_full: str = "queue"
    #: From when a session is accepted until what is left of it is ended.
    deadline_seconds: float | None = None
    #: How long a session may be queued, and a branch may wait before it begins.
    max_wait_seconds: float | None = None

    @property
    def is_shared(self) -> bool:
        """Whether a limit may hold for more than one flow session: then even a first branch needs a permit."""
        return (
            self.max_concurrent_branches_of_workflow is not None
            or self.concurrency_key is not None
            or self.max_concurrent_sessions is not None
        )

    @property
    def ends_at_a_time(self) -> bool:
        """Whether the session, or a part of it, is to be ended at a time, whatever becomes of who runs it."""
        return self.deadline_seconds is not None or self.max_wait_seconds is not None

    @property
    def is_of_sessions(self) -> bool:
        """Whether a session may have to wait for others of its workflow or key."""
        return self.max_concurrent_sessions is not None or self.max_concurrent_sessions_per_key is not None


@dataclass(frozen=True, slots=True)
class PlannedAction:
    """One node of the graph, compiled."""

    name: str
    uses: str
    #: Direct predecessors and successors, in the order of the definition.
    needs: tuple[str, ...]
    successors: tuple[str, ...]
    rule: TriggerRule
    #: `if`, or None. Evaluated for each item where it mentions `item`, else once before the items.
    condition: Condition | None
    #: `with`.
    inputs: Template
    #: `for_each`, or None.
    items: ItemSource | None
    retry: RetryPolicy
    timeout_seconds: float | None
    queue: str
    #: A failure counts as success for the successors and for the end of the session.
    continue_on_failure: bool
    #: Most items of this `for_each` at once, or None.
    max_concurrent: int | None
    durability: Durability
    #: Its rate limits, its own, the workflow's and (KEY_RATE) that of the session's concurrency key: name, µs between
    #: two calls, calls at once after a pause.
    rates: tuple[tuple[str, int, int], ...] = ()

    @property
    def is_leaf(self) -> bool:
        return not self.successors


@dataclass(frozen=True, slots=True)
class Successor:
    """A branch that waits for another one, and for how many direct predecessors in all."""

    branch: str
    predecessors: int
    queue: str


@dataclass(frozen=True, slots=True)
class Branch:
    """A maximal linear stretch of the graph: the unit of scheduling. Named after its first action.

    An action with `for_each` is a branch of its own; each of its items is then a branch too.
    """

    name: str
    actions: tuple[PlannedAction, ...]
    queue: str
    #: Number of direct predecessors of the first action; 0 for a root.
    predecessors: int
    #: Branches whose first action needs the last action of this one.
    successors: tuple[Successor, ...]

    @property
    def is_for_each(self) -> bool:
        return self.actions[0].items is not None


@dataclass(frozen=True, slots=True)
class Plan:
    """A compiled workflow version; shared by all its flow sessions in a process."""

    workflow: str
    version_id: str
    actions: Mapping[str, PlannedAction]
    branches: Mapping[str, Branch]
    #: Names of branches without predecessors, in the order of the definition.
    roots: tuple[str, ...]
    limits: Limits
    #: `output`, or None: then the results of the leaves that are not a `for_each`.
    output: Template | None
    #: JSON Schema of the payload, or None.
    payload_schema: Mapping[str, object] | None = field(default=None, compare=False)
    #: `dispatch`, or None: then the setting of the same name says it.
    dispatch: Dispatch | None = None
    #: Of each action its branch, and its place there from 0.
    places: Mapping[str, tuple[str, int]] = field(default_factory=dict, compare=False)

    @property
    def successors(self) -> dict[str, tuple[str, ...]]:
        """For each action, those that come after it."""
        return {name: action.successors for name, action in self.actions.items()}

    @property
    def leaves(self) -> tuple[PlannedAction, ...]:
        return tuple(action for action in self.actions.values() if action.is_leaf)
