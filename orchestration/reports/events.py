"""What happened in a run, one event after another: `parallelizer events`.

PostgreSQL has the times of what happened, but not those at which it was told: an update may come later than one of a
later moment. So whoever follows looks back a while each time, and tells what is new.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from orchestration.errors import UnknownRun
from orchestration.store import json_text, sessions
from orchestration.store.happened import happening_json, happenings
from orchestration.store.pool import Database
from orchestration.store.sessions import SessionRow

#: How much later than it happened an update may come and still be told by whoever follows.
LATE: Final = timedelta(seconds=30)
_BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)

Event = dict[str, Any]


class Events:
    """The events of one run, each told once.

    Raises: UnknownRun: there is no such run.
    """

    def __init__(self, database: Database, flow_session_id: str) -> None:
        self._database = database
        self._id = flow_session_id
        self._told: dict[tuple[Any, ...], datetime] = {}
        self._since = _BEGINNING
        self._newest = _BEGINNING
        #: The run had ended at the last look.
        self.has_ended = False
        self._row()

    def new(self) -> Iterator[Event]:
        """What has happened, and was not told before; of one look, in the order of time."""
        row = self._row()
        self._since = max(_BEGINNING + LATE, self._newest) - LATE
        self._told = {key: at for key, at in self._told.items() if at > self._since}
        for kind, at in (("run_accepted", row.created_at), ("run_started", row.started_at)):
            if at is not None and self._is_new((kind,), at):
                yield _run_event(row, kind, at)
        with happenings(self._database, self._id, row.session_day, self._since) as found:
            for one in found:
                if self._is_new((one.kind, one.action, one.item, one.attempt, one.status), one.at):
                    yield {"at": _rfc3339(one.at), **happening_json(one)}
        if row.finished_at is not None and self._is_new(("run_ended",), row.finished_at):
            yield _run_event(row, "run_ended", row.finished_at)
        self.has_ended = row.status.is_final

    def _is_new(self, key: tuple[Any, ...], at: datetime) -> bool:
        if at <= self._since or key in self._told:
            return False
        self._told[key] = at
        self._newest = max(self._newest, at)
        return True

    def _row(self) -> SessionRow:
        row = sessions.load_session(self._database, self._id)
        if row is None:
            raise UnknownRun(f"no run has the id {self._id}; `parallelizer list` shows those there are")
        return row


def _run_event(row: SessionRow, kind: str, at: datetime) -> Event:
    event: Event = {"at": _rfc3339(at), "event": kind, "flow_session_id": row.flow_session_id, "workflow": row.workflow}
    if kind == "run_ended":
        error = None if row.error is None else json_text.load(row.error)
        event |= {"status": row.status.value, "counts": dict(row.counts), "error": error}
    return event


def _rfc3339(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
