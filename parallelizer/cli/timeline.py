"""`parallelizer timeline`: what ran when and where, as text, as a picture, or as a page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from orchestration.reports.explain import Explanation, explain_run
from orchestration.reports.timeline import Timeline, timeline
from parallelizer.cli.connect import Services, read_settings, services_for_reading
from parallelizer.cli.failures import WrongUse
from parallelizer.cli.output import console_for
from parallelizer.cli.words import seconds_in_words, style_of
from parallelizer.rendering.timeline_svg import timeline_html, timeline_svg
from parallelizer.rendering.timeline_text import timeline_text

DataDir = Annotated[Path | None, typer.Option(help="Folder of the embedded servers; by default DATA_DIR.")]


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command("timeline")(show)


def show(
    flow_session_id: Annotated[str, typer.Argument(metavar="RUN", help="Id of a run, as `list` shows it.")],
    svg: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a picture to FILE.")] = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a page with picture and table.")] = None,
    data_dir: DataDir = None,
) -> None:
    """Show what ran when, by slot, with waits in another colour; on the terminal, or as files that need no other."""
    with services_for_reading(read_settings(data_dir)) as services:
        found = timeline(services.database, flow_session_id, services.live.now_us())
        explained = _explain(services, flow_session_id) if html is not None else None
    if svg is not None:
        _write(svg, timeline_svg(found))
    if html is not None and explained is not None:
        notes = [explained.summary, *(cause.sentence for cause in explained.causes)]
        _write(html, timeline_html(found, notes))
    if svg is None and html is None:
        _print(found)


def _explain(services: Services, flow_session_id: str) -> Explanation:
    settings = services.settings
    return explain_run(
        services.database, services.live, flow_session_id, default_limit=settings.max_concurrent_branches,
        lease_seconds=settings.lease_seconds,
    )  # fmt: skip


def _print(found: Timeline) -> None:
    console = console_for(result_is_json=False)
    status = str(found.status)
    seconds = seconds_in_words((found.end_us - found.start_us) / 1e6)
    console.print(
        Text.assemble((found.workflow, "bold"), f" {found.version}: ", (status, style_of(status)), f" in {seconds}")
    )
    console.print(timeline_text(found, console.width))
    if found.left_out:
        console.print(f"{found.left_out:,} tasks are not shown: they never ran, or are too many", style="dim")


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise WrongUse(f"{path} can't be written: {error.strerror}; name another FILE") from None
    print(f"wrote {path}")
