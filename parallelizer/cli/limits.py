"""`parallelizer limits`: what is limited, who waits for it, and changes while everything runs."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from orchestration.definition.schema import MAX_LIMIT, is_name
from orchestration.engine.concurrency_key import check_key
from orchestration.errors import PayloadError, UnknownRun
from orchestration.state.limits import LOOK_SECONDS, SESSIONS, LimitReport, read_limits
from orchestration.state.records import LimitChange
from parallelizer.cli.connect import Services, read_settings, services_for_reading
from parallelizer.cli.failures import WrongUse
from parallelizer.cli.output import AsJson, console_for, print_json
from parallelizer.cli.submit import publish
from parallelizer.cli.words import seconds_in_words

#: Largest limit of one session, as in definitions.
MAX_SESSION_LIMIT = 10_000
NAMES = (
    "global, workflow:NAME, key:KEY and session:RUN limit branches at once; "
    "sessions, sessions:workflow:NAME and sessions:key:KEY limit runs at once"
)

Name = Annotated[str, typer.Argument(metavar="NAME", help=f"{NAMES}.")]
DataDir = Annotated[Path | None, typer.Option(help="Folder of the embedded servers; by default DATA_DIR.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the command line."""
    limits = typer.Typer(invoke_without_command=True, rich_markup_mode=None)
    limits.callback()(show)
    limits.command("set", context_settings={"ignore_unknown_options": True})(set_limit)
    limits.command("unset")(unset_limit)
    app.add_typer(limits, name="limits")


def show(
    context: typer.Context,
    sessions: Annotated[bool, typer.Option("--sessions", help="Those of each open run too.")] = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Show every limit with its use, the runs that wait for it and the longest wait; set or unset one."""
    if context.invoked_subcommand is not None:
        return
    with services_for_reading(read_settings(data_dir)) as services:
        found = read_limits(services.live, sessions=sessions)
    if as_json:
        print_json([report.to_json() for report in found])
    else:
        console_for(result_is_json=False).print(_table(found))


def set_limit(
    name: Name,
    value: Annotated[str, typer.Argument(metavar="VALUE", help="A whole number of at least 1.")],
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Set a limit at once, for as long as it is not unset; it wins over settings and definitions.

    A raised limit lets those in that wait. What is above a lowered one ends with the branches that it is for.
    """
    name = _checked_name(name)
    most = _checked_value(name, value)
    with services_for_reading(read_settings(data_dir)) as services:
        change = _change(services, name, most)
        if not change.before:
            time.sleep(LOOK_SECONDS)  # until each process knows that nothing may start without a permit
    _tell(name, change, as_json, f"{name}: at most {most} at once{_before(change)}")


def unset_limit(name: Name, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Leave a limit to settings and definitions again."""
    name = _checked_name(name)
    with services_for_reading(read_settings(data_dir)) as services:
        change = _change(services, name, 0)
    said = f"at most {change.now} at once, as settings and definitions say" if change.now else "no limit"
    _tell(name, change, as_json, f"{name}: {said}{_before(change)}")


def _change(services: Services, name: str, most: int) -> LimitChange:
    change = services.live.set_limit(name, most)
    if change is None:
        raise UnknownRun(f"no run {name.partition(':')[2]} is open: it has ended, has not begun, or ran in one piece")
    publish(change.publications)
    return change


def _tell(name: str, change: LimitChange, as_json: bool, text: str) -> None:
    if as_json:
        print_json(
            {"name": name, "limit": change.now or None, "before": change.before or None, "in_use": change.in_use}
        )
        return
    if change.now and change.in_use > change.now:
        ends = "runs" if name.startswith(SESSIONS) else "branches"
        text += f"; {change.in_use} in use now; it takes effect as {ends} end"
    print(text)


def _before(change: LimitChange) -> str:
    if change.before == change.now:
        return " (as before)"
    return f" (before: {change.before or 'no limit'})"


def _checked_name(name: str) -> str:
    if name.startswith(("sessions:workflow:", "sessions:key:")):
        return f"{SESSIONS}:{_checked_name(name.removeprefix('sessions:'))}"
    kind, separator, rest = name.partition(":")
    if name in ("global", SESSIONS):
        return name
    if name == "workflows":
        return SESSIONS  # MAX_CONCURRENT_WORKFLOWS says so
    if kind == "workflow" and is_name(rest):
        return name
    if kind == "session" and re.fullmatch(r"[A-Za-z0-9-]{1,64}", rest):
        return name
    if kind == "key" and separator:
        try:
            check_key(rest)
        except PayloadError as error:
            raise WrongUse(f"{name[:100]!r}: {error}") from None
        return name
    raise WrongUse(f"{name[:100]!r} is no limit; {NAMES}")


def _checked_value(name: str, value: str) -> int:
    most = MAX_SESSION_LIMIT if name.startswith("session:") else MAX_LIMIT
    if not re.fullmatch(r"[0-9]{1,9}", value) or not 1 <= int(value) <= most:
        raise WrongUse(
            f"a limit is a whole number from 1 to {most:,}, not {value[:40]!r}; "
            f"`parallelizer limits unset {name}` takes a limit off"
        )
    return int(value)


def _table(found: list[LimitReport]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    for column in ("limit", "at most", "in use", "waiting", "longest wait", "set by"):
        table.add_column(column, justify="left" if column in ("limit", "set by") else "right")
    for report in found:
        wait = report.longest_wait_seconds
        table.add_row(
            Text(report.name), "-" if report.limit is None else str(report.limit), str(report.in_use),
            str(report.waiting), "" if wait is None else seconds_in_words(wait), report.set_by,
        )  # fmt: skip
    return table
