"""Where the time of a run went, by what is recorded of its tasks and branches. Pure.

What is not on record is found by what is: a task that was ready and not claimed waited for a permit of its run while
the run had as many branches at work as it may, and else for a slot or a limit of others (queueing). A slot that goes on
with the next item of a `for_each` keeps its permit between the two: that is told from a slot that was given up by how
short it is.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from orchestration.reports.explain.critical_path import Span, critical_path, longest_chain
from orchestration.reports.explain.model import PathStep, TimeSpent, task_name
from orchestration.reports.lanes import lanes_of
from orchestration.reports.shape import Shape
from orchestration.store.sessions import SessionRow
from orchestration.store.tasks import BranchRow, TaskRow

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: From the end of an item to the start of the next one in its slot, µs: settling and claiming, on a busy machine, or
#: the message of a runner. Whoever waits longer has no permit.
HANDOVER_US: Final = 50_000


class Profile:
    """How many spans there are at once, over time."""

    def __init__(self, spans: Iterable[Span]) -> None:
        changes: dict[int, int] = {}
        for span in spans:
            changes[span.start] = changes.get(span.start, 0) + 1
            changes[span.end] = changes.get(span.end, 0) - 1
        self._times = sorted(changes)
        self._levels: list[int] = []
        level = 0
        for at in self._times:
            level += changes[at]
            self._levels.append(level)

    @property
    def most(self) -> int:
        return max(self._levels, default=0)

    def time_at_least(self, number: int, start: int, end: int) -> int:
        """How long, of `start` to `end`, there are at least so many at once."""
        total = 0
        if not self._times:
            return total
        place = max(0, bisect_right(self._times, start) - 1)
        for at, until, level in zip(
            self._times[place:], [*self._times[place + 1 :], end], self._levels[place:], strict=True
        ):
            if at >= end:
                break
            if level >= number:
                total += max(0, min(until, end) - max(at, start))
        return total


def time_spent(
    row: SessionRow,
    shape: Shape,
    tasks: Mapping[str, TaskRow],
    branches: Mapping[str, BranchRow],
    items: Mapping[str, Sequence[Item]],
    limit: int,
) -> TimeSpent | None:
    """Where the time of a run went that has ended; None where too little is recorded.

    Args: items: of each `for_each`, the items that ran. limit: branches of the run at once.
    """
    if row.finished_at is None:
        return None
    return _Account(shape, tasks, branches, items, limit).of(row)


class _Account:
    def __init__(
        self,
        shape: Shape,
        tasks: Mapping[str, TaskRow],
        branches: Mapping[str, BranchRow],
        items: Mapping[str, Sequence[Item]],
        limit: int,
    ) -> None:
        self._shape = shape
        self._tasks = tasks
        self._branches = branches
        self._items = items
        self._limit = limit
        self._spans = {name: span for name in shape.actions if (span := self._span(name)) is not None}
        at_work = [self._spans[name] for name in self._spans if name not in shape.for_each]
        at_work += [item.span for rows in self._items.values() for item in rows]
        self._busy = sum(span.length for span in at_work)
        self._most = Profile(span for span in at_work if span.length).most
        held = {name: held_spans(rows) for name, rows in self._items.items()}
        self._held = Profile(
            [*(span for name, span in self._spans.items() if name not in shape.for_each and span.length),
             *(span for spans in held.values() for span in spans)]
        )  # fmt: skip
        #: Of each `for_each` that has a limit of its own.
        self._held_of = {name: Profile(spans) for name, spans in held.items() if shape.actions[name].max_concurrent}

    def of(self, row: SessionRow) -> TimeSpent:
        accepted, began, ended = _us(row.created_at), _us(row.started_at or row.created_at), _us(row.finished_at)
        steps: list[PathStep] = []
        at = began
        for name in critical_path(self._spans, self._shape.needs):
            steps += self._steps(name, at)
            at = max(at, self._spans[name].end)
        lengths = {name: self._shortest(name) for name in self._spans}
        waited = sum(branch.waited_us or 0 for branch in self._branches.values())
        return TimeSpent(
            (ended - accepted) / 1e6, tuple(steps), max(0, began - accepted) / 1e6, max(0, ended - at) / 1e6,
            self._busy / 1e6, waited / 1e6, self._most, longest_chain(lengths, self._shape.needs) / 1e6,
        )  # fmt: skip

    def _span(self, name: str) -> Span | None:
        row = self._tasks.get(name)
        if row is None or row.finished_at is None:
            return None
        end = _us(row.finished_at)
        start = _us(row.started_at) if row.started_at else None
        if name in self._shape.for_each:
            branch = self._branches.get(name)
            starts = [item.span.start for item in self._items.get(name, ())]
            starts += [_us(branch.started_at)] if branch and branch.started_at else []
            start = min([*starts, *([start] if start is not None else [])], default=None)
        return Span(end if start is None else min(start, end), end)

    def _steps(self, name: str, at: int) -> list[PathStep]:
        """What a task adds to the path, which has come to the moment `at`."""
        span = self._spans[name]
        begun = max(span.start, at)
        own = self._gap(name, span.start, begun - at)
        last = max(self._items.get(name, ()), key=lambda item: item.span.end, default=None)
        if last is None:
            return [PathStep(name, max(0, span.end - begun) / 1e6, **own)]
        permits = self._permits(name, begun, last.span.start)
        queueing = max(0, last.span.start - begun) - permits
        running = max(0, min(last.span.end, span.end) - max(last.span.start, begun))
        after = max(0, span.end - max(last.span.end, begun))
        return [
            PathStep(name, 0.0, **own),
            PathStep(
                task_name(name, last.item), running / 1e6, permits / 1e6, queueing / 1e6, overhead_seconds=after / 1e6
            ),
        ]  # fmt: skip

    def _gap(self, name: str, start: int, gap: int) -> dict[str, float]:
        """How the time before a task is to be understood, in seconds by the field of a step."""
        action, branch, row = self._shape.actions[name], self._branches.get(name), self._tasks[name]
        waited = min(gap, (branch.waited_us or 0) if branch else 0)
        permits = self._permits(name, start - waited, start)
        rest = gap - waited
        is_retry = row.attempt > 1
        return {
            "permits_seconds": permits / 1e6, "queueing_seconds": (waited - permits) / 1e6,
            "retries_seconds": rest / 1e6 if is_retry else 0.0,
            "rate_limits_seconds": rest / 1e6 if action.rates and not is_retry else 0.0,
            "overhead_seconds": 0.0 if is_retry or action.rates else rest / 1e6,
        }  # fmt: skip

    def _permits(self, name: str, start: int, end: int) -> int:
        """How long, of this time, the run or the `for_each` had as many at work as it may."""
        if end <= start:
            return 0
        of_run = self._held.time_at_least(self._limit, start, end)
        own = self._held_of.get(name)
        if own is None:
            return of_run
        return max(of_run, own.time_at_least(self._shape.actions[name].max_concurrent, start, end))

    def _shortest(self, name: str) -> int:
        if name in self._shape.for_each:
            return max((item.span.length for item in self._items.get(name, ())), default=0)
        return self._spans[name].length


@dataclass(frozen=True, slots=True)
class Item:
    """An item that has ended."""

    item: int
    span: Span
    worker: str | None


def held_spans(items: Sequence[Item]) -> list[Span]:
    """When the items of a `for_each` had permits: those that followed one another in a slot are one span."""
    workers = {name: place for place, name in enumerate({item.worker for item in items})}
    spans = [item.span for item in items if item.span.length]
    numbers = [workers[item.worker] for item in items if item.span.length]
    lanes = lanes_of(numbers, [span.start for span in spans], [span.end for span in spans]).of
    found: list[Span] = []
    last: dict[int, Span] = {}
    for span, lane in sorted(zip(spans, lanes, strict=True), key=lambda pair: pair[0].start):
        before = last.get(lane)
        if before is not None and span.start - before.end <= HANDOVER_US:
            last[lane] = Span(before.start, span.end)
            continue
        if before is not None:
            found.append(before)
        last[lane] = span
    return [*found, *last.values()]


def _us(at: datetime | None) -> int:
    assert at is not None
    return (at - _EPOCH) // timedelta(microseconds=1)
