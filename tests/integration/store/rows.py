"""Rows for tests, with only what matters to the test spelled out."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime

from orchestration.store import sessions, workflows
from orchestration.store.pool import Database
from orchestration.store.sessions import SessionRow
from orchestration.store.updates import TaskUpdate

DAY = datetime.now(UTC).date().isoformat()
#: A moment, in µs since the epoch.
NOON_US = 1_790_000_000_123_457


def new_session(database: Database, name: str = "demo", actions: dict[str, object] | None = None) -> SessionRow:
    """A running flow session of a version that has these actions."""
    definition = {"name": name, "actions": actions or {"work": {"uses": "core.noop"}}}
    version_id = f"{name}-{uuid.uuid4().hex}"
    version = workflows.register_version(database, name, version_id, definition, publish=True)
    return sessions.insert_session(
        database, new_id(), workflow=name, version_id=version_id, version=version.number, payload=b'{"a": 1}'
    )


def new_id() -> str:
    return str(uuid.uuid4())


def task(
    flow_session_id: str,
    action: str = "work",
    item: int = -1,
    *,
    status: str = "succeeded",
    sequence: int = 100_005,
    attempt: int = 1,
    queue: str | None = "branches",
    started_us: int | None = NOON_US,
    finished_us: int | None = None,
    result: str | None = None,
    error: str | None = None,
    day: str = DAY,
) -> TaskUpdate:
    return TaskUpdate(
        day, flow_session_id, action, item, status, attempt, sequence, queue, "worker@here", started_us, finished_us,
        result, error,
    )  # fmt: skip
