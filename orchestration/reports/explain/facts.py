"""What an explanation is made from, as it was read at about one moment. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from orchestration.reports.shape import Shape
from orchestration.state.situation import OpenSession, Situation
from orchestration.store.sessions import SessionRow
from orchestration.store.tasks import BranchRow, TaskRow
from orchestration.vocabulary import NO_ITEM


@dataclass(frozen=True, slots=True)
class Facts:
    """Of one flow session; what could not be read is None, and `away` says why."""

    flow_session_id: str
    row: SessionRow | None
    shape: Shape | None
    situation: Situation | None
    #: Service → what it said.
    away: Mapping[str, str] = field(default_factory=dict)
    #: By action: those that are no items.
    tasks: Mapping[str, TaskRow] = field(default_factory=dict)
    branches: Mapping[str, BranchRow] = field(default_factory=dict)
    #: Items: those that failed first, and the one that was asked for.
    items: Mapping[tuple[str, int], TaskRow] = field(default_factory=dict)
    #: (action, item) → µs at which its turn comes by its rate limits.
    rate_places: Mapping[tuple[str, int], int] = field(default_factory=dict)
    #: When somebody cancelled it.
    cancelled_at: datetime | None = None
    #: How long leases last.
    lease_us: int = 15_000_000

    @property
    def session(self) -> OpenSession | None:
        return None if self.situation is None else self.situation.session

    def row_of(self, action: str, item: int = NO_ITEM) -> TaskRow | None:
        return self.tasks.get(action) if item == NO_ITEM else self.items.get((action, item))

    def has_ended(self, action: str) -> bool:
        row = self.tasks.get(action)
        return row is not None and row.status.is_final

    def step_of(self, branch: str) -> str:
        """The step that a branch is at: the first that has not ended, as far as is recorded."""
        name: str | None = branch
        last = branch
        while name is not None and self.has_ended(name):
            last = name
            name = None if self.shape is None else self.shape.following.get(name)
        return name or last

    def task_of(self, unit: str) -> tuple[str, int]:
        """Action and item (NO_ITEM: none) that a unit is at."""
        kind, _, name = unit.partition(":")
        if kind == "c":
            action, _, start = name.rpartition(":")
            return action, int(start)
        return (self.step_of(name) if kind == "b" else name), NO_ITEM
