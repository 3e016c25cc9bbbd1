"""Changes of state as events: of one run with its branches and tasks, or of all runs. Read from PostgreSQL alone.

What has begun and ended since one last looked comes as two events. What was shorter than the engine cares to tell (30
ms) comes as two events too, since its row has both times. Each state is told once.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from orchestration.errors import UnknownRun
from orchestration.store import sessions
from orchestration.store.changes import Change, changes_since, take_mark
from orchestration.store.pool import Database
from orchestration.store.sessions import SessionRow
from orchestration.vocabulary import FINAL_RUN_STATUSES, NO_ITEM, RunStatus, TaskStatus

#: Names of fields → what they hold; each event has all of them.
FIELDS: Final = {
    "time": "when, RFC 3339, UTC, by Redis's clock (of runs, by PostgreSQL's); null where none is recorded, as of a "
    "task that waits for its next attempt",
    "kind": "`run`, `branch` or `task`",
    "flow_session_id": "the run",
    "workflow": "name of its workflow",
    "branch": "of a branch: its name",
    "action": "of a task: the action",
    "item": "of an item of a `for_each`: its index",
    "status": "the state that began then: of runs `queued`, `running` and how it ended; of branches and tasks "
    "`running`, `pending` before another attempt, and how it ended",
    "attempt": "of branches and tasks: which attempt",
    "queue": "of branches and tasks: the queue",
    "worker": "of branches and tasks: the worker",
    "error": "of a task that failed: an object with `type` and `message`",
}

_OPEN: Final = tuple(status for status in RunStatus if status not in FINAL_RUN_STATUSES)
#: Runs that are looked at one by one, at most.
MOST_OPEN: Final = 10_000
PAGE: Final = 500
#: The transaction that accepts a run is committed within this time.
LATEST_COMMIT: Final = timedelta(seconds=10)
_BEFORE_ALL: Final = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Event:
    """One change of state; see `FIELDS`."""

    time: datetime | None
    kind: str
    flow_session_id: str
    workflow: str
    status: str
    branch: str | None = None
    action: str | None = None
    item: int | None = None
    attempt: int | None = None
    queue: str | None = None
    worker: str | None = None
    error: Any = None

    def to_json(self) -> dict[str, Any]:
        """All fields, in the order of `FIELDS`."""
        known = {each.name: getattr(self, each.name) for each in fields(self)}
        if self.time is not None:
            known["time"] = self.time.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        return {name: known[name] for name in FIELDS}


def _order(event: Event) -> tuple[bool, datetime, bool, int]:
    """By time; of one moment, beginnings from the run down to the task, then ends from the task up."""
    begins = event.status in (RunStatus.QUEUED, TaskStatus.RUNNING)
    depth = ("run", "branch", "task").index(event.kind)
    return event.time is None, event.time or _BEFORE_ALL, not begins, depth if begins else -depth


class EventsOfRun:
    """The events of one run with its branches and tasks. Remembers each task: some 200 bytes for each."""

    def __init__(self, database: Database, flow_session_id: str) -> None:
        """Raises: UnknownRun."""
        self._database = database
        self._run = self._load(flow_session_id)
        self._told = _ToldRuns()
        self._mark: str | None = None
        #: Branch, or action and item → sequence of what was told of it last, and the last attempt whose begin was told.
        self._known: dict[tuple[str, int | None], tuple[int, int]] = {}

    @property
    def has_ended(self) -> bool:
        """Whether the run had ended when one last looked; some of its tasks may not have been recorded yet."""
        return self._run.status.is_final

    def next(self) -> list[Event]:
        """What has changed since the last call, by time."""
        self._run = self._load(self._run.flow_session_id)
        mark, run = take_mark(self._database), self._run
        changes = changes_since(self._database, run.flow_session_id, run.session_day, self._mark)
        self._mark = mark
        events = [*self._told.events(run), *(event for change in changes for event in self._events(change))]
        return sorted(events, key=_order)

    def _load(self, flow_session_id: str) -> SessionRow:
        run = sessions.find_session(self._database, flow_session_id)
        if run is None:
            raise UnknownRun(f"no run has the id {flow_session_id}; `parallelizer list` shows those there are")
        return run

    def _events(self, change: Change) -> list[Event]:
        key = change.name, change.item
        sequence, begun = self._known.get(key, (-1, 0))
        begins = change.started_at is not None and change.attempt > begun
        # the start of an attempt may be recorded again, some µs off
        self._known[key] = max(sequence, change.sequence), change.attempt if begins else begun
        events = []
        if begins:
            events.append(self._event(change, change.started_at, TaskStatus.RUNNING, None))
        if change.sequence > sequence and change.status is not TaskStatus.RUNNING:
            events.append(self._event(change, change.finished_at, change.status, change.error))
        return events

    def _event(self, change: Change, time: datetime | None, status: TaskStatus, error: Any) -> Event:
        is_branch = change.item is None
        return Event(
            time, "branch" if is_branch else "task", self._run.flow_session_id, self._run.workflow, status.value,
            change.name if is_branch else None, None if is_branch else change.name,
            None if change.item in (None, NO_ITEM) else change.item, change.attempt, change.queue, change.worker, error,
        )  # fmt: skip


class EventsOfRuns:
    """The events of all runs: those that have not ended, the newest beside, and those to come.

    Args: newest: how many runs the first call looks back.
    """

    def __init__(self, database: Database, newest: int) -> None:
        self._database = database
        self._newest = newest
        self._told = _ToldRuns()
        self._accepted_at: datetime | None = None
        #: What had ended and was accepted before is not told.
        self._looks_back_to = _BEFORE_ALL
        #: Told of, and not ended.
        self._open: dict[str, SessionRow] = {}

    def next(self) -> list[Event]:
        """What has changed since the last call, by time."""
        found = {run.flow_session_id: run for run in self._accepted()}
        found |= {
            run.flow_session_id: run
            for run in sessions.list_sessions(self._database, status=_OPEN, limit=MOST_OPEN)
            if run.flow_session_id not in found
        }
        for flow_session_id in self._open.keys() - found.keys():
            run = sessions.find_session(self._database, flow_session_id)
            if run is not None:
                found[flow_session_id] = run
        self._open = {name: run for name, run in found.items() if not run.status.is_final}
        newest = max((run.created_at for run in found.values()), default=None)
        if newest is not None:
            self._accepted_at = max(newest, self._accepted_at or newest)
            self._told.forget_before(self._accepted_at - 2 * LATEST_COMMIT, self._open.keys())
        events = [event for run in found.values() for event in self._told.events(run)]
        return sorted(events, key=_order)

    def _accepted(self) -> list[SessionRow]:
        """Runs that were accepted since the last call, and some before."""
        if self._accepted_at is None:
            newest = sessions.list_sessions(self._database, limit=self._newest)
            if len(newest) == self._newest:
                self._looks_back_to = newest[-1].created_at
            return newest
        after = max(self._accepted_at - LATEST_COMMIT, self._looks_back_to)
        found: list[SessionRow] = []
        while True:
            page = sessions.list_sessions(self._database, limit=PAGE, before=found[-1] if found else None)
            found += [run for run in page if run.created_at > after]
            if len(page) < PAGE or page[-1].created_at <= after:
                return found


class _ToldRuns:
    """Which states of runs were told."""

    def __init__(self) -> None:
        self._told: dict[str, tuple[datetime, set[RunStatus]]] = {}

    def events(self, run: SessionRow) -> list[Event]:
        """The states that the run has got into and that were not told yet."""
        _, told = self._told.setdefault(run.flow_session_id, (run.created_at, set()))
        states: dict[RunStatus, datetime | None] = {}
        if run.started_at is None or run.started_at > run.created_at:
            states[RunStatus.QUEUED] = run.created_at
        if run.started_at is not None:
            states[RunStatus.RUNNING] = run.started_at
        if run.status not in states:
            states[run.status] = run.finished_at
        new = {status: time for status, time in states.items() if status not in told}
        told.update(new)
        return [Event(time, "run", run.flow_session_id, run.workflow, status.value) for status, time in new.items()]

    def forget_before(self, moment: datetime, but: Any) -> None:
        """Runs that were accepted before are not asked for again, but for these."""
        for flow_session_id in [name for name, (when, _) in self._told.items() if when < moment and name not in but]:
            del self._told[flow_session_id]
