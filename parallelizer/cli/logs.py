"""`parallelizer logs`: what the tasks of a run have logged, as it is kept with them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import typer

from config.logs import without_controls
from orchestration.errors import UnknownRun
from orchestration.store import sessions
from orchestration.store.sessions import SessionRow
from orchestration.store.task_logs import LoggedLine, lines_by_time, lines_since, newest_line
from orchestration.telemetry.logs import place_of_task
from orchestration.vocabulary import NO_ITEM
from parallelizer.cli.connect import Services, read_settings, services_for_reading
from parallelizer.cli.failures import INTERRUPTED
from parallelizer.cli.words import rfc3339

#: Lines that are read at a time.
PAGE: Final = 1000
#: Between two looks.
LOOK_SECONDS: Final = 0.25
#: How long after the end of a run its last lines may be on their way, seconds: four times what they wait for others.
LAST_LINES_SECONDS: Final = 1.0

DataDir = Annotated[Path | None, typer.Option(help="Folder of the embedded servers; by default DATA_DIR.")]


class Level(StrEnum):
    """Levels of lines, from the least to the worst."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"
    CRITICAL = "critical"


def register(app: typer.Typer) -> None:
    """Add the command of this module to the command line."""
    app.command()(logs)


def logs(
    flow_session_id: Annotated[str, typer.Argument(metavar="RUN", help="Id of a run, as `list` shows it.")],
    task: Annotated[
        str | None, typer.Argument(metavar="[TASK]", help="Only of this action, or of one item of it: ACTION:ITEM.")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run ends.")] = False,
    level: Annotated[Level, typer.Option(help="This level and worse.")] = Level.DEBUG,
    data_dir: DataDir = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, an object in each line.")] = False,
) -> None:
    """Show what the tasks of a run have logged, by time.

    With --follow, what is logged from then on comes in the order in which it is recorded, some tenths of a second
    after it was logged.
    """
    action, item = _named(task)
    with services_for_reading(read_settings(data_dir)) as services:
        run = _run(services, flow_session_id)
        reader = _Reader(services, run, action, item, level)
        try:
            for line in reader.follow() if follow else reader.all():
                print(_json(run, line) if as_json else _text(line), flush=follow)
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None


class _Reader:
    """Reads the lines of one run, page by page."""

    def __init__(self, services: Services, run: SessionRow, action: str | None, item: int | None, level: Level) -> None:
        self._services = services
        self._run = run
        self._action = action
        self._item = item
        self._level = level.value

    def all(self, newest: int | None = None) -> Iterator[LoggedLine]:
        """All lines by time; with `newest`, none that was recorded after that one."""
        last: LoggedLine | None = None
        while True:
            page = lines_by_time(
                self._services.database, self._run.flow_session_id, self._run.session_day, action=self._action,
                item=self._item, level=self._level, after=None if last is None else last.place, limit=PAGE,
            )  # fmt: skip
            yield from (line for line in page if newest is None or line.id <= newest)
            if len(page) < PAGE:
                return
            last = page[-1]

    def follow(self) -> Iterator[LoggedLine]:
        """All lines, and those to come until the run has ended."""
        database, session, day = self._services.database, self._run.flow_session_id, self._run.session_day
        newest = newest_line(database, session, day)
        yield from self.all(newest)
        ended: float | None = None
        while True:
            page = lines_since(
                database, session, day, action=self._action, item=self._item, level=self._level, after_id=newest,
                limit=PAGE,
            )  # fmt: skip
            if page:
                newest = page[-1].id
                yield from sorted(page, key=lambda line: line.place)
                continue
            if ended is None and _run(self._services, session).status.is_final:
                ended = time.monotonic()
            if ended is not None and time.monotonic() - ended > LAST_LINES_SECONDS:
                return
            time.sleep(LOOK_SECONDS)


def _run(services: Services, flow_session_id: str) -> SessionRow:
    run = sessions.find_session(services.database, flow_session_id)
    if run is None:
        raise UnknownRun(f"no run has the id {flow_session_id}; `parallelizer list` shows those there are")
    return run


def _named(task: str | None) -> tuple[str | None, int | None]:
    """Action and item that a text names."""
    if task is None:
        return None, None
    action, colon, item = task.rpartition(":")
    return (action, int(item)) if colon and item.isdecimal() else (task, None)


def _text(line: LoggedLine) -> str:
    first, *rest = without_controls(line.message).splitlines() or [""]
    fields = "".join(f" {name}={json.dumps(value, ensure_ascii=False)}" for name, value in (line.fields or {}).items())
    task = place_of_task(line.action, line.item)
    attempt = f" (attempt {line.attempt})" if line.attempt > 1 else ""
    when = line.logged_at.astimezone().strftime("%H:%M:%S.%f")[:-3]
    head = f"{when} {task}{attempt} {line.level}: {first}{without_controls(fields)}"
    return "\n".join([head, *(f"    {part}" for part in rest)])


def _json(run: SessionRow, line: LoggedLine) -> str:
    return json.dumps(
        {
            "time": rfc3339(line.logged_at), "flow_session_id": run.flow_session_id, "workflow": run.workflow,
            "action": line.action, "item": None if line.item == NO_ITEM else line.item, "attempt": line.attempt,
            "level": line.level, "logger": line.logger, "message": line.message, "fields": line.fields,
        },
        ensure_ascii=False,
    )  # fmt: skip
