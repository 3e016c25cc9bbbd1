"""Logging of a process: JSON or console lines through structlog, with the ids that a log call brings along.

Component tags stand in the message: [PARALLELIZER] scheduling, [BRANCH_PROCESSOR] branches and actions,
[STATUS_CHANNEL], [WORKER].
"""

from __future__ import annotations

import logging
import re
import sys
from typing import Any

import structlog

from config.settings import Settings

#: What a log call may bring along as `extra`.
IDS = ("flow_session_id", "workflow_id", "task_id", "branch_id", "trace_id")
_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
#: Loggers that a component's short name stands for in LOG_LEVEL.
COMPONENTS = {"processor": "orchestration", "worker": "tasks", "celery": "celery", "sql": "sqlalchemy"}
#: Line breaks and terminal sequences in data must not forge log lines.
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f]")


def configure_logging(settings: Settings) -> None:
    """Send all logging of this process to standard error, in the format and levels of the settings.

    Raises: ValueError: LOG_LEVEL can't be understood.
    """
    shared: list[Any] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(allow=IDS),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _escape,
    ]
    as_json = settings.log_format == "json" or (settings.log_format == "auto" and not sys.stderr.isatty())
    renderer: list[Any]
    if as_json:
        renderer = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    else:
        renderer = [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    default, components = parse_levels(settings.log_level)
    root.setLevel(default)
    for name, level in components.items():
        logging.getLogger(name).setLevel(level)


def parse_levels(text: str) -> tuple[int, dict[str, int]]:
    """Read LOG_LEVEL: `info`, or `info,processor=debug`.

    Returns: the level of everything, and the levels of loggers by name.
    Raises: ValueError: names the part that is wrong.
    """
    default, components = logging.INFO, {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        name, _, level = part.rpartition("=")
        if level.lower() not in _LEVELS:
            raise ValueError(f"LOG_LEVEL: {level!r} is no level; use {', '.join(_LEVELS)}")
        if name:
            components[COMPONENTS.get(name, name)] = _LEVELS[level.lower()]
        else:
            default = _LEVELS[level.lower()]
    return default, components


def _escape(_logger: object, _method: str, event: Any) -> Any:
    for key, value in event.items():
        if isinstance(value, str) and key != "exception":
            event[key] = _CONTROL.sub(lambda match: repr(match[0])[1:-1], value)
    return event
