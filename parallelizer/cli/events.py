"""`parallelizer events`: changes of state as lines of JSON, for other programs."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final

import typer

from orchestration.reports.events import Event, EventsOfRun, EventsOfRuns
from parallelizer.cli.connect import Services, read_settings, services_for_reading
from parallelizer.cli.failures import INTERRUPTED

#: Between two looks; looking takes longer the more tasks there are: at most this share of the time.
LOOK_SECONDS: Final = 0.25
LOOKING_SHARE: Final = 0.05
#: How long after the end of a run nothing more must have been recorded, seconds.
QUIET_SECONDS: Final = 2.0

DataDir = Annotated[Path | None, typer.Option(help="Folder of the embedded servers; by default DATA_DIR.")]


def register(app: typer.Typer) -> None:
    """Add the command of this module to the command line."""
    app.command()(events)


def events(
    flow_session_id: Annotated[
        str | None, typer.Argument(metavar="[RUN]", help="A run, with its branches and tasks; without, all runs.")
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on: until the run ends, or, of all runs, until Ctrl-C.")
    ] = False,
    limit: Annotated[
        int, typer.Option(min=1, max=10_000, help="Of all runs: how many of the newest to begin with.")
    ] = 100,
    data_dir: DataDir = None,
) -> None:
    """Print changes of state, an object of JSON in each line, by time.

    Of all runs, only those of the runs themselves. What it reads is the record in PostgreSQL; it takes nothing from
    anybody, and any number may read at once.
    """
    with services_for_reading(read_settings(data_dir)) as services:
        found = _of_run(services, flow_session_id, follow) if flow_session_id else _of_all(services, limit, follow)
        try:
            for event in found:
                print(json.dumps(event.to_json(), ensure_ascii=False), flush=follow)
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None


def _of_run(services: Services, flow_session_id: str, follow: bool) -> Iterator[Event]:
    source, quiet_since = EventsOfRun(services.database, flow_session_id), time.monotonic()
    while True:
        began = time.monotonic()
        new = source.next()
        yield from new
        now = time.monotonic()
        if new or not source.has_ended:
            quiet_since = now
        if not follow or now - quiet_since > QUIET_SECONDS:
            return
        time.sleep(max(LOOK_SECONDS, (now - began) / LOOKING_SHARE))


def _of_all(services: Services, newest: int, follow: bool) -> Iterator[Event]:
    source = EventsOfRuns(services.database, newest)
    while True:
        began = time.monotonic()
        yield from source.next()
        if not follow:
            return
        time.sleep(max(LOOK_SECONDS, (time.monotonic() - began) / LOOKING_SHARE))
