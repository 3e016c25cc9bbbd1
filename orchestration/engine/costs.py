"""What actions have cost lately, in this process: how many items go into one chunk, which forks are too short to share.

Kept with the compiled version (versions.py), so all sessions of a version in a process learn from each other. A wrong
guess costs time, never a guarantee. Threads may record at once; a lost measurement does no harm.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from orchestration.plan import PlannedAction

#: Work in one chunk: long against a script call (0.2 ms), short against the time a person or a limit notices.
CHUNK_NS: Final = 20_000_000
#: Items in one chunk: behind it nothing is gained (measured in a prototype: 54 k/s at 64, 56 k/s at 256).
MOST_ITEMS: Final = 256
#: A chunk is at most so many times larger than the one before, for the first items may not be like the next.
GROWTH: Final = 8
#: Weight of the newest measurement.
_NEWEST: Final = 0.5


@dataclass(slots=True)
class Cost:
    """One action: the recent mean of a task of it, with all that the engine does around it."""

    #: 0: not known.
    mean_ns: float = 0.0
    #: Recent number of items, of a for_each.
    size: float = 1.0
    #: Items of its last chunk.
    last_chunk: int = 0

    def record(self, duration_ns: int, tasks: int = 1) -> None:
        """Add a measurement of `tasks` tasks that took `duration_ns` together."""
        mean_ns = max(1.0, duration_ns / tasks)
        self.mean_ns += (mean_ns - self.mean_ns) * (_NEWEST if self.mean_ns else 1.0)
        self.last_chunk = tasks

    @property
    def chunk(self) -> int:
        """Most items to claim at once."""
        if not self.mean_ns:
            return 1
        return max(1, min(MOST_ITEMS, GROWTH * self.last_chunk, int(CHUNK_NS / self.mean_ns)))


@dataclass(slots=True)
class CostBook:
    """The costs of a version's actions."""

    _costs: dict[str, Cost] = field(default_factory=dict)

    def of(self, action: str) -> Cost:
        """The cost of an action, to read and to record."""
        cost = self._costs.get(action)
        if cost is None:
            cost = self._costs.setdefault(action, Cost())
        return cost

    def estimate_ns(self, actions: Iterable[PlannedAction]) -> float | None:
        """How long these actions take one after another; None when one of them has not run here yet."""
        total = 0.0
        for action in actions:
            cost = self.of(action.name)
            if not cost.mean_ns:
                return None
            total += cost.mean_ns * (cost.size if action.items is not None else 1.0)
        return total
