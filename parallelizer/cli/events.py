"""`parallelizer events`: what happened in a run, as JSON lines."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated

import typer

from orchestration.reports.events import Events
from parallelizer.cli.connect import read_settings, services_for_reading

#: Between two looks, and what is waited once a run has ended for updates that are on their way, s.
LOOK_SECONDS, LATE_SECONDS = 0.5, 1.5

DataDir = Annotated[Path | None, typer.Option(help="Folder of the embedded servers; by default DATA_DIR.")]


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(events)


def events(
    flow_session_id: Annotated[str, typer.Argument(metavar="RUN", help="Id of a run, as `list` shows it.")],
    follow: Annotated[bool, typer.Option("--follow", help="Go on until the run has ended.")] = False,
    data_dir: DataDir = None,
) -> None:
    """Print what happened in a run, one JSON object a line: when it and each task of it began and ended."""
    with services_for_reading(read_settings(data_dir)) as services:
        found = Events(services.database, flow_session_id)
        _print(found)
        ended = time.monotonic()
        while follow and (not found.has_ended or time.monotonic() < ended + LATE_SECONDS):
            if not found.has_ended:
                ended = time.monotonic()
            time.sleep(LOOK_SECONDS)
            _print(found)


def _print(found: Events) -> None:
    for event in found.new():
        print(json.dumps(event, ensure_ascii=False), flush=True)
