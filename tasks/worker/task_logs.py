"""What connects the logs of tasks to a worker: the process that keeps them, and the ids of Celery's own lines."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from functools import partial
from typing import Final

from config.masking import Masker, secrets_of
from config.settings import Settings
from orchestration.engine.context import is_database_away
from orchestration.engine.threads import leave_signals_to_main
from orchestration.store.pool import Database
from orchestration.store.task_logs import write_task_logs
from orchestration.telemetry.logs import ids_of_record
from orchestration.telemetry.task_logs import LogWriter, keep_task_logs
from tasks.canvas import RUN_BRANCHES, TAKE_UP
from tasks.workflow import flow_session_id_of

RUN_WORKFLOW, COMPLETE = "tasks.run_workflow", "tasks.complete_workflow"
_UUID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_writer: LogWriter | None = None


def keep(database: Database, settings: Settings) -> None:
    """What actions log in this process is kept from now on."""
    global _writer  # noqa: PLW0603 - one for each process
    _writer = LogWriter(partial(write_task_logs, database), is_database_away, leave_signals_to_main)
    keep_task_logs(_writer, Masker(secrets_of(settings)), settings.task_log_lines, settings.task_log_bytes)


def flush_task_logs() -> None:
    """The process ends: what waits is written, if PostgreSQL takes it."""
    if _writer is not None:
        _writer.flush()


def ids_of_line(record: logging.LogRecord) -> Mapping[str, object]:
    """The ids of a line of a worker; those of Celery's about a message of ours are in what it brings along."""
    ids = ids_of_record(record)
    if "flow_session_id" in ids:
        return ids
    request = getattr(record, "data", None)
    session = _session_of(request) if isinstance(request, Mapping) else None
    return ids if session is None else {"flow_session_id": session, **ids}


def _session_of(request: Mapping[str, object]) -> str | None:
    """The flow session of a message, of which Celery's lines have only the `repr` of the arguments."""
    name, task_id = request.get("name"), str(request.get("id"))
    if name == RUN_BRANCHES:
        return task_id.rpartition(".")[0] or None
    if name == RUN_WORKFLOW:
        # with a `run_id`, the session's id is made of that
        return None if "run_id" in str(request.get("kwargs")) else flow_session_id_of(task_id)
    if name in (COMPLETE, TAKE_UP):
        found = _UUID.search(str(request.get("args")))
        return found[0] if found else None
    return None
