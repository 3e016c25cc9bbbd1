"""A queue in three numbers, for whoever reads several queues in one round trip."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from orchestration.state.keys import KeySpace


@dataclass(frozen=True, slots=True)
class QueueCounts:
    """What there is of a queue just now."""

    slots: int
    #: Runners that are published or at work.
    runners: int
    #: Sessions that wait for a slot.
    waiting: int

    @staticmethod
    def ask(pipe: Any, space: KeySpace, queue: str) -> None:
        """The pipeline asks for them too."""
        key = space.key
        pipe.get(key("slots_total", queue)).zcard(key("inflight", queue)).zcard(key("waiting", queue))

    @classmethod
    def take(cls, replies: Iterator[Any]) -> QueueCounts:
        """Read what `ask` has asked for: the next replies."""
        slots, runners, waiting = next(replies), next(replies), next(replies)
        return cls(max(0, int(slots or 0)), runners, waiting)
