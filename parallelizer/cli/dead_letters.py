"""`parallelizer dead-letters`: status updates that could not be recorded, and another try at them."""

from __future__ import annotations

from datetime import UTC
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from orchestration.channel.replay import Replay, replay_dead_letter
from orchestration.store.dead_letters import (
    KeptDeadLetter,
    count_dead_letters,
    dead_letter_ids,
    list_dead_letters,
    load_dead_letters,
)
from orchestration.store.pool import Database
from parallelizer.cli.connect import read_settings, services_for_reading
from parallelizer.cli.failures import OK, WORKFLOW_FAILED, WRONG_USE, WrongUse
from parallelizer.cli.output import AsJson, console_for, print_json

#: Letters that are read at a time.
PAGE = 100
#: Exit code when one was refused again.
REFUSED = WORKFLOW_FAILED

DataDir = Annotated[Path | None, typer.Option(help="Folder of the embedded servers; by default DATA_DIR.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the command line."""
    letters = typer.Typer(
        no_args_is_help=True, rich_markup_mode=None,
        help="Status updates that could not be recorded, kept whole with the reason.",
    )  # fmt: skip
    letters.command("list")(show)
    letters.command("replay")(replay)
    app.add_typer(letters, name="dead-letters")


def show(
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many, the newest first.")] = 50,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """List dead letters, the newest first, each with its reason. With --json, their content too."""
    with services_for_reading(read_settings(data_dir)) as services:
        letters, count = list_dead_letters(services.database, limit), count_dead_letters(services.database)
    if as_json:
        print_json([_to_json(kept) for kept in letters])
        return
    if not letters:
        typer.echo("no dead letters")
        return
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    for column in ("id", "received", "run", "bytes", "reason"):
        table.add_column(column, justify="right" if column in ("id", "bytes") else "left")
    for kept in letters:
        letter = kept.letter
        table.add_row(
            str(kept.id), f"{kept.received_at.astimezone(UTC):%Y-%m-%d %H:%M:%S}", letter.flow_session_id or "?",
            str(len(letter.content)), Text(letter.reason),
        )  # fmt: skip
    console_for(result_is_json=False).print(table)
    if count > len(letters):
        typer.echo(f"{count - len(letters):,} more; --limit shows more of them")


def replay(
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID…]", help="Ids, as `list` shows them.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All that there are.")] = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Try to record dead letters again, and remove those that are recorded now: after an update, say.

    Exits 0 when all are recorded, 1 when one was refused again, and 2 when one is not known. A letter that is refused
    stays; a row that PostgreSQL refuses gets a new id.
    """
    if bool(ids) == everything:
        raise WrongUse("say what to replay: ids of dead letters, or --all; one of these")
    wanted = [_number(text) for text in ids or []]
    with services_for_reading(read_settings(data_dir)) as services:
        lines = _replay(services.database, wanted or dead_letter_ids(services.database), as_json=as_json)
    if as_json:
        print_json(lines)
    elif not lines:
        typer.echo("no dead letters")
    found = {line["found"] for line in lines}
    raise typer.Exit(WRONG_USE if "unknown" in found else REFUSED if "refused" in found else OK)


def _replay(database: Database, ids: list[int], *, as_json: bool) -> list[dict[str, object]]:
    """Replay letters and say what became of each."""
    lines: list[dict[str, object]] = []
    for at in range(0, len(ids), PAGE):
        page = ids[at : at + PAGE]
        known = {kept.id: kept for kept in load_dead_letters(database, page)}
        for letter_id in dict.fromkeys(page):
            kept = known.get(letter_id)
            line = _line(letter_id, replay_dead_letter(database, kept) if kept else None)
            lines.append(line)
            if not as_json:
                typer.echo(line["message"], err=line["found"] != "recorded")
    return lines


def _line(letter_id: int, replayed: Replay | None) -> dict[str, object]:
    if replayed is None:
        found, message = "unknown", f"there is no dead letter {letter_id}; `parallelizer dead-letters list` shows them"
    elif replayed.is_recorded:
        found, message = "recorded", f"{letter_id} is recorded now"
    else:
        found, message = "refused", f"{letter_id} is refused again: {replayed.reason}"
    return {"id": letter_id, "found": found, "message": message}


def _to_json(kept: KeptDeadLetter) -> dict[str, object]:
    letter = kept.letter
    return {
        "id": kept.id, "received_at": kept.received_at.astimezone(UTC).isoformat(), "source": letter.source,
        "flow_session_id": letter.flow_session_id, "reason": letter.reason,
        "content": letter.content.decode(errors="backslashreplace"),
    }  # fmt: skip


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise WrongUse(f"{text[:40]!r} is no id of a dead letter; `parallelizer dead-letters list` shows them")
    return int(text)
