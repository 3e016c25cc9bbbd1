"""Reads what an explanation is made from: PostgreSQL through the store, Redis through live state; changes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from difflib import get_close_matches
from typing import Final, Protocol

from orchestration.errors import ServiceUnreachable, UnknownRun, UnknownTask
from orchestration.reports.explain.critical_path import Span
from orchestration.reports.explain.facts import Facts
from orchestration.reports.explain.spent import Item
from orchestration.reports.shape import Shape, load_shape
from orchestration.state.client import is_away
from orchestration.state.situation import OpenSession, Situation
from orchestration.store import sessions, tasks
from orchestration.store.pool import Database
from orchestration.store.sessions import SessionRow
from orchestration.store.tasks import TaskRow
from orchestration.vocabulary import NO_ITEM, RunStatus

#: Failed items that are read, the first ones by their end; and deferred units whose places in lines are.
_MOST_FAILED: Final = 100
_MOST_PLACES: Final = 100


class Live(Protocol):
    """What is asked of live state."""

    def situation(self, flow_session_id: str, unit: str = "") -> Situation: ...
    def rate_places(
        self, flow_session_id: str, tasks: Sequence[tuple[str, int, int]]
    ) -> dict[tuple[str, int], int]: ...


def gather(
    database: Database,
    live: Live,
    flow_session_id: str,
    action: str | None = None,
    item: int | None = None,
    lease_us: int = 15_000_000,
) -> Facts:
    """What is known of a run, with one task of it in full.

    Raises: UnknownRun, UnknownTask: there is no such run or task; with the nearest names.
    """
    away: dict[str, str] = {}
    row, shape = None, None
    try:
        row = sessions.load_session(database, flow_session_id)
        shape = None if row is None else load_shape(database, row.version_id)
    except ServiceUnreachable as error:
        away["PostgreSQL"] = str(error)
    situation: Situation | None = None
    try:
        if row is None or not row.status.is_final:
            unit = f"c:{action}:{item}" if item is not None else ""
            situation = live.situation(flow_session_id, unit)
    except Exception as error:
        if not is_away(error):
            raise
        away["Redis"] = str(error)
    if row is None and not away:
        raise UnknownRun(_unknown_run(database, flow_session_id, situation))
    facts = Facts(flow_session_id, row, shape, situation, away, lease_us=lease_us)
    if row is not None and shape is not None:
        _check_task(shape, facts, action, item)
        facts = _with_rows(database, facts, row, action, item)
    session = facts.session
    return facts if session is None or not session.deferred else _with_places(live, facts, session)


def items_of(database: Database, row: SessionRow, shape: Shape, most: int) -> dict[str, list[Item]]:
    """The items that ran of each `for_each`.

    Args: most: items that are read in all.
    """
    found: dict[str, list[Item]] = {}
    workers: dict[str | None, str | None] = {}
    for name in shape.for_each:
        if most <= 0:
            break
        found[name] = [
            Item(one.item, Span(min(one.start_us, one.end_us), one.end_us), workers.setdefault(one.worker, one.worker))
            for one in tasks.item_spans(database, row.flow_session_id, row.session_day, name, most)
        ]
        most -= len(found[name])
    return found


def _with_rows(database: Database, facts: Facts, row: SessionRow, action: str | None, item: int | None) -> Facts:
    session, day = row.flow_session_id, row.session_day
    rows = {task.action: task for task in tasks.tasks_of(database, session, day, items=False)}
    branches = {branch.branch: branch for branch in tasks.branches_of(database, session, day)}
    items: dict[tuple[str, int], TaskRow] = {}
    if facts.shape is not None and facts.shape.for_each:
        failed = tasks.failed_tasks(database, session, day, _MOST_FAILED)
        items = {(task.action, task.item): task for task in failed if task.item != NO_ITEM}
    if action is not None and item is not None:
        own = tasks.tasks_of(database, session, day, action=action, after=(action, item - 1), limit=1)
        items |= {(task.action, task.item): task for task in own if task.item == item}
    cancelled_at: datetime | None = None
    if row.status is RunStatus.CANCELLED:
        cancelled_at = sessions.cancelled_at(database, session, day)
    return replace(facts, tasks=rows, branches=branches, items=items, cancelled_at=cancelled_at)


def _with_places(live: Live, facts: Facts, session: OpenSession) -> Facts:
    """Which of the units that wait for a time wait for their turn by a rate limit."""
    asked: list[tuple[str, int, int]] = []
    for unit in session.deferred[:_MOST_PLACES]:
        action, item = facts.task_of(unit.unit)
        asked.append((action, item, unit.attempt + unit.retry))
    try:
        return replace(facts, rate_places=live.rate_places(facts.flow_session_id, asked))
    except Exception as error:
        if not is_away(error):
            raise
        return facts


def _check_task(shape: Shape, facts: Facts, action: str | None, item: int | None) -> None:
    if action is None:
        return
    workflow = facts.row.workflow if facts.row else ""
    if action not in shape.actions:
        near = get_close_matches(action, shape.actions, n=3) or list(shape.actions)[:3]
        raise UnknownTask(f"the workflow {workflow} has no action {action!r}; near names: {', '.join(near)}")
    if item is None:
        return
    if action not in shape.for_each:
        raise UnknownTask(f"{action} is no for_each, so it has no item {item}; ask for {action} alone")
    known: Mapping[str, object] = facts.session.items if facts.session else {}
    size = facts.session.items[action].size if facts.session and action in known else None
    if item < 0 or (size is not None and item >= size):
        last = f"; it has {size:,}, from 0 to {size - 1:,}" if size else ""
        raise UnknownTask(f"{action} has no item {item}{last}")


def _unknown_run(database: Database, flow_session_id: str, situation: Situation | None) -> str:
    near = sessions.near_ids(database, flow_session_id)
    said = f"no run has the id {flow_session_id}"
    said += f"; near: {', '.join(near)}" if near else "; `parallelizer list` shows those there are"
    if situation is None:
        return said
    if not situation.alive:
        return f"{said}; if it was sent just now, it waits for a worker: none is alive (celery -A tasks worker)"
    return f"{said}; if it was sent just now, its message may still wait for a process that is free"
