"""Logging of a process: JSON or console lines through structlog, with the ids of the run that a line belongs to.

Whoever writes a line only calls `logging`. The ids are looked up when the line is made (`ids`), the tag of its
component comes from its logger's name, and secrets are masked (masking.py). What a call brings along as `extra` becomes
fields. log_fields.py declares fields and tags.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final

import structlog

from config.log_fields import ACTION_TAG, IDS, LOGGERS, tag_of
from config.masking import Masker, secrets_of
from config.settings import Settings

#: What is known of the run that a record belongs to, by the names of `log_fields.IDS`.
IdsOf = Callable[[logging.LogRecord], Mapping[str, object]]

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_ID_NAMES: Final = tuple(field.name for field in IDS)
#: Line breaks and terminal sequences in data must not forge log lines.
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")
_CONTROL_IN_TEXT = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")
#: What every record has; the rest was brought along. `data` is Celery's, the whole request with its arguments.
_OWN: Final = frozenset({*vars(logging.makeLogRecord({})), "message", "asctime", "taskName", "data"})
#: How an attribute of a record begins that is for handlers of the processor, not for readers.
HIDDEN: Final = "parallelizer_"
#: Longer messages are cut, after they were masked with as much beyond as a secret and its name may take.
MOST_CHARACTERS, MARGIN = 100_000, 8_000
_plain: Final = logging.Formatter()


def no_ids(_: logging.LogRecord) -> Mapping[str, object]:
    """Of a process that runs nothing."""
    return {}


def configure_logging(settings: Settings, ids: IdsOf = no_ids) -> None:
    """Send all logging of this process to standard error, in the format and levels of the settings.

    Raises: ValueError: LOG_LEVEL can't be understood.
    """
    is_terminal = sys.stderr.isatty()
    as_json = settings.log_format == "json" or (settings.log_format == "auto" and not is_terminal)
    renderer: Any = (
        structlog.processors.JSONRenderer(ensure_ascii=False)
        if as_json
        else structlog.dev.ConsoleRenderer(colors=is_terminal, exception_formatter=structlog.dev.plain_traceback)
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter(renderer, ids, Masker(secrets_of(settings)), is_json=as_json))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    default, components = parse_levels(settings.log_level)
    root.setLevel(default)
    for name, level in components.items():
        logging.getLogger(name).setLevel(level)


def parse_levels(text: str) -> tuple[int, dict[str, int]]:
    """Read LOG_LEVEL: `info`, or `info,processor=debug`; a name is a component's or a logger's.

    Returns: the level of everything, and the levels of loggers by name.
    Raises: ValueError: names the part that is wrong.
    """
    default, components = logging.INFO, {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        name, _, level = part.rpartition("=")
        if level.lower() not in _LEVELS:
            raise ValueError(f"LOG_LEVEL: {level!r} is no level; use {', '.join(_LEVELS)}")
        if not name:
            default = _LEVELS[level.lower()]
            continue
        for logger in LOGGERS.get(name.strip(), (name.strip(),)):
            components[logger] = _LEVELS[level.lower()]
    return default, components


class LineFormatter(logging.Formatter):
    """Makes the fields of a line from a record, and the line of them.

    Args: renderer: the last processor of a chain of structlog's.
    """

    def __init__(self, renderer: Any, ids: IdsOf, masker: Masker, *, is_json: bool) -> None:
        super().__init__()
        self._renderer = renderer
        self._ids = ids
        self._masker = masker
        self._is_json = is_json
        self._stamp = structlog.processors.TimeStamper(fmt="iso", utc=True)

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record."""
        ids = ids_of(record, self._ids)
        line = dict(self._stamp(None, "", {}))
        line["level"] = record.levelname.lower()
        line["event"] = _escaped(tagged(record, message_of(record, self._masker), is_of_task="task_id" in ids))
        if self._is_json:
            line |= {"logger": record.name, "pid": record.process}
        line |= {name: _escaped(value) if isinstance(value, str) else value for name, value in ids.items()}
        for name, value in fields_of(record, self._masker).items():
            line.setdefault(name, _escaped(value) if isinstance(value, str) else value)
        exception = exception_of(record, self._masker)
        if exception:
            line["exception"] = without_controls(exception)
        text = str(self._renderer(None, line["level"], line))
        # of what is nested; outside of a string of JSON there are none
        return _CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", text) if self._is_json else text


def ids_of(record: logging.LogRecord, known: IdsOf) -> dict[str, object]:
    """The ids of a record: what the call brought along, else what is known of where it was made."""
    ids = dict(known(record))
    ids |= {name: value for name in _ID_NAMES if (value := getattr(record, name, None)) is not None}
    return {name: ids[name] for name in _ID_NAMES if ids.get(name) is not None}


def tagged(record: logging.LogRecord, message: str, *, is_of_task: bool) -> str:
    """The message with the tag of its component in front."""
    tag = tag_of(record.name) or (ACTION_TAG if is_of_task else None)
    return message if tag is None or message.startswith("[") else f"[{tag}] {message}"


def message_of(record: logging.LogRecord, masker: Masker) -> str:
    """The message, masked; a call with wrong arguments is shown as it stands, and fails nobody."""
    try:
        text = record.getMessage()
    except Exception:  # noqa: BLE001 - whatever the arguments raise
        text = f"{record.msg!s} {record.args!r}"
    return masker.text(text[: MOST_CHARACTERS + MARGIN])[:MOST_CHARACTERS]


def fields_of(record: logging.LogRecord, masker: Masker) -> dict[str, Any]:
    """What the call brought along as `extra` beside ids, masked."""
    return {
        name: masker.field(name, value)
        for name, value in vars(record).items()
        if name not in _OWN and name not in _ID_NAMES and not name.startswith(HIDDEN)
    }


def exception_of(record: logging.LogRecord, masker: Masker) -> str:
    """The traceback that the call brought along, masked; empty: none."""
    text = ""
    if record.exc_info and record.exc_info[0] is not None:
        text = _plain.formatException(record.exc_info)
    elif record.exc_text:
        text = record.exc_text
    if record.stack_info:
        text = f"{text}\n{record.stack_info}".strip()
    return masker.text(text[-(MOST_CHARACTERS + MARGIN) :])[-MOST_CHARACTERS:]


def without_controls(text: str) -> str:
    """A text of several lines that does nothing to a terminal."""
    return _CONTROL_IN_TEXT.sub(lambda match: repr(match[0])[1:-1], text)


def _escaped(text: str) -> str:
    return _CONTROL.sub(lambda match: repr(match[0])[1:-1], text)
