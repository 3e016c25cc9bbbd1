"""What ran when, and in which slot: the timeline of a run, as PostgreSQL tells it.

A lane is a slot of a worker: which one is not on record, so lanes are dealt out anew, as few for each worker as it had
branches and items at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from typing import Final

from orchestration.errors import UnknownRun
from orchestration.reports.lanes import lanes_of
from orchestration.reports.shape import Shape, load_shape
from orchestration.store import sessions, tasks
from orchestration.store.pool import Database
from orchestration.store.tasks import BranchRow, TaskRow
from orchestration.vocabulary import NO_ITEM, RunStatus, TaskStatus

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: Rows of tasks that are read; of a larger run the rest is counted as left out.
MOST_BARS: Final = 200_000


@dataclass(frozen=True, slots=True)
class Bar:
    """One task at work; times in µs since the epoch."""

    action: str
    item: int
    status: TaskStatus
    attempt: int
    start_us: int
    #: Now, for one that has not ended.
    end_us: int

    @property
    def name(self) -> str:
        return self.action if self.item == NO_ITEM else f"{self.action}[{self.item}]"


@dataclass(frozen=True, slots=True)
class Block:
    """What occupied a slot without a break: the tasks of a branch, or one item."""

    worker: str
    #: Since when it was ready and not begun.
    ready_us: int
    bars: tuple[Bar, ...]

    @property
    def start_us(self) -> int:
        return self.bars[0].start_us

    @property
    def end_us(self) -> int:
        return self.bars[-1].end_us


@dataclass(frozen=True, slots=True)
class Lane:
    """One slot: its blocks in order, none of which overlap."""

    worker: str
    #: From 1, within the worker.
    number: int
    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True)
class Timeline:
    """A run over time, µs since the epoch."""

    flow_session_id: str
    workflow: str
    version: int
    status: RunStatus
    #: From when the run was accepted to its end, or to now.
    start_us: int
    end_us: int
    lanes: tuple[Lane, ...]
    #: How many branches and items were ready and not begun, each from a moment on.
    waiting: tuple[tuple[int, int], ...]
    #: Tasks that have no place in it: they never ran, or are beyond MOST_BARS.
    left_out: int

    @property
    def bars(self) -> int:
        return sum(len(block.bars) for lane in self.lanes for block in lane.blocks)


def timeline(database: Database, flow_session_id: str, now_us: int) -> Timeline:
    """The timeline of a run, to its end or to now.

    Args: now_us: by Redis, where the run goes on.
    Raises: UnknownRun.
    """
    row = sessions.find_session(database, flow_session_id)
    if row is None:
        raise UnknownRun(f"no run has the id {flow_session_id}; `parallelizer list` shows those there are")
    shape = load_shape(database, row.version_id)
    found = tasks.tasks_of(database, flow_session_id, row.session_day, limit=MOST_BARS + 1)
    branches = {one.branch: one for one in tasks.branches_of(database, flow_session_id, row.session_day)}
    start_us = _us(row.created_at)
    end_us = max(start_us, now_us if row.finished_at is None else _us(row.finished_at))
    blocks = blocks_of(shape, found[:MOST_BARS], branches, end_us)
    drawn = sum(len(block.bars) for block in blocks)
    return Timeline(
        row.flow_session_id, row.workflow, row.version, row.status, start_us,
        max([end_us, *(block.end_us for block in blocks)]), tuple(deal_lanes(blocks)), waiting_of(blocks),
        len(found) - drawn,
    )  # fmt: skip


def blocks_of(shape: Shape, rows: Sequence[TaskRow], branches: Mapping[str, BranchRow], end_us: int) -> list[Block]:
    """What occupied slots: the tasks of each branch that ran on one worker, and each item by itself."""
    first_item: dict[str, int] = {}
    groups: dict[tuple[str, int, str], list[Bar]] = {}
    for row in rows:
        is_whole = row.item == NO_ITEM and row.action in shape.for_each
        if row.started_at is None or is_whole or row.action not in shape.actions:
            continue
        start = _us(row.started_at)
        end = end_us if row.finished_at is None else _us(row.finished_at)
        if row.item != NO_ITEM:
            first_item[row.action] = min(start, first_item.get(row.action, start))
        bar = Bar(row.action, row.item, row.status, row.attempt, start, max(start, end))
        groups.setdefault((shape.branch_of[row.action], row.item, row.worker or ""), []).append(bar)
    blocks = []
    for (branch, item, worker), bars in groups.items():
        bars.sort(key=attrgetter("start_us"))
        known = branches.get(branch)
        if item != NO_ITEM:
            begun = known.started_at if known else None
            ready = min(first_item[branch], _us(begun)) if begun else first_item[branch]
        else:
            ready = bars[0].start_us - (known.waited_us or 0 if known and bars[0].action == branch else 0)
        blocks.append(Block(worker, min(ready, bars[0].start_us), tuple(bars)))
    return blocks


def deal_lanes(blocks: Iterable[Block]) -> list[Lane]:
    """Lanes by worker, as few as its blocks need that none overlap; each block in the one that became free last."""
    ordered = sorted(blocks, key=lambda block: (block.worker, block.start_us, block.end_us))
    workers = sorted({block.worker for block in ordered})
    number = {worker: place for place, worker in enumerate(workers)}
    dealt = lanes_of(
        [number[block.worker] for block in ordered],
        [block.start_us for block in ordered],
        [block.end_us for block in ordered],
    )
    found: list[list[Block]] = [[] for _ in dealt.workers]
    for block, lane in zip(ordered, dealt.of, strict=True):
        found[lane].append(block)
    first = {worker: dealt.workers.index(number[worker]) for worker in workers}
    return [Lane(own[0].worker, lane - first[own[0].worker] + 1, tuple(own)) for lane, own in enumerate(found)]


def waiting_of(blocks: Iterable[Block]) -> tuple[tuple[int, int], ...]:
    """From which moment on how many were ready and not begun."""
    changes: dict[int, int] = {}
    for block in blocks:
        if block.ready_us < block.start_us:
            changes[block.ready_us] = changes.get(block.ready_us, 0) + 1
            changes[block.start_us] = changes.get(block.start_us, 0) - 1
    steps: list[tuple[int, int]] = []
    number = 0
    for moment in sorted(changes):
        number += changes[moment]
        steps.append((moment, number))
    return tuple(steps)


def _us(at: datetime) -> int:
    return (at - _EPOCH) // timedelta(microseconds=1)
