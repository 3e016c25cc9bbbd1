"""ProcessingContext: all that a process knows of one flow session while it works on it.

Results are read from Redis when an expression first asks for them and then kept: a settled task never changes.
Threads may share a context: what it keeps is only ever added to.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import orjson

from orchestration.channel.parse import Fields, parse_entry
from orchestration.definition.expressions import Scope
from orchestration.engine.cancellation import Cancellation
from orchestration.engine.concurrency_key import concurrency_key
from orchestration.engine.costs import Cost, CostBook
from orchestration.engine.results import ItemsView, TaskView, ended_view, success_view
from orchestration.engine.traced import SpanFactory, trace_of_kept
from orchestration.errors import (
    ActionError,
    ExpressionError,
    ServiceUnreachable,
    SessionClosed,
    WorkflowExecutionError,
)
from orchestration.plan import KEY_RATE, Branch, Plan, PlannedAction
from orchestration.registry import find_action
from orchestration.state.live import LiveState
from orchestration.state.patience import Keep, Patience
from orchestration.state.records import DEADLINE_FIELD, GAPS_FIELD, PAYLOAD_FIELD, TRACE_FIELD
from orchestration.state.rows import encode_rows
from orchestration.store import results as stored_results
from orchestration.store.updates import write_rows
from orchestration.telemetry.tracing import SessionTrace
from orchestration.vocabulary import Claim, Dispatch, Durability

if TYPE_CHECKING:
    from config.settings import Settings
    from orchestration.channel.fallback import Fallback
    from orchestration.engine.versions import Version
    from orchestration.store.pool import Database

_log = logging.getLogger(__name__)


def is_database_away(error: Exception) -> bool:
    """Whether PostgreSQL may take the same call later."""
    return isinstance(error, ServiceUnreachable)


NO_PATIENCE: Final = Patience(is_database_away, repeats=0)


@dataclass(frozen=True, slots=True)
class Stores:
    """Where state lives: Redis for what is live, PostgreSQL for the record."""

    live: LiveState
    database: Database
    #: Where rows go that Redis does not take; None: they wait in memory only.
    fallback: Fallback | None = None
    #: How long a branch waits for PostgreSQL where it can't go on without.
    patience: Patience = NO_PATIENCE


@dataclass(slots=True)
class MetricsRecorder:
    """What this process did for the session since it took it up."""

    branches: int = 0
    tasks: int = 0
    busy_ns: int = 0
    _taken_ns: int = 0

    def take_busy_ns(self) -> int:
        """Time in actions since this was last asked."""
        now_ns = self.busy_ns
        taken_ns, self._taken_ns = now_ns - self._taken_ns, now_ns
        return taken_ns

    def record_task(self, duration_ns: int) -> None:
        """Count one task that took `duration_ns`."""
        self.tasks += 1
        self.busy_ns += duration_ns


@dataclass(frozen=True, slots=True)
class BranchSemaphore:
    """The session's permits: at most `limit` of its branches run at once, over the whole fleet.

    Permits are taken and given back by the scripts, together with the branches they are for.
    """

    limit: int
    flow_session_id: str
    live: LiveState

    @property
    def in_use(self) -> int:
        """Permits in use at this moment."""
        return self.live.permits_in_use(self.flow_session_id)


class _Tasks(Mapping[str, object]):
    """`tasks` in expressions: only what is asked for is read."""

    def __init__(self, context: ProcessingContext) -> None:
        self._context = context

    def __getitem__(self, name: str) -> TaskView:
        return self._context.task(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._context.plan.actions)

    def __len__(self) -> int:
        return len(self._context.plan.actions)


@dataclass(slots=True)
class ProcessingContext:
    """One flow session as this process sees it."""

    flow_session_id: str
    plan: Plan
    #: ISO date: the session's partition in PostgreSQL.
    day: str
    payload: object
    worker: str
    settings: Settings
    stores: Stores
    #: Actions whose results anybody reads; those of others are not kept in Redis.
    reads: frozenset[str]
    #: What the version's actions have cost lately, in this process.
    costs: CostBook
    #: What becomes of the session in traces; of one that is not traced, nothing.
    span_factory: SpanFactory
    #: Claims that this process holds, by unit.
    active_branches: dict[str, Claim] = field(default_factory=dict)
    metrics_recorder: MetricsRecorder = field(default_factory=MetricsRecorder)
    session: Mapping[str, object] = field(default_factory=dict)
    cancellation: Cancellation = field(default_factory=Cancellation)
    #: When this process accepted it, as far as Redis's clock may have shown that by now: nothing of it began before, µs
    #: since the epoch. 0: others did, or it is open.
    accepted_us: int = 0
    #: The session was rebuilt from a record with gaps: any branch may have checkpoints.
    has_gaps: bool = False
    _deadline_us: int | None = None
    #: Concurrency key, once it is asked for: the same as when the session was accepted.
    _key: str | None = None
    _views: dict[str, TaskView] = field(default_factory=dict)
    _items: dict[str, Sequence[object]] = field(default_factory=dict)
    _is_async: dict[str, bool] = field(default_factory=dict)
    _chunked: dict[str, list[tuple[str, Cost]]] = field(default_factory=dict)
    #: Results of items that ran here before the session was opened.
    _own_items: dict[str, list[object]] = field(default_factory=dict)
    #: Reads the results of a settled `for_each` of this size while there is no live state; else None.
    read_items: Callable[[str, int], list[object]] | None = None

    @property
    def branch_semaphore(self) -> BranchSemaphore:
        """The session's own permits."""
        return BranchSemaphore(self.limit, self.flow_session_id, self.stores.live)

    @property
    def workflow(self) -> str:
        """Name of its workflow."""
        return self.plan.workflow

    @property
    def traceparent(self) -> str | None:
        """Of its trace (W3C); None: it is not traced."""
        trace = self.span_factory.trace
        return None if trace is None else trace.traceparent

    def now_us(self) -> int:
        """What time it is by Redis, as far as this process knows, µs since the epoch."""
        clock = self.stores.live.clock
        return clock.us(time.monotonic_ns()) if clock.is_known else time.time_ns() // 1000

    @property
    def limit(self) -> int:
        """Most branches of this session at once."""
        return self.plan.limits.max_concurrent_branches or self.settings.max_concurrent_branches

    @property
    def branch_timeout_seconds(self) -> float:
        """How long a branch may run."""
        return self.plan.limits.branch_timeout_seconds or self.settings.branch_processing_timeout_secs

    def rates(self, action: PlannedAction) -> Sequence[tuple[str, int, int]]:
        """The rate limits of an action, as `take_rate` takes them; that of a key is named after the session's own."""
        if self._key is None:
            template = self.plan.limits.concurrency_key
            self._key = concurrency_key(template, Scope(payload=self.payload, session=self.session))
        return [
            (name + self._key if name == KEY_RATE else name, interval, burst) for name, interval, burst in action.rates
        ]

    @property
    def deadline_ns(self) -> int | None:
        """When the session's deadline passes, by `time.monotonic_ns`; None: it has none."""
        if self.plan.limits.deadline_seconds is None:
            return None
        if self._deadline_us is None:
            raw = self.stores.live.results(self.flow_session_id, [DEADLINE_FIELD])[0]
            if raw is None:
                return None  # it was closed
            self._deadline_us = int(raw)
        return self.stores.live.clock.monotonic_ns(self._deadline_us)

    @property
    def is_over(self) -> bool:
        """Whether the session's deadline has passed: nothing more of it begins here."""
        deadline_ns = self.deadline_ns
        return deadline_ns is not None and time.monotonic_ns() >= deadline_ns

    @property
    def dispatch(self) -> Dispatch:
        """How this session is dispatched, if this process opens it."""
        return self.plan.dispatch or Dispatch(self.settings.dispatch)

    def scope(self) -> Scope:
        """What expressions see, without an item."""
        return Scope(payload=self.payload, tasks=_Tasks(self), session=self.session)

    def task(self, name: str) -> TaskView:
        """A settled task of this session.

        Raises: ExpressionError: it has not settled.
        """
        view = self._views.get(name)
        if view is None:
            raw = self.stores.live.results(self.flow_session_id, [name])[0]
            if raw is None:
                raise ExpressionError(f"tasks.{name} has no result yet")
            view = self._views[name] = self._view(name, raw)
        return view

    def remember(self, name: str, view: TaskView) -> None:
        """Keep a task that settled here, so that it need not be read back."""
        self._views[name] = view

    def remember_items(self, name: str, results: list[object]) -> None:
        """Keep the results of all items of a `for_each` that ran here, while the session is not open."""
        self._own_items[name] = results

    def remember_kept(self, name: str, kept: bytes) -> None:
        """Keep the view of a task by what is kept of it, as `results` of a settlement."""
        self._views[name] = self._view(name, kept)

    def is_async(self, branch: Branch) -> bool:
        """Whether all actions of a branch (or the items of a `for_each`) are async."""
        known = self._is_async.get(branch.name)
        if known is None:
            known = self._is_async[branch.name] = all(_is_async(action) for action in branch.actions)
        return known

    def chunks(self, queue: str) -> str:
        """Most items to claim at once, for each `for_each` of the queue, as `settle_branch` takes it.

        An item whose result must be committed before the next is claimed alone, and so is one that waits beside others,
        or for a rate limit.
        """
        costs = self._chunked.get(queue)
        if costs is None:
            costs = self._chunked[queue] = [
                (branch.name, self.costs.of(branch.name))
                for branch in self.plan.branches.values()
                if branch.is_for_each
                and branch.queue == queue
                and branch.actions[0].durability is not Durability.SYNC
                and not branch.actions[0].rates
                and not self.is_async(branch)
            ]
        parts = [f"{name}={cost.chunk}" for name, cost in costs if cost.mean_ns]
        return f",{','.join(parts)}," if parts else ""

    def settled_steps(self, actions: Sequence[PlannedAction]) -> tuple[dict[str, TaskView], dict[str, int]]:
        """What former attempts of a branch got done.

        Returns: its actions that have a checkpoint, and how often others were tried again, by action.
        """
        names = [action.name for action in actions]
        kept = self.stores.live.results(self.flow_session_id, [*names, *map(retries_field, names)])
        found = {name: self._view(name, raw) for name, raw in zip(names, kept, strict=False) if raw}
        self._views.update(found)
        return found, {name: int(raw) for name, raw in zip(names, kept[len(names) :], strict=True) if raw}

    def items(self, action: PlannedAction) -> Sequence[object]:
        """The items of a `for_each`, evaluated once in this process.

        Raises: ExpressionError: see `ItemSource.resolve`.
        """
        items = self._items.get(action.name)
        if items is None:
            assert action.items is not None
            items = self._items[action.name] = action.items.resolve(self.scope())
        return items

    def write_now(self, rows: bytes) -> None:
        """Commit rows of the status channel to PostgreSQL before going on; the channel brings them again, in vain.

        Raises: ServiceUnreachable: PostgreSQL is away, and the worker stops.
        """
        entry = parse_entry("", self._entry([rows]))
        self.stores.patience.run(
            lambda: write_rows(self.stores.database, entry.tasks, entry.branches, entry.sessions, entry.dead_letters)
        )

    def keeper(self, *parts: list[list[object]]) -> Keep | None:
        """What keeps rows for the record when Redis does not take what they tell."""
        fallback = self.stores.fallback
        if fallback is None or not any(parts):
            return None
        return lambda: fallback.keep(self._entry([encode_rows(part) for part in parts if part]))

    def _entry(self, blobs: Sequence[bytes]) -> Fields:
        """An entry as in the status stream."""
        now_us = self.stores.live.clock.us(time.monotonic_ns())
        head = {"s": self.flow_session_id, "d": self.day, "t": str(now_us), "w": self.worker}
        return [*((name.encode(), value.encode()) for name, value in head.items()), *((b"b", blob) for blob in blobs)]

    def _view(self, name: str, raw: bytes) -> TaskView:
        kind, text = raw[:1], raw[1:]
        if kind == b"+":
            return success_view(orjson.loads(text))
        if kind == b"@":
            return success_view(orjson.loads(self._stored_result(name)))
        ended = orjson.loads(text)
        if kind == b"*":
            counts = ended["counts"]
            return ItemsView(ended["status"], counts, lambda: self._item_results(name, counts["total"]))
        return ended_view(ended["status"], ended["error"])

    def _stored_result(self, action: str) -> bytes:
        stores = self.stores
        body = stores.patience.run(
            lambda: stored_results.get_result(stores.database, self.flow_session_id, self.day, action)
        )
        if body is None:
            raise WorkflowExecutionError(f"the result of {action} of {self.flow_session_id} is not in PostgreSQL")
        return body

    def _item_results(self, action: str, size: int) -> list[object]:
        """Results of all items in order; null where an item did not succeed."""
        own = self._own_items.get(action)
        if own is not None:
            return own
        if self.read_items is not None:
            return self.read_items(action, size)
        live = self.stores.live
        if live.items_spilled(self.flow_session_id, action):
            stores = self.stores
            return stores.patience.run(
                lambda: stored_results.item_results(stores.database, self.flow_session_id, self.day, action, size)
            )
        values: list[object] = [None] * size
        for start, text in live.item_results(self.flow_session_id, action).items():
            chunk = orjson.loads(text)
            values[start : start + len(chunk)] = chunk
        return values


def _is_async(action: PlannedAction) -> bool:
    try:
        return find_action(action.uses).is_async
    except ActionError:
        return False  # not known here: the task says so when it is run


def retries_field(action: str) -> str:
    """Where the number of an action's retries is noted, beside the results; no action has such a name."""
    return f"@retries:{action}"


def load_context(
    flow_session_id: str, version: Version, day: str, worker: str, settings: Settings, stores: Stores
) -> ProcessingContext:
    """The context of an open session, with its payload from Redis.

    Raises: SessionClosed.
    """
    raw, gaps, kept = stores.live.results(flow_session_id, [PAYLOAD_FIELD, GAPS_FIELD, TRACE_FIELD])
    if raw is None:
        raise SessionClosed(f"flow session {flow_session_id} has no live state")
    trace = trace_of_kept(flow_session_id, kept)
    context = make_context(flow_session_id, version, day, orjson.loads(raw), worker, settings, stores, trace)
    context.has_gaps = gaps is not None
    return context


def make_context(
    flow_session_id: str, version: Version, day: str, payload: object, worker: str, settings: Settings, stores: Stores,
    trace: SessionTrace | None = None,
) -> ProcessingContext:  # fmt: skip
    """The context of a session whose payload is known."""
    return ProcessingContext(
        flow_session_id, version.plan, day, payload, worker, settings, stores, version.reads, version.costs,
        span_factory=SpanFactory(version.plan, trace), session=session_view(flow_session_id, version),
    )  # fmt: skip


def session_view(flow_session_id: str, version: Version) -> dict[str, object]:
    """`session` in expressions."""
    return {"id": flow_session_id, "workflow": version.plan.workflow, "version_id": version.plan.version_id}
