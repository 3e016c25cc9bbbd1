"""`parallelizer cancel`, `pause`, `resume`, `retry`: what an operator does to runs from outside."""

from __future__ import annotations

import getpass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Annotated

import typer

from orchestration.engine.control import Found
from orchestration.errors import UnknownRun
from parallelizer.cli.connect import read_settings, services_for_reading
from parallelizer.cli.failures import OK, WRONG_USE, WrongUse
from parallelizer.cli.main import stranger
from parallelizer.cli.output import AsJson, print_json

SomeRuns = Annotated[list[str] | None, typer.Argument(metavar="[RUN…]", help="Ids of runs, as `list` shows them.")]
OfWorkflow = Annotated[str | None, typer.Option(help="Name of a workflow: its runs, also later ones.")]
DataDir = Annotated[Path | None, typer.Option(help="Folder of the embedded servers; by default DATA_DIR.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the command line."""
    app.command()(cancel)
    app.command()(pause)
    app.command()(resume)
    app.command()(retry)


def cancel(
    flow_session_ids: Annotated[list[str], typer.Argument(metavar="RUN…", help="Ids of runs, as `list` shows them.")],
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Cancel runs: nothing more of them begins, what runs is told to end.

    Actions get `Cancelled` and BRANCH_GRACE_SECONDS to clean up; what has not ended then is given up. Exits 0 when each
    of the runs is cancelled, now or before, and 2 when one had ended otherwise or is not known.
    """
    lines = _for_each(flow_session_ids, "cancel_session", data_dir, as_json)
    is_wrong = any(line["found"] == "unknown" or line["status"] != "cancelled" for line in lines)
    raise typer.Exit(WRONG_USE if is_wrong else OK)


def pause(
    flow_session_ids: SomeRuns = None,
    workflow: OfWorkflow = None,
    everything: Annotated[bool, typer.Option("--all", help="All runs, also later ones.")] = False,
    by: Annotated[str | None, typer.Option(help="Who pauses, for `explain`; by default the user's name.")] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Pause runs, a workflow, or everything: nothing more is claimed, branches that run go on to their end.

    Exits 0 when it is paused, now or before, and 2 when a run has ended or is not known.
    """
    who = _user() if by is None else by
    _pause_or_resume("pause", flow_session_ids or [], workflow, everything, data_dir, as_json, by=who)


def resume(
    flow_session_ids: SomeRuns = None,
    workflow: OfWorkflow = None,
    everything: Annotated[bool, typer.Option("--all", help="What `pause --all` has paused.")] = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Let runs go on that were paused: what was paused in one way is resumed in the same.

    Exits 0 also when nothing was paused, and 2 when a run has ended or is not known.
    """
    _pause_or_resume("resume", flow_session_ids or [], workflow, everything, data_dir, as_json)


def retry(
    flow_session_ids: Annotated[list[str], typer.Argument(metavar="RUN…", help="Ids of runs, as `list` shows them.")],
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Retry runs that failed, were cancelled or timed out: what succeeded is taken over, all else runs again.

    The retry is a run of its own, of the same version with the same payload; `parallelizer status` and `explain` show
    which is whose. Exits 0 when each of the runs is retried, and 2 when one has not ended so, has a retry already, or
    is not known.
    """
    lines = _for_each(flow_session_ids, "retry_session", data_dir, as_json)
    raise typer.Exit(OK if all(line["found"] == Found.DONE for line in lines) else WRONG_USE)


def _pause_or_resume(
    verb: str,
    runs: list[str],
    workflow: str | None,
    everything: bool,
    data_dir: Path | None,
    as_json: bool,
    **asked: str,
) -> None:
    if bool(runs) + (workflow is not None) + everything != 1:
        raise WrongUse(f"say what to {verb}: ids of runs, or --workflow NAME, or --all; one of these")
    if runs:
        lines = _for_each(runs, f"{verb}_session", data_dir, as_json, **asked)
        raise typer.Exit(WRONG_USE if any(line["found"] in ("unknown", Found.ENDED) for line in lines) else OK)
    with services_for_reading(read_settings(data_dir)):
        number = getattr(_tasks(), f"{verb}_all")(workflow, **asked)
    what = "everything" if workflow is None else f"workflow {workflow}"
    done = "is paused; runs that it stops now" if verb == "pause" else "is not paused any more; runs that go on"
    if as_json:
        print_json({"workflow": workflow, "runs": number})
    else:
        typer.echo(f"{what} {done}: {number}")


def _for_each(
    runs: list[str], call: str, data_dir: Path | None, as_json: bool, **asked: str
) -> list[dict[str, object]]:
    """Call a function of `tasks` for each run, and say what it answers."""
    lines: list[dict[str, object]] = []
    with services_for_reading(read_settings(data_dir)):
        function = getattr(_tasks(), call)
        for flow_session_id in runs:
            try:
                line: dict[str, object] = function(flow_session_id, **asked).to_json()
            except UnknownRun as error:
                line = {"flow_session_id": flow_session_id, "found": "unknown", "message": str(error)}
            lines.append(line)
            if not as_json:
                typer.echo(line["message"], err=line["found"] in ("unknown", Found.ENDED, Found.REFUSED))
    if as_json:
        print_json(lines)
    return lines


def _user() -> str:
    """Name of the user of this process, as far as the system knows it."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return ""


def _tasks() -> ModuleType:
    """Our package `tasks`, which reads the URLs of the services when it is imported."""
    if complaint := stranger("tasks"):
        raise WrongUse(complaint)
    return import_module("tasks")
