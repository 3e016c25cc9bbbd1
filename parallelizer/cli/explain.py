"""`parallelizer explain`: why a run, or a task of it, is not running, failed, or took so long."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from orchestration.reports.explain import Cause, Explanation, TimeSpent, explain_run, spent_in_words
from parallelizer.cli.connect import read_settings, services_for_explaining
from parallelizer.cli.failures import WrongUse
from parallelizer.cli.output import AsJson, console_for, print_json
from parallelizer.cli.words import one_line, seconds_in_words

#: Steps of the critical path that are shown: the longest, in their order.
MOST_STEPS = 20
_TASK = re.compile(r"(?P<action>[^\[\]]+)(?:\[(?P<item>[0-9]{1,9})\])?")

DataDir = Annotated[Path | None, typer.Option(help="Folder of the embedded servers; by default DATA_DIR.")]


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(explain)


def explain(
    flow_session_id: Annotated[str, typer.Argument(metavar="RUN", help="Id of a run, as `list` shows it.")],
    task: Annotated[str | None, typer.Argument(metavar="[TASK]", help="An action, or ACTION[ITEM].")] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Say why a run, or one task of it, is not running, failed, or took so long, and what would change it.

    Exits 0 with an answer, also when a service is away; 2 when there is no such run or task.
    """
    action, item = (None, None) if task is None else parse_task(task)
    settings = read_settings(data_dir)
    with services_for_explaining(settings) as services:
        found = explain_run(
            services.database, services.live, flow_session_id, action, item,
            default_limit=services.settings.max_concurrent_branches, lease_seconds=services.settings.lease_seconds,
        )  # fmt: skip
    if as_json:
        print_json(found.to_json())
    else:
        print_explanation(console_for(result_is_json=False), found)


def parse_task(text: str) -> tuple[str, int | None]:
    """Action and item of `action` or `action[item]`.

    Raises: WrongUse.
    """
    found = _TASK.fullmatch(text)
    if found is None:
        raise WrongUse(f"{one_line(text, 80)!r} is no task; a task is ACTION or ACTION[ITEM], as in ship[17]")
    return found["action"], None if found["item"] is None else int(found["item"])


def print_explanation(console: Console, found: Explanation) -> None:
    """The summary, the causes with what would change them, and where the time went."""
    console.print(Text(one_line(found.summary, 1000), style="bold"), soft_wrap=True)
    for cause in found.causes:
        _print_cause(console, cause)
    if found.time_spent is not None:
        _print_time(console, found.time_spent)


def _print_cause(console: Console, cause: Cause) -> None:
    line = Text.assemble(("• ", "dim"), (f"{cause.code}: ", "cyan"), one_line(cause.sentence, 1000))
    console.print(line, soft_wrap=True)
    if cause.remedy:
        console.print(Text.assemble(("  → ", "dim"), one_line(cause.remedy, 500)), soft_wrap=True)


def _print_time(console: Console, spent: TimeSpent) -> None:
    console.print()
    said = f"{seconds_in_words(spent.total_seconds)} in all: {spent_in_words(spent)}"
    console.print(Text.assemble(("time  ", "bold"), said), soft_wrap=True)
    said = (
        f"{seconds_in_words(spent.busy_seconds)} of work, at most {spent.most_at_once} at once; without any wait it "
        f"takes {seconds_in_words(spent.shortest_seconds)}"
    )
    console.print(Text.assemble(("work  ", "bold"), said), soft_wrap=True)
    parts = ("running", "permits", "queueing", "retries", "rate_limits", "overhead")
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    table.add_column("critical path")
    for part in parts:
        table.add_column(part.replace("_", " "), justify="right")
    places = sorted(
        range(len(spent.path)),
        key=lambda place: -sum(getattr(spent.path[place], f"{part}_seconds") for part in parts),
    )  # fmt: skip
    for place in sorted(places[:MOST_STEPS]):
        step = spent.path[place]
        seconds = [getattr(step, f"{part}_seconds") for part in parts]
        table.add_row(Text(step.task), *("" if one < 0.0005 else seconds_in_words(one) for one in seconds))
    console.print(table)
    if len(spent.path) > MOST_STEPS:
        console.print(f"… {len(spent.path) - MOST_STEPS:,} shorter steps; --json has them all", style="dim")
