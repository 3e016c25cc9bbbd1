"""The live state's transitions in plain Python: what the Lua scripts must do, without Redis, time or fairness.

The model follows the scripts: a test applies to both what a caller does, hands the model the claims that the scripts
chose, and the model says whether that choice was allowed and what the state must be now.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from orchestration.vocabulary import Outcome


@dataclass(frozen=True)
class ModelBranch:
    """A branch of a made-up plan; `size` of a for_each, else None."""

    name: str
    queue: str
    predecessors: int
    successors: tuple[str, ...]
    size: int | None = None
    most: int = 0


@dataclass
class Unit:
    """A ready or claimed unit."""

    attempt: int
    count: int
    retry: int
    life: str = ""


@dataclass
class Items:
    """A for_each that has been expanded."""

    size: int
    most: int
    queue: str
    cursor: int = 0
    running: int = 0
    settled: set[int] = field(default_factory=set)
    returned: dict[str, Unit] = field(default_factory=dict)

    @property
    def unclaimed(self) -> int:
        """Chunks that came back and items behind the cursor: units that could be claimed, one by one."""
        return len(self.returned) + self.size - self.cursor

    @property
    def claimable(self) -> bool:
        return self.unclaimed > 0 and (self.most == 0 or self.running < self.most)


@dataclass
class ModelLimits:
    """Limits that hold for more than one session: what an operator says wins over what is given; 0: none."""

    given: dict[str, int] = field(default_factory=dict)
    operators: dict[str, int] = field(default_factory=dict)

    def of(self, level: str) -> int:
        """What is in force."""
        return self.operators.get(level) or self.given.get(level, 0)

    def give(self, level: str, most: int) -> None:
        """A setting or a definition says so."""
        self.given[level] = most

    def set(self, level: str, most: int) -> None:
        """An operator says so."""
        self.operators[level] = most


@dataclass
class ModelSession:
    """One open session."""

    plan: dict[str, ModelBranch]
    limit: int
    #: Of the fleet, on each queue.
    slots: int = 1
    #: Runners in the header of its chord; 0: it has none.
    header: int = 0
    workflow: str = "w"
    #: Concurrency key; empty: none.
    key: str = ""
    #: Of the header: those that have come, and those of them that are neither on their way nor at work.
    come: set[str] = field(default_factory=set)
    parked: set[str] = field(default_factory=set)
    #: The runner that has ended it, or is to.
    ender: str = ""
    #: running or cancelled; and why it is paused.
    status: str = "running"
    paused: set[str] = field(default_factory=set)
    #: Somebody has cancelled it; else it was stopped for another reason, if it was.
    is_asked: bool = False
    #: Whether its branches may wait for so long only.
    max_wait_us: int = 0
    #: Whether it has a deadline that is looked at, and whether that has passed.
    has_deadline: bool = False
    is_over: bool = False
    #: Whether anybody looks at what is deferred: not at what was when it was stopped.
    is_delayed: bool = False
    ready: dict[str, dict[str, Unit]] = field(default_factory=dict)
    claimed: dict[str, Unit] = field(default_factory=dict)
    deferred: dict[str, tuple[str, Unit]] = field(default_factory=dict)
    items: dict[str, Items] = field(default_factory=dict)
    joined: dict[str, list[Outcome]] = field(default_factory=dict)
    settled: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        #: Its own limit when it was opened.
        self.limit_given = self.limit
        for branch in self.plan.values():
            if branch.predecessors == 0:
                self._make_ready(branch.queue, f"b:{branch.name}", Unit(1, 1, 0))

    @property
    def open(self) -> int:
        return len(self.plan) - len(self.settled)

    @property
    def session_levels(self) -> list[str]:
        """The semaphores of whole sessions that it counts at, the narrowest first."""
        key = [f"sessions:key:{self.key}"] if self.key else []
        return [*key, f"sessions:workflow:{self.workflow}", "sessions"]

    @property
    def levels(self) -> list[str]:
        """The semaphores, beside its own, whose permits it needs."""
        return ["global", f"workflow:{self.workflow}", *([f"key:{self.key}"] if self.key else [])]

    @property
    def goes_on(self) -> bool:
        """Whether it has not ended; a cancelled one ends with its last claim."""
        return bool(self.open) and not (self.status == "cancelled" and not self.claimed)

    @property
    def may_claim(self) -> bool:
        """Whether units of it may be claimed."""
        return self.status == "running" and not self.paused and not self.is_over

    def queue_of(self, unit: str) -> str:
        return self.plan[unit[2:].rpartition(":")[0] if unit.startswith("c:") else unit[2:]].queue

    def ready_units(self, queue: str) -> int:
        """Units that runners of a queue could claim now, a for_each's items counted one by one."""
        items = sum(entry.unclaimed for entry in self.items.values() if entry.queue == queue and entry.claimable)
        return len(self.ready.get(queue, {})) + items

    def wants_runner(self, queue: str, coming: int, turn: str | None = None) -> bool:
        """Whether one more runner is of use on a queue to which `coming` are on their way.

        Args: turn: the queue for which a permit is kept, if any.
        """
        free = self.ready_units(queue) > coming and len(self.claimed) + coming < self.limit_on(queue, turn)
        return self.may_claim and bool(self.open) and free and (not self.header or bool(self.parked))

    def limit_on(self, queue: str, turn: str | None) -> int:
        """Permits that branches of a queue may use while another has the turn."""
        return self.limit - (turn not in (None, queue))

    # What a caller does

    def claim(self, queue: str, unit: str, life: str, attempt: int, count: int, retry: int, chunk: int) -> None:
        """The scripts gave this unit to a life; was it there to be given?"""
        assert self.may_claim, f"{unit} is claimed in a session that is {self.status}, paused by {self.paused}"
        assert unit not in self.claimed, f"{unit} is claimed twice"
        assert len(self.claimed) < self.limit, f"{unit} is claimed above the session's limit"
        if unit.startswith("c:"):
            action, start = unit[2:].rpartition(":")[::2]
            items = self.items[action]
            assert items.queue == queue
            assert items.claimable, f"{unit} is claimed above the limit of its for_each"
            if unit in items.returned:
                known = items.returned.pop(unit)
                assert (attempt, count, retry) == (known.attempt, min(chunk, known.count), known.retry)
                if known.count > count:
                    rest = Unit(attempt, known.count - count, retry)
                    items.returned[f"c:{action}:{int(start) + count}"] = rest
            else:
                assert not items.returned, "chunks that came back go first"
                assert int(start) == items.cursor
                left = items.size - items.cursor
                sharing = min(self.limit, self.slots, items.most or self.limit)
                assert count == min(chunk, left, max(1, math.ceil(left / (2 * sharing))))
                assert (attempt, retry) == (1, 0)
                items.cursor += count
            items.running += 1
        else:
            known = self.ready[queue].pop(unit)
            assert (attempt, count, retry) == (known.attempt, known.count, known.retry)
        self.claimed[unit] = Unit(attempt, count, retry, life)

    def joined_counts(self, branch: str) -> tuple[int, int, int, int]:
        """S, F, K, U over the predecessors that have settled."""
        outcomes = self.joined.get(branch, [])
        return tuple(outcomes.count(outcome) for outcome in Outcome)  # type: ignore[return-value]

    def done(self, unit: str, outcome: Outcome) -> None:
        """A branch, or a for_each as a whole, has ended."""
        del self.claimed[unit]
        branch = self.plan[unit[2:]]
        assert branch.name not in self.settled, f"{branch.name} settled twice"
        self.settled.add(branch.name)
        for name in branch.successors:
            waiting = self.joined.setdefault(name, [])
            waiting.append(outcome)
            after = self.plan[name]
            assert len(waiting) <= after.predecessors
            if len(waiting) == after.predecessors:
                self._make_ready(after.queue, f"b:{name}", Unit(1, 1, 0))

    def end_overdue(self, unit: str, outcome: Outcome) -> None:
        """A branch has ended that nobody has begun."""
        self.claimed[unit] = self.ready[self.queue_of(unit)].pop(unit)
        self.done(unit, outcome)

    def untouched(self) -> list[str]:
        """Branches that are ready and that nobody has begun."""
        return sorted(
            unit for units in self.ready.values() for unit, waiting in units.items()
            if unit.startswith("b:") and (waiting.attempt, waiting.retry) == (1, 0)
        )  # fmt: skip

    def expand(self, unit: str) -> None:
        """A for_each has found its items."""
        del self.claimed[unit]
        branch = self.plan[unit[2:]]
        assert branch.size
        self.items[branch.name] = Items(branch.size, branch.most, branch.queue)

    def settle_items(self, unit: str, number: int) -> None:
        """The first `number` items of a chunk have settled; the rest goes back."""
        held = self.claimed.pop(unit)
        action, start = unit[2:].rpartition(":")[::2]
        items = self.items[action]
        items.running -= 1
        done = set(range(int(start), int(start) + number))
        assert not done & items.settled, "an item settled twice"
        items.settled |= done
        if number < held.count:
            items.returned[f"c:{action}:{int(start) + number}"] = Unit(held.attempt, held.count - number, 0)
        if len(items.settled) == items.size:
            self._make_ready(items.queue, f"f:{action}", Unit(1, 1, 0))

    def settle_items_and_defer(self, unit: str, number: int, retry: int) -> None:
        """As `settle_items`, and the first item that has not ended is to be tried again later."""
        held = self.claimed[unit]
        self.settle_items(unit, number)
        self.deferred[self._split_rest(unit, number, held)] = (self.queue_of(unit), Unit(held.attempt, 1, retry))
        self.is_delayed = True

    def flush(self, unit: str, number: int) -> None:
        """As `settle_items`, and the first item that has not ended stays claimed, as a chunk of one."""
        held = self.claimed[unit]
        self.settle_items(unit, number)
        self.items[unit[2:].rpartition(":")[0]].running += 1
        self.claimed[self._split_rest(unit, number, held)] = Unit(held.attempt, 1, 0, held.life)

    def _split_rest(self, unit: str, number: int, held: Unit) -> str:
        """Take the first item out of what came back; returns its unit."""
        action, start = unit[2:].rpartition(":")[::2]
        first, returned = int(start) + number, self.items[action].returned
        rest = returned.pop(f"c:{action}:{first}")
        if rest.count > 1:
            returned[f"c:{action}:{first + 1}"] = Unit(held.attempt, rest.count - 1, 0)
        return f"c:{action}:{first}"

    def defer(self, unit: str, retry: int) -> None:
        """A unit is to be tried again later."""
        held = self.claimed.pop(unit)
        if unit.startswith("c:"):
            self.items[unit[2:].rpartition(":")[0]].running -= 1
        self.deferred[unit] = (self.queue_of(unit), Unit(held.attempt, held.count, retry))
        self.is_delayed = True

    def back(self, unit: str) -> None:
        """Nothing was done."""
        held = self.claimed.pop(unit)
        if unit.startswith("c:"):
            self.items[unit[2:].rpartition(":")[0]].running -= 1
        self._put_back(unit, Unit(held.attempt, held.count, held.retry))

    def wake(self) -> None:
        """All that was deferred is due."""
        if not self.is_delayed:
            return
        for unit, (_, waiting) in self.deferred.items():
            self._put_back(unit, waiting)
        self.deferred.clear()
        self.is_delayed = False

    def lose(self, life: str) -> None:
        """The process behind a life is dead: what it held goes back with one attempt more, a chunk as single items."""
        for unit, held in [(unit, held) for unit, held in self.claimed.items() if held.life == life]:
            del self.claimed[unit]
            if unit.startswith("c:"):
                action, start = unit[2:].rpartition(":")[::2]
                self.items[action].running -= 1
                for item in range(int(start), int(start) + held.count):
                    self.items[action].returned[f"c:{action}:{item}"] = Unit(held.attempt + 1, 1, held.retry)
            else:
                self._put_back(unit, Unit(held.attempt + 1, held.count, held.retry))

    def _make_ready(self, queue: str, unit: str, waiting: Unit) -> None:
        entries = self.ready.setdefault(queue, {})
        assert unit not in entries
        entries[unit] = waiting

    def _put_back(self, unit: str, waiting: Unit) -> None:
        if unit.startswith("c:"):
            self.items[unit[2:].rpartition(":")[0]].returned[unit] = waiting
        else:
            self._make_ready(self.queue_of(unit), unit, waiting)
