"""Read-only answers about runs: how they stand, what each task did, how far a run is. CLI and dashboard print them.

PostgreSQL is a moment behind (the status channel), Redis knows the present of runs that are under way; these functions
put the two together. They never change anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from orchestration.errors import UnknownRun
from orchestration.reports.explain import waits_of
from orchestration.reports.explain.gather import Live as LiveSituation
from orchestration.reports.shape import Shape, load_shape
from orchestration.state.records import LiveSnapshot
from orchestration.store import json_text, sessions, tasks
from orchestration.store.pool import Database
from orchestration.store.sessions import SessionRow
from orchestration.store.tasks import TaskRow
from orchestration.vocabulary import NO_ITEM, RunStatus, TaskStatus

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: How the statuses of items are shown: a timed-out item is a failed one, one that never ran a skipped one.
_FAILED = (TaskStatus.FAILED, TaskStatus.TIMED_OUT, TaskStatus.CANCELLED)
_SKIPPED = (TaskStatus.SKIPPED, TaskStatus.UPSTREAM_FAILED)
_OF_OPEN_RUNS = frozenset(status.value for status in RunStatus if not status.is_final)


class Live(LiveSituation, Protocol):
    """What is asked of the live state."""

    def snapshot(self, flow_session_id: str) -> LiveSnapshot | None: ...


@dataclass(frozen=True, slots=True)
class TaskReport:
    """One task, as `status --tasks` shows it."""

    action: str
    #: Index of the item of a `for_each`, else None.
    item: int | None
    status: TaskStatus
    attempt: int
    queue: str | None
    worker: str | None
    started_at: datetime | None
    finished_at: datetime | None
    error: Any

    def to_json(self) -> dict[str, Any]:
        return {
            "action": self.action, "item": self.item, "status": self.status.value, "attempt": self.attempt,
            "queue": self.queue, "worker": self.worker, "started_at": _rfc3339(self.started_at),
            "finished_at": _rfc3339(self.finished_at), "error": self.error,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class RunReport:
    """One flow session, as `status` shows it."""

    flow_session_id: str
    workflow: str
    version: int
    status: RunStatus
    #: None until the run has ended.
    output: Any
    #: Tasks by status; items of a `for_each` are counted one by one.
    counts: Mapping[str, int]
    #: From start to end; None until the run has ended.
    duration_seconds: float | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    #: Why the run itself failed, where no task did (a wrong `output`), as an object with `type` and `message`.
    error: Any = None
    #: What keeps it from going on, or a part of it, as sentences; empty when nothing does.
    waits_for: tuple[str, ...] = ()
    #: The run that this one is a retry of, and its own retry; None: it is none, or has none.
    retry_of: str | None = None
    retried_as: str | None = None
    #: By action, in the order of the definition, and item; None when not asked for.
    tasks: tuple[TaskReport, ...] | None = None

    def to_json(self) -> dict[str, Any]:
        """The fields that scripts rely on."""
        fields = {
            "flow_session_id": self.flow_session_id, "workflow": self.workflow, "version": self.version,
            "status": self.status.value, "output": self.output, "counts": dict(self.counts),
            "duration_seconds": self.duration_seconds, "started_at": _rfc3339(self.started_at),
            "finished_at": _rfc3339(self.finished_at), "waits_for": list(self.waits_for),
            "retry_of": self.retry_of, "retried_as": self.retried_as,
        }  # fmt: skip
        return fields if self.tasks is None else fields | {"tasks": [task.to_json() for task in self.tasks]}


@dataclass(frozen=True, slots=True)
class ActionProgress:
    """How far one action is; the numbers count its items, or the one task."""

    name: str
    status: TaskStatus
    #: Items of a `for_each` as soon as they are known; None for any other action.
    size: int | None
    succeeded: int
    #: With those that timed out or were cancelled.
    failed: int
    #: With those that did not run because something before them failed.
    skipped: int
    running: int
    started_at: datetime | None
    finished_at: datetime | None


@dataclass(frozen=True, slots=True)
class RunProgress:
    """How far a run is."""

    flow_session_id: str
    workflow: str
    version: int
    status: RunStatus
    started_at: datetime | None
    finished_at: datetime | None
    #: In the order of the definition.
    actions: tuple[ActionProgress, ...]
    #: The end of every action has reached PostgreSQL. A run that has just ended takes a moment to get there.
    recorded: bool


def status(database: Database, live: Live, flow_session_id: str, tasks: bool = False) -> RunReport:
    """How a run stands.

    Args: tasks: with every task of it; a `for_each` of a million items gives a million.
    Raises: UnknownRun: there is no such run.
    """
    row = _known(sessions.load_session(database, flow_session_id), flow_session_id)
    snapshot = None if row.status.is_final else live.snapshot(flow_session_id)
    report = _run(row, snapshot)
    if not row.status.is_final:
        waits_for = waits_of(database, live, flow_session_id)
        report = replace(report, counts=_counts_so_far(database, row, snapshot), waits_for=waits_for)
    return replace(report, tasks=_all_tasks(database, row, snapshot)) if tasks else report


def list_runs(
    database: Database,
    *,
    status: RunStatus | Iterable[RunStatus] | None = None,
    workflow: str | None = None,
    limit: int = 50,
    before: RunReport | None = None,
) -> list[RunReport]:
    """Runs, the newest first, as PostgreSQL knows them, without their output.

    Args: before: the last run of the page before.
    """
    after = None if before is None else (before.created_at, before.flow_session_id)
    rows = sessions.list_sessions(database, status=status, workflow=workflow, limit=limit, before=after)
    return [_run(row, None) for row in rows]


def failures(database: Database, flow_session_id: str, limit: int = 20) -> list[TaskReport]:
    """The first tasks of a run that failed or ran out of time, by their end; none when there is no such run."""
    row = sessions.find_session(database, flow_session_id)
    if row is None:
        return []
    found = tasks.failed_tasks(database, flow_session_id, row.session_day, limit)
    return [_task(task) for task in found]


def progress(database: Database, live: Live, flow_session_id: str) -> RunProgress | None:
    """How far a run is, action by action; None as long as it has not been accepted.

    Cheap to ask ten times a second: its cost grows with the actions, not with the items.
    """
    row = sessions.find_session(database, flow_session_id)
    if row is None:
        return None
    snapshot = None if row.status.is_final else live.snapshot(flow_session_id)
    shape = load_shape(database, row.version_id)
    found = tasks.tasks_of(database, flow_session_id, row.session_day, items=False)
    rows = {task.action: task for task in found}
    sizes: Mapping[str, Mapping[str, int]] = {}
    starts: Mapping[str, datetime | None] = {}
    if shape.for_each:
        sizes = tasks.item_counts_of(database, flow_session_id, row.session_day, shape.for_each)
        branches = tasks.branches_of(database, flow_session_id, row.session_day)
        starts = {branch.branch: branch.started_at for branch in branches}
    running = _running(shape, row, snapshot, rows)
    actions = []
    for name in shape.needs:
        task = rows.get(name)
        if name in shape.for_each:
            action = _for_each(name, task, snapshot, sizes.get(name), running)
            action = replace(action, started_at=action.started_at or starts.get(name))
        else:
            action = _single(name, task, running)
        actions.append(action)
    recorded = row.status.is_final and all(name in rows and rows[name].status.is_final for name in shape.needs)
    return RunProgress(
        flow_session_id, row.workflow, row.version, present_status(row, snapshot), row.started_at, row.finished_at,
        tuple(actions), recorded,
    )  # fmt: skip


def present_status(row: SessionRow, snapshot: LiveSnapshot | None) -> RunStatus:
    """How a run stands: Redis knows first that one under way only waits, is paused or goes on. Pure."""
    if snapshot is None or row.status.is_final or snapshot.status not in _OF_OPEN_RUNS:
        return row.status
    return RunStatus(snapshot.status)


def live_counts(snapshot: LiveSnapshot) -> dict[str, int]:
    """Tasks that have ended, by status, with the items of each `for_each` that is under way. Pure."""
    counts = dict(snapshot.counts)
    for items in snapshot.items.values():
        if items.settled < items.size:  # else they are in the counts of the session, or about to be
            for status, number in items.counts.items():
                counts[status] = counts.get(status, 0) + number
    return {status: number for status, number in counts.items() if number}


def _known(row: SessionRow | None, flow_session_id: str) -> SessionRow:
    if row is None:
        raise UnknownRun(f"no run has the id {flow_session_id}; `parallelizer list` shows those there are")
    return row


def _run(row: SessionRow, snapshot: LiveSnapshot | None) -> RunReport:
    return RunReport(
        row.flow_session_id, row.workflow, row.version, present_status(row, snapshot), _value(row.output), row.counts,
        row.duration_seconds, row.created_at, row.started_at, row.finished_at, _value(row.error),
        retry_of=row.retry_of, retried_as=row.retried_as,
    )  # fmt: skip


def _value(text: str | None) -> Any:
    return None if text is None else json_text.load(text)


def _counts_so_far(database: Database, row: SessionRow, snapshot: LiveSnapshot | None) -> dict[str, int]:
    if snapshot is not None:
        return dict(snapshot.counts)
    counts: dict[str, int] = {}
    for found in tasks.counts_by_action(database, row.flow_session_id, row.session_day, items=False).values():
        for task_status, number in found.counts.items():
            if task_status.is_final:
                counts[task_status.value] = counts.get(task_status.value, 0) + number
    return counts


def _all_tasks(database: Database, row: SessionRow, snapshot: LiveSnapshot | None) -> tuple[TaskReport, ...]:
    shape = load_shape(database, row.version_id)
    rows = {(task.action, task.item): task for task in tasks.tasks_of(database, row.flow_session_id, row.session_day)}
    singles = {action: task for (action, item), task in rows.items() if item == NO_ITEM}
    running = _running(shape, row, snapshot, singles)
    for name in shape.needs:
        key = (name, NO_ITEM)
        task = rows.get(key)
        if name in running and (task is None or not task.status.is_final):
            rows[key] = running[name] if task is None else replace(task, status=TaskStatus.RUNNING)
        elif task is None:
            rows[key] = TaskRow(name, NO_ITEM, TaskStatus.PENDING, 0, None, None, None, None, None)
    for item in _claimed_items(snapshot):
        known = rows.get((item.action, item.item))
        if known is None:
            rows[item.action, item.item] = item
        elif known.status is TaskStatus.PENDING:
            rows[item.action, item.item] = replace(known, status=TaskStatus.RUNNING)
    places = {name: place for place, name in enumerate(shape.needs)}
    order = sorted(rows, key=lambda key: (places.get(key[0], len(places)), key))
    return tuple(_task(rows[key]) for key in order)


def _task(row: TaskRow) -> TaskReport:
    return TaskReport(
        row.action, None if row.item == NO_ITEM else row.item, row.status, row.attempt, row.queue, row.worker,
        row.started_at, row.finished_at, row.error,
    )  # fmt: skip


def _running(
    shape: Shape, row: SessionRow, snapshot: LiveSnapshot | None, rows: Mapping[str, TaskRow]
) -> dict[str, TaskRow]:
    """Actions that run now: of each claimed branch the first that has not ended; of a `for_each`, itself."""
    found: dict[str, TaskRow] = {}
    if row.status.is_final:
        return found
    if snapshot is None:
        # Before the first fork a run has no live state: one process runs its first branch.
        if row.status is RunStatus.RUNNING and len(shape.roots) == 1:
            name = _current(shape, shape.roots[0], rows)
            if name is not None:
                found[name] = _running_row(name, NO_ITEM, 1, None, None)
        return found
    for claim in snapshot.claims:
        kind, _, unit = claim.token.partition(":")
        name = _current(shape, unit, rows) if kind == "b" else unit.rpartition(":")[0] if kind == "c" else unit
        if name is not None and name in shape.needs:
            since = _moment(claim.since_us) if kind == "b" and name == unit else None
            found[name] = _running_row(name, NO_ITEM, claim.attempt, claim.worker, since)
    for name, items in snapshot.items.items():
        if items.settled < items.size:
            found.setdefault(name, _running_row(name, NO_ITEM, 1, None, None))
    return found


def _current(shape: Shape, branch: str, rows: Mapping[str, TaskRow]) -> str | None:
    name: str | None = branch
    while name is not None and name in rows and rows[name].status.is_final:
        name = shape.following.get(name)
    return name


def _claimed_items(snapshot: LiveSnapshot | None) -> Iterable[TaskRow]:
    for claim in snapshot.claims if snapshot is not None else ():
        kind, _, unit = claim.token.partition(":")
        if kind == "c":
            action, _, start = unit.rpartition(":")
            for item in range(int(start), int(start) + claim.count):
                yield _running_row(action, item, claim.attempt, claim.worker, _moment(claim.since_us))


def _running_row(action: str, item: int, attempt: int, worker: str | None, since: datetime | None) -> TaskRow:
    return TaskRow(action, item, TaskStatus.RUNNING, attempt, None, worker, since, None, None)


def _single(name: str, task: TaskRow | None, running: Mapping[str, TaskRow]) -> ActionProgress:
    if name in running and (task is None or not task.status.is_final):
        since = running[name].started_at or (task.started_at if task is not None else None)
        return ActionProgress(name, TaskStatus.RUNNING, None, 0, 0, 0, 1, since, None)
    if task is None:
        return ActionProgress(name, TaskStatus.PENDING, None, 0, 0, 0, 0, None, None)
    succeeded, failed, skipped = _sums({task.status.value: 1})
    return ActionProgress(name, task.status, None, succeeded, failed, skipped, 0, task.started_at, task.finished_at)


def _for_each(
    name: str,
    task: TaskRow | None,
    snapshot: LiveSnapshot | None,
    size: Mapping[str, int] | None,
    running: Mapping[str, TaskRow],
) -> ActionProgress:
    if task is not None and task.status.is_final:
        succeeded, failed, skipped = _sums(size or {})
        total = None if size is None else size["total"]
        return ActionProgress(
            name, task.status, total, succeeded, failed, skipped, 0, task.started_at, task.finished_at
        )
    items = snapshot.items.get(name) if snapshot is not None else None
    if snapshot is None or items is None:
        state = TaskStatus.RUNNING if name in running else TaskStatus.PENDING
        return ActionProgress(name, state, None, 0, 0, 0, 0, None, None)
    succeeded, failed, skipped = _sums(items.counts)
    at_work = sum(claim.token.startswith(f"c:{name}:") for claim in snapshot.claims)
    return ActionProgress(name, TaskStatus.RUNNING, items.size, succeeded, failed, skipped, at_work, None, None)


def _sums(counts: Mapping[str, int]) -> tuple[int, int, int]:
    return (
        counts.get(TaskStatus.SUCCEEDED, 0),
        sum(counts.get(one, 0) for one in _FAILED),
        sum(counts.get(one, 0) for one in _SKIPPED),
    )


def _moment(microseconds: int) -> datetime:
    return _EPOCH + timedelta(microseconds=microseconds)


def _rfc3339(moment: datetime | None) -> str | None:
    return None if moment is None else moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
