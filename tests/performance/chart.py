"""The goals as an SVG picture that needs no other file and no program: how far each figure is on the good side. Pure.

One line for each goal. They have different units and ends, so each is shown by its margin: how often the figure is as
good as the goal asks. The scale is logarithmic, 1 is the goal; the bar ends at the median, the whisker is the spread.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from xml.sax.saxutils import escape

from parallelizer.rendering.svg import STYLE
from tests.performance.comparison import Compared, Goal, Spread
from tests.performance.report import Measured, Report, figure, goal_text

# Pixels.
LEFT, WIDTH, RIGHT = 420, 420, 250
ROW, BAR = 26, 14
TOP, BOTTOM = 74, 24
TICKS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
#: Of the colours, neither is told from the other by its hue alone: missed ones say so.
BARS = """
.met{fill:#2f6fb0}.missed{fill:#c2571a}.unjudged{fill:#8a9aa8}.whisker{stroke:#1b2733;stroke-width:1.3}
.grid{stroke:#d5dde4}.goal{stroke:#1b2733;stroke-width:1.6}
@media(prefers-color-scheme:dark){.met{fill:#5aa0e0}.missed{fill:#e08a4f}.whisker,.goal{stroke:#e6edf3}
.grid{stroke:#2b3742}}
""".replace("\n", "")


@dataclass(frozen=True, slots=True)
class _Bar:
    """One goal and what was found."""

    label: str
    text: str
    kind: str
    margin: Spread


def to_svg(report: Report) -> str:
    """Draw the goals of a report; without any, only the heading."""
    bars = [
        _bar(each, one, goal, judged=not report.quick)
        for each in report.measured
        for one in each.compared
        if (goal := one.comparison.goal) is not None
    ]
    width, height = LEFT + WIDTH + RIGHT, TOP + ROW * len(bars) + BOTTOM
    title = f"Figures against their goals, {report.taken_at:%Y-%m-%d}"
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        f'role="img" aria-labelledby="title"><title id="title">{escape(title)}</title><style>{STYLE}{BARS}</style>'
    )
    note = "how often the figure is as good as the goal asks; median, and the lowest and highest of the repeats"
    if report.quick:
        note += " (small sizes: not judged)"
    lines = [
        head,
        f'<rect class="page" width="{width}" height="{height}"/>',
        f'<text class="title" x="20" y="30">{escape(title)}</text>',
        f'<text class="detail" x="20" y="48">{note}</text>',
        *_grid(height),
    ]
    for number, bar in enumerate(bars):
        lines += _row(bar, TOP + ROW * number)
    return "\n".join([*lines, "</svg>", ""])


def _bar(each: Measured, one: Compared, goal: Goal, *, judged: bool) -> _Bar:
    ends = sorted((goal.margin(one.judged.low), goal.margin(one.judged.high)))
    kind = ("met" if one.met else "missed") if judged else "unjudged"
    value = f"{figure(one.judged.median)} {one.judged_unit}".rstrip()
    text = f"{value} ({goal_text(goal, one.judged_unit)}){', missed' if kind == 'missed' else ''}"
    label = f"{each.workload.name}: {one.comparison.title}"
    return _Bar(label, text, kind, Spread(goal.margin(one.judged.median), *ends))


def _x(margin: float) -> float:
    """What is beyond an end of the scale is drawn at it; the text tells the figure."""
    low, high = math.log10(TICKS[0]), math.log10(TICKS[-1])
    place = (math.log10(max(margin, TICKS[0])) - low) / (high - low)
    return round(LEFT + WIDTH * min(1.0, place), 1)


def _grid(height: int) -> list[str]:
    lines = []
    for tick in TICKS:
        x, kind = _x(tick), "goal" if tick == 1 else "grid"
        lines += [
            f'<line class="{kind}" x1="{x}" y1="{TOP - 6}" x2="{x}" y2="{height - BOTTOM}"/>',
            f'<text class="detail" x="{x}" y="{TOP - 10}" text-anchor="middle">{tick:g}</text>',
        ]
    return lines


def _row(bar: _Bar, top: int) -> list[str]:
    start, end = sorted((_x(1.0), _x(bar.margin.median)))
    width = max(1.0, end - start)
    middle, base = top + ROW / 2, top + ROW / 2 + 4
    low, high = _x(bar.margin.low), _x(bar.margin.high)
    return [
        f'<text class="name" x="{LEFT - 12}" y="{base:g}" text-anchor="end">{escape(bar.label)}</text>',
        f'<rect class="{bar.kind}" x="{start}" y="{middle - BAR / 2:g}" width="{width:.1f}" height="{BAR}"/>',
        f'<line class="whisker" x1="{low}" y1="{middle:g}" x2="{high}" y2="{middle:g}"/>',
        f'<text class="detail" x="{LEFT + WIDTH + 12}" y="{base:g}">{escape(bar.text)}</text>',
    ]
