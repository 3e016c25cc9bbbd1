"""A plan as an SVG picture that needs no other file and no program. Pure."""

from __future__ import annotations

from xml.sax.saxutils import escape

from orchestration.plan import Plan, PlannedAction
from orchestration.plan.layout import Layout, lay_out
from parallelizer.rendering.notes import common_queue, notes_on

# Pixels.
BOX_WIDTH = 190
BOX_HEIGHT = 54
GAP_ACROSS = 64
GAP_DOWN = 22
MARGIN = 20
HEADING = 34
#: Characters that fit into a box, at the sizes of the style below; names are cut, the tooltip has them whole.
NAME_LENGTH = 22
DETAIL_LENGTH = 30

STYLE = """
text{font-family:system-ui,sans-serif;fill:#1b2733}
.title{font-size:15px;font-weight:600}.name{font-size:13px;font-weight:600}.detail{font-size:10.5px;fill:#52616f}
.box{fill:#f4f7fa;stroke:#5b7083}.items{fill:#e6f0fb;stroke:#2f6fb0}.page{fill:#fff}
.edge{fill:none;stroke:#8a9aa8;stroke-width:1.3}.tip{fill:#8a9aa8}
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.detail{fill:#9fb0bf}.page{fill:#0f151b}
.box{fill:#1c2630;stroke:#6f8396}.items{fill:#16304a;stroke:#5aa0e0}}
""".replace("\n", "")

ARROW = (
    '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
    '<path class="tip" d="M0 0L8 4L0 8z"/></marker></defs>'
)


def to_svg(plan: Plan) -> str:
    """Draw the plan from left to right; a `for_each` is blue and stands on a second box."""
    layout = lay_out(plan.successors)
    queue = common_queue(plan)
    width = 2 * MARGIN + layout.levels * (BOX_WIDTH + GAP_ACROSS) - GAP_ACROSS
    height = 2 * MARGIN + HEADING + layout.rows * (BOX_HEIGHT + GAP_DOWN) - GAP_DOWN
    title = f"{plan.workflow} ({len(plan.actions)} actions, {len(plan.branches)} branches)"
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" role="img" aria-labelledby="title">'
        f'<title id="title">{escape(title)}</title><style>{STYLE}</style>{ARROW}'
    )
    lines = [
        head,
        f'<rect class="page" width="{width}" height="{height}"/>',
        f'<text class="title" x="{MARGIN}" y="{MARGIN + 14}">{escape(title)}</text>',
    ]
    lines += [
        _edge(layout, name, successor) for name, action in plan.actions.items() for successor in action.successors
    ]
    lines += [_box(action, layout, queue) for action in plan.actions.values()]
    return "\n".join([*lines, "</svg>", ""])


def _corner(position: tuple[int, float]) -> tuple[float, float]:
    level, row = position
    return MARGIN + level * (BOX_WIDTH + GAP_ACROSS), MARGIN + HEADING + row * (BOX_HEIGHT + GAP_DOWN)


def _edge(layout: Layout, start: str, end: str) -> str:
    x, y = _corner(layout.positions[start])
    x, y = x + BOX_WIDTH, y + BOX_HEIGHT / 2
    path = [f"M{x:g} {y:g}"]
    for passage in layout.passages.get((start, end), ()):
        left, top = _corner(passage)
        middle = top + BOX_HEIGHT / 2
        path.append(_curve(x, y, left, middle))
        path.append(f"H{left + BOX_WIDTH:g}")
        x, y = left + BOX_WIDTH, middle
    left, top = _corner(layout.positions[end])
    path.append(_curve(x, y, left, top + BOX_HEIGHT / 2))
    return f'<path class="edge" marker-end="url(#tip)" d="{"".join(path)}"/>'


def _curve(x: float, y: float, to_x: float, to_y: float) -> str:
    middle = (x + to_x) / 2
    return f"C{middle:g} {y:g} {middle:g} {to_y:g} {to_x:g} {to_y:g}"


def _box(action: PlannedAction, layout: Layout, queue: str) -> str:
    x, y = _corner(layout.positions[action.name])
    notes = ", ".join(notes_on(action, queue))
    whole = f"{action.name}: {action.uses}" + (f" ({notes})" if notes else "")
    kind = "box" if action.items is None else "box items"
    behind = "" if action.items is None else _rectangle(kind, x + 4, y + 4)
    details = [action.uses, notes] if notes else [action.uses]
    rows = "".join(
        f'<text class="detail" x="{x + 10:g}" y="{y + 33 + 14 * number:g}">{_cut(detail, DETAIL_LENGTH)}</text>'
        for number, detail in enumerate(details)
    )
    name = f'<text class="name" x="{x + 10:g}" y="{y + 18:g}">{_cut(action.name, NAME_LENGTH)}</text>'
    return f"<g><title>{_clean(whole)}</title>{behind}{_rectangle(kind, x, y)}{name}{rows}</g>"


def _rectangle(kind: str, x: float, y: float) -> str:
    return f'<rect class="{kind}" x="{x:g}" y="{y:g}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="7"/>'


def _cut(text: str, length: int) -> str:
    return _clean(text if len(text) <= length else text[: length - 1] + "…")


def _clean(text: str) -> str:
    """Text for XML, which has no way to write control characters."""
    return escape("".join(character for character in text if character.isprintable()))
