"""A timeline for a terminal. Pure."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from orchestration.reports.timeline import Timeline
from parallelizer.rendering.timeline_grid import Cell, Scale, draw_lane, runs_of, waiting_by_column

#: Lanes that are drawn; the others are counted.
MOST_LANES = 64
LEAST_COLUMNS, NAME_COLUMNS = 20, 22
_LOOK = {
    Cell.WAIT: ("░", "yellow"), Cell.DONE: ("█", "green"), Cell.RUNNING: ("█", "cyan"), Cell.FAILED: ("▓", "red"),
}  # fmt: skip
_HEIGHTS = " ▁▂▃▄▅▆▇█"


def timeline_text(timeline: Timeline, width: int) -> RenderableType:
    """Lanes below each other, on top how many waited.

    Args: width: columns of the terminal.
    """
    columns = max(LEAST_COLUMNS, width - NAME_COLUMNS - 2)
    scale = Scale(timeline.start_us, timeline.end_us, columns)
    seconds = (timeline.end_us - timeline.start_us) / 1e6
    table = Table.grid(padding=(0, 1, 0, 0))
    table.add_column(width=NAME_COLUMNS, no_wrap=True, overflow="ellipsis")
    table.add_column(width=columns, no_wrap=True)
    table.add_row(Text("0 s", style="dim", justify="right"), Text(f"{seconds:.3f} s", style="dim", justify="right"))
    waiting = waiting_by_column(timeline, scale)
    most = max(waiting, default=0)
    if most:
        bars = "".join(_HEIGHTS[-(-number * 8 // most)] for number in waiting)
        table.add_row(Text(f"waiting, at most {most:,}", style="dim"), Text(bars, style="yellow"))
    for lane in timeline.lanes[:MOST_LANES]:
        table.add_row(_printable(f"{lane.worker or '?'} {lane.number}"), _row(draw_lane(lane, scale)))
    parts: list[RenderableType] = [table]
    if len(timeline.lanes) > MOST_LANES:
        parts.append(Text(f"… {len(timeline.lanes) - MOST_LANES:,} more slots; --svg has them all", style="dim"))
    legend = Text.assemble(
        ("█", "green"), " ended  ", ("█", "cyan"), " at work  ", ("▓", "red"), " failed  ", ("░", "yellow"),
        " ready, waits while the slot is free",
    )  # fmt: skip
    return Group(*parts, legend)


def _row(cells: bytearray) -> Text:
    text = Text()
    at = 0
    for first, length, cell in runs_of(cells):
        sign, style = _LOOK[cell]
        text.append(" " * (first - at)).append(sign * length, style=style)
        at = first + length
    return text


def _printable(name: str) -> Text:
    """A worker's name, of which the end tells most."""
    cleaned = "".join(character if character.isprintable() else " " for character in name)
    return Text(cleaned if len(cleaned) <= NAME_COLUMNS else f"…{cleaned[1 - NAME_COLUMNS :]}")
