"""A timeline as an SVG picture, or as a page, that needs no other file and no program. Pure.

Every text that comes from a run is escaped; the page allows nothing but its own styles.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from orchestration.reports.timeline import Bar, Lane, Timeline
from parallelizer.rendering.timeline_grid import Cell, Scale, cell_of, draw_lane, runs_of, waiting_by_column

# Pixels.
NAME_WIDTH, WIDTH, MARGIN = 190, 1000, 16
LANE_HEIGHT, LANE_GAP, WAITING_HEIGHT, HEAD = 16, 3, 36, 44
#: Above so many tasks a rectangle for each is no picture any more, and slow: the worst of each pixel is drawn.
MOST_RECTANGLES = 4000
#: Rows of the page's table: the longest tasks.
MOST_ROWS = 200
TICKS = 8

_CLASSES = {Cell.WAIT: "w", Cell.DONE: "d", Cell.RUNNING: "r", Cell.FAILED: "f"}
STYLE = """
.timeline text{font:11px system-ui,sans-serif;fill:#1b2733}.timeline .title{font-size:15px;font-weight:600}
.timeline .page{fill:#fff}.timeline .lane{fill:#f1f4f7}.timeline .tick{stroke:#c9d3dc}
.timeline .w{fill:#e0a82e}.timeline .d{fill:#2e8b57}.timeline .r{fill:#2f7fc1}
.timeline .f{fill:#c0392b;stroke:#4a0d06;stroke-width:1.5}
@media(prefers-color-scheme:dark){.timeline text{fill:#e6edf3}.timeline .page{fill:#0f151b}
.timeline .lane{fill:#18212a}.timeline .tick{stroke:#33424f}}
""".replace("\n", "")
PAGE_STYLE = """
body{font:14px system-ui,sans-serif;margin:1.5rem;color:#1b2733;background:#fff}svg{max-width:100%;height:auto}
table{border-collapse:collapse;margin-top:1rem}td,th{padding:.2rem .8rem;text-align:left}
td,th{border-bottom:1px solid #c9d3dc}td.n{text-align:right}
@media(prefers-color-scheme:dark){body{color:#e6edf3;background:#0f151b}td,th{border-color:#33424f}}
""".replace("\n", "")
POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def timeline_svg(timeline: Timeline) -> str:
    """Draw the timeline: a lane for each slot, waits in another colour, and on top how many waited."""
    lanes, scale = timeline.lanes, Scale(timeline.start_us, timeline.end_us, WIDTH)
    top = MARGIN + HEAD + WAITING_HEIGHT
    width = 2 * MARGIN + NAME_WIDTH + WIDTH
    height = top + len(lanes) * (LANE_HEIGHT + LANE_GAP) + MARGIN + 22
    took = _seconds(timeline.end_us - timeline.start_us)
    title = f"{timeline.workflow} {timeline.version}: {timeline.status}, {took}"
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="timeline" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" role="img" aria-labelledby="title"><title id="title">{_clean(title)}</title>'
        f"<style>{STYLE}</style>"
    )
    parts = [
        head,
        f'<rect class="page" width="{width}" height="{height}"/>',
        f'<text class="title" x="{MARGIN}" y="{MARGIN + 12}">{_clean(title)}</text>',
        f'<text x="{MARGIN}" y="{MARGIN + 28}">{_clean(timeline.flow_session_id)}</text>',
        *_ticks(scale, top, height - MARGIN - 14),
        *_waiting(timeline, scale, top),
    ]
    is_exact = timeline.bars <= MOST_RECTANGLES
    for place, lane in enumerate(lanes):
        y = top + place * (LANE_HEIGHT + LANE_GAP)
        name = f"{lane.worker or '?'} {lane.number}"
        shown = name if len(name) <= 30 else f"…{name[-29:]}"
        parts.append(
            f'<g><title>{_clean(name)}</title><text x="{MARGIN}" y="{y + 12}">{_clean(shown)}</text></g>'
            f'<rect class="lane" x="{_x(0):g}" y="{y}" width="{WIDTH}" height="{LANE_HEIGHT}"/>'
        )
        parts += _bars(lane, scale, y) if is_exact else _cells(lane, scale, y)
    parts += [*_legend(height - MARGIN), "</svg>", ""]
    return "\n".join(parts)


def timeline_html(timeline: Timeline, notes: Sequence[str] = ()) -> str:
    """A page with the picture, some notes, and the longest tasks as a table.

    Args: notes: sentences below the picture, as `explain` gives them.
    """
    bars = [(lane, bar) for lane in timeline.lanes for block in lane.blocks for bar in block.bars]
    longest = sorted(bars, key=lambda pair: (cell_of(pair[1].status) != Cell.FAILED, pair[1].start_us - pair[1].end_us))
    rows = [_row(lane, bar, timeline.start_us) for lane, bar in longest[:MOST_ROWS]]
    head = "".join(f"<th>{name}</th>" for name in ("task", "status", "attempt", "slot", "began after", "took"))
    shown = f"failed ones first, then the longest; {len(rows):,} of {len(bars):,}"
    return "\n".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
            f"<title>{_clean(timeline.workflow)} {timeline.version}</title><style>{PAGE_STYLE}</style></head><body>",
            timeline_svg(timeline),
            *(f"<p>{_clean(note)}</p>" for note in notes),
            f"<p>{shown}</p><table><thead><tr>{head}</tr></thead><tbody>",
            *rows,
            "</tbody></table></body></html>",
            "",
        ]
    )


def _x(column: float) -> float:
    return MARGIN + NAME_WIDTH + column


def _at(scale: Scale, moment_us: int) -> float:
    return (moment_us - scale.start_us) / scale.us_per_column


def _bars(lane: Lane, scale: Scale, y: int) -> Iterator[str]:
    free_us = scale.start_us
    for block in lane.blocks:
        waits_from = max(block.ready_us, free_us)
        if waits_from < block.start_us:
            said = f"{block.bars[0].name} was ready for {_seconds(block.start_us - block.ready_us)}"
            yield _rectangle("w", _at(scale, waits_from), _at(scale, block.start_us), y + 5, LANE_HEIGHT - 10, said)
        for bar in block.bars:
            after = _seconds(bar.start_us - scale.start_us)
            attempt = f", attempt {bar.attempt}" if bar.attempt > 1 else ""
            said = f"{bar.name} {bar.status}{attempt}: {_seconds(bar.end_us - bar.start_us)}, began after {after}"
            kind = _CLASSES[cell_of(bar.status)]
            yield _rectangle(kind, _at(scale, bar.start_us), _at(scale, bar.end_us), y + 1, LANE_HEIGHT - 2, said)
        free_us = max(free_us, block.end_us)


def _cells(lane: Lane, scale: Scale, y: int) -> Iterator[str]:
    for first, length, cell in runs_of(draw_lane(lane, scale)):
        yield _rectangle(_CLASSES[cell], first, first + length, y + 1, LANE_HEIGHT - 2)


def _rectangle(kind: str, left: float, right: float, y: float, height: float, said: str = "") -> str:
    place = f'class="{kind}" x="{_x(left):.2f}" y="{y:g}" width="{max(0.5, right - left):.2f}" height="{height:g}"'
    return f"<rect {place}><title>{_clean(said)}</title></rect>" if said else f"<rect {place}/>"


def _waiting(timeline: Timeline, scale: Scale, top: int) -> Iterator[str]:
    numbers = waiting_by_column(timeline, scale)
    most = max(numbers, default=0)
    if not most:
        return
    yield f'<text x="{MARGIN}" y="{top - 8}">waiting, at most {most:,}</text>'
    for first, length, number in _equal(numbers):
        height = number / most * (WAITING_HEIGHT - 8)
        if number:
            yield _rectangle("w", first, first + length, top - 4 - height, height)


def _equal(numbers: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    first = 0
    for place in range(1, len(numbers) + 1):
        if place == len(numbers) or numbers[place] != numbers[first]:
            yield first, place - first, numbers[first]
            first = place


def _ticks(scale: Scale, top: int, bottom: int) -> Iterator[str]:
    whole = scale.end_us - scale.start_us
    for number in range(TICKS + 1):
        x = _x(WIDTH * number / TICKS)
        yield f'<line class="tick" x1="{x:g}" y1="{top - WAITING_HEIGHT}" x2="{x:g}" y2="{bottom}"/>'
        anchor = "end" if number == TICKS else "start"
        said = _seconds(whole * number // TICKS)
        yield f'<text x="{x:g}" y="{top - WAITING_HEIGHT - 4}" text-anchor="{anchor}">{said}</text>'


def _legend(y: int) -> Iterator[str]:
    x = float(MARGIN)
    for kind, said in (("d", "ended"), ("r", "at work"), ("f", "failed"), ("w", "ready, waits while the slot is free")):
        yield f'<rect class="{kind}" x="{x:g}" y="{y - 9}" width="12" height="9"/>'
        yield f'<text x="{x + 17:g}" y="{y}">{said}</text>'
        x += 90


def _row(lane: Lane, bar: Bar, start_us: int) -> str:
    cells = (bar.name, str(bar.status), str(bar.attempt), f"{lane.worker} {lane.number}")
    numbers = (_seconds(bar.start_us - start_us), _seconds(bar.end_us - bar.start_us))
    texts = "".join(f"<td>{_clean(cell)}</td>" for cell in cells)
    counts = "".join(f'<td class="n">{number}</td>' for number in numbers)
    return f"<tr>{texts}{counts}</tr>"


def _seconds(us: int) -> str:
    return f"{us / 1e6:.3f} s" if us < 10_000_000 else f"{us / 1e6:.1f} s"


def _clean(text: str) -> str:
    """Text for XML and HTML, in content and attributes; control characters, which XML can't hold, are left out."""
    return escape("".join(character for character in text if character.isprintable()), quote=True)
