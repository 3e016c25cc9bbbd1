"""`parallelizer top`: the fleet, its limits and its open runs, live."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from orchestration.errors import ServiceUnreachable
from orchestration.reports.fleet import FleetReport, Rates, fleet, rates_between
from orchestration.state.client import is_away
from parallelizer.cli.connect import Services, read_settings, services_for_explaining
from parallelizer.cli.failures import without_passwords
from parallelizer.cli.keyboard import Keyboard
from parallelizer.cli.output import AsJson, console_for
from parallelizer.cli.top_view import draw
from parallelizer.cli.words import one_line, rfc3339_of_us

DataDir = Annotated[Path | None, typer.Option(help="Folder of the embedded servers; by default DATA_DIR.")]
#: Of a frame that goes elsewhere than to a terminal.
PLAIN_COLUMNS = 160
#: One look, and what is known of the speed since the one before; or what could not be read.
Look = tuple[FleetReport, Rates | None] | str


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(top)


def top(
    interval: Annotated[float, typer.Option(min=0.2, max=3600, help="Seconds between two looks.")] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Look, once more after the interval, print, and end.")] = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Show workers, slots, limits and open runs, live; `q` or Ctrl-C ends it.

    Without a terminal a frame is printed at each look. With --json each look is a line of JSON.
    """
    console = console_for(result_is_json=False)
    if not console.is_terminal:
        console = Console(width=PLAIN_COLUMNS, highlight=False)
    with services_for_explaining(read_settings(data_dir)) as services, Keyboard() as keyboard:
        looks = _looks(services, keyboard, interval)
        try:
            if once:
                next(looks)
                _show(console, next(looks), as_json)
            elif as_json or not console.is_terminal:
                for look in looks:
                    _show(console, look, as_json)
            else:
                _show_live(console, looks)
        except (KeyboardInterrupt, BrokenPipeError):
            return


def _looks(services: Services, keyboard: Keyboard, interval: float) -> Iterator[Look]:
    """One look at each interval, until `q` is pressed."""
    before: FleetReport | None = None
    while True:
        look = _look(services, before)
        yield look
        before = look[0] if isinstance(look, tuple) else before
        if keyboard.pressed(interval) in ("q", "Q"):
            return


def _look(services: Services, before: FleetReport | None) -> Look:
    try:
        report = fleet(services.database, services.live)
    except ServiceUnreachable as error:
        return str(error)
    except Exception as error:
        if not is_away(error):
            raise
        return f"Redis does not answer ({error}); see: parallelizer doctor"
    if before is None or not services.database.counts:
        return report, None
    return report, rates_between(before, report)


def _show(console: Console, look: Look, as_json: bool) -> None:
    if as_json:
        print(json.dumps(_as_json(look), ensure_ascii=False), flush=True)
    else:
        console.print(_frame(look, sys.maxsize), soft_wrap=True)
        console.print()


def _show_live(console: Console, looks: Iterator[Look]) -> None:
    with Live(console=console, auto_refresh=False, screen=True) as live:
        for look in looks:
            live.update(_frame(look, console.height), refresh=True)


def _frame(look: Look, height: int) -> RenderableType:
    if isinstance(look, str):
        return Text(one_line(without_passwords(look), 500), style="red")
    report, rates = look
    return Group(draw(report, rates, min(height, 10_000)))


def _as_json(look: Look) -> dict[str, Any]:
    if isinstance(look, str):
        return {"error": without_passwords(look)}
    report, rates = look
    speed = None if rates is None else rates.to_json()
    return {"at": rfc3339_of_us(report.state.now_us), **report.to_json(), "rates": speed}
