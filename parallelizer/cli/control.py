"""`parallelizer cancel`: what an operator does to runs from outside."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestration.engine.control import Found
from orchestration.errors import UnknownRun
from parallelizer.cli.connect import read_settings, services_for_reading
from parallelizer.cli.failures import OK, WRONG_USE, WrongUse
from parallelizer.cli.main import stranger
from parallelizer.cli.output import AsJson, print_json

DataDir = Annotated[Path | None, typer.Option(help="Folder of the embedded servers; by default DATA_DIR.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the command line."""
    app.command()(cancel)


def cancel(
    flow_session_ids: Annotated[list[str], typer.Argument(metavar="RUN…", help="Ids of runs, as `list` shows them.")],
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Cancel runs: nothing more of them begins, what runs is told to end.

    Actions get `Cancelled` and BRANCH_GRACE_SECONDS to clean up; what has not ended then is given up. Exits 0 when each
    of the runs is cancelled, now or before, and 2 when one had ended otherwise or is not known.
    """
    with services_for_reading(read_settings(data_dir)):
        if complaint := stranger("tasks"):
            raise WrongUse(complaint)
        from tasks import cancel_session  # noqa: PLC0415 - reads the URLs of the services when it is imported

        lines: list[dict[str, object]] = []
        for flow_session_id in flow_session_ids:
            try:
                answer = cancel_session(flow_session_id)
            except UnknownRun as error:
                line: dict[str, object] = {
                    "flow_session_id": flow_session_id,
                    "found": "unknown",
                    "message": str(error),
                }
            else:
                line = answer.to_json()
            lines.append(line)
            if not as_json:
                typer.echo(line["message"], err=line["found"] in ("unknown", Found.ENDED))
    if as_json:
        print_json(lines)
    is_wrong = any(line["found"] == "unknown" or line["status"] != "cancelled" for line in lines)
    raise typer.Exit(WRONG_USE if is_wrong else OK)
