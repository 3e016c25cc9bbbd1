"""Timelines: lanes that hold what ran without overlap, grids that hide no failure, pictures that need no other file."""

from __future__ import annotations

import io
from collections.abc import Iterable
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from orchestration.reports.timeline import Bar, Block, Timeline, deal_lanes, waiting_of
from orchestration.vocabulary import NO_ITEM, RunStatus, TaskStatus
from parallelizer.rendering.timeline_grid import Cell, Scale, draw_lane, runs_of, waiting_by_column
from parallelizer.rendering.timeline_svg import MOST_RECTANGLES, timeline_html, timeline_svg
from parallelizer.rendering.timeline_text import timeline_text

HOSTILE = """<script>alert('1')</script>"&\x07]]>"""


def block(
    start: int, end: int, ready: int | None = None, worker: str = "w", status: TaskStatus = TaskStatus.SUCCEEDED,
    name: str = "a",
) -> Block:  # fmt: skip
    return Block(worker, start if ready is None else ready, (Bar(name, NO_ITEM, status, 1, start, end),))


def timeline_of(blocks: Iterable[Block], name: str = "shapes", end: int = 1000) -> Timeline:
    found = list(blocks)
    return Timeline("s", name, 1, RunStatus.SUCCEEDED, 0, end, tuple(deal_lanes(found)), waiting_of(found), 0)


spans = st.tuples(st.integers(0, 900), st.integers(0, 100), st.integers(0, 50), st.sampled_from("wv")).map(
    lambda drawn: block(drawn[0], drawn[0] + drawn[1], max(0, drawn[0] - drawn[2]), drawn[3])
)


@given(st.lists(spans, max_size=30))
def test_lanes_are_as_few_as_no_overlap_allows(blocks: list[Block]) -> None:
    lanes = deal_lanes(blocks)
    assert sorted(map(repr, (one for lane in lanes for one in lane.blocks))) == sorted(map(repr, blocks))
    for lane in lanes:
        assert {one.worker for one in lane.blocks} == {lane.worker}
        for before, after in zip(lane.blocks, lane.blocks[1:], strict=False):
            assert before.end_us <= after.start_us
    for worker in "wv":
        own = [one for one in blocks if one.worker == worker]
        # at a moment, those of no length count too: nothing else may be in their lane then
        most = max((sum(o.start_us <= b.start_us < max(o.end_us, o.start_us + 1) for o in own) for b in own), default=0)
        least = max((sum(o.start_us <= b.start_us < o.end_us for o in own) for b in own), default=0)
        assert least <= sum(lane.worker == worker for lane in lanes) <= max(most, least)


@given(st.lists(spans, max_size=30))
def test_how_many_waited_is_what_is_counted_by_hand(blocks: list[Block]) -> None:
    steps = waiting_of(blocks)
    for moment in range(0, 1000, 7):
        known = [number for at, number in steps if at <= moment]
        assert (known[-1] if known else 0) == sum(one.ready_us <= moment < one.start_us for one in blocks)


@given(st.lists(spans, max_size=20), st.integers(1, 50), st.sampled_from([TaskStatus.FAILED, TaskStatus.TIMED_OUT]))
def test_no_failure_disappears_in_the_grid(blocks: list[Block], columns: int, status: TaskStatus) -> None:
    failed = block(500, 500, status=status)
    timeline = timeline_of([*blocks, failed])
    scale = Scale(0, 1000, columns)
    grids = [draw_lane(lane, scale) for lane in timeline.lanes]
    assert any(grid[scale.column(500)] == Cell.FAILED for grid in grids)
    for grid in grids:
        again = bytearray(columns)
        for first, length, cell in runs_of(grid):
            again[first : first + length] = bytes([cell]) * length
        assert again == grid


def test_a_wait_is_drawn_where_the_slot_was_free() -> None:
    (lane,) = deal_lanes([block(0, 300), block(600, 800, ready=100)])
    grid = draw_lane(lane, Scale(0, 1000, 10))
    done, wait, idle = Cell.DONE, Cell.WAIT, Cell.IDLE
    assert list(grid) == [done, done, done, done, wait, wait, done, done, done, idle]
    assert waiting_by_column(timeline_of([block(600, 800, ready=100)]), Scale(0, 1000, 10)) == [0, *[1] * 5, 0, 0, 0, 0]


class _Collect(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]


def test_pictures_and_pages_are_whole_and_escape_everything() -> None:
    blocks = [block(0, 10, name=HOSTILE, worker=HOSTILE, status=TaskStatus.FAILED), block(20, 30, 5, worker=HOSTILE)]
    timeline = timeline_of(blocks, HOSTILE)
    picture = ET.fromstring(timeline_svg(timeline))
    texts = [element.text or "" for element in picture.iter()]
    assert any("<script>alert('1')</script>\"&]]> failed" in text for text in texts), "whole, as text"
    page = timeline_html(timeline, [HOSTILE])
    parser = _Collect()
    parser.feed(page)
    assert "script" not in parser.tags
    assert not [name for name in parser.attributes if name.startswith("on") or name in ("href", "src")]
    assert "http-equiv" in parser.attributes
    assert page.count("<script") == 0


def test_a_large_run_is_drawn_by_what_was_worst() -> None:
    number = 2 * MOST_RECTANGLES
    blocks = [block(place, place + 1) for place in range(number)]
    blocks[5] = block(5, 6, status=TaskStatus.TIMED_OUT)
    picture = timeline_svg(timeline_of(blocks, end=number))
    assert picture.count("<rect") < 100
    assert 'class="f"' in picture


def test_the_terminal_shows_lanes_waits_and_failures() -> None:
    blocks = [block(0, 400), block(700, 1000, 300), block(0, 1000, status=TaskStatus.FAILED)]
    console = Console(file=io.StringIO(), width=80, color_system=None)
    console.print(timeline_text(timeline_of(blocks), 80))
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert "waiting, at most 1" in lines[1]
    assert lines[2].startswith("w 1")
    assert "█" in lines[2]
    assert "░" in lines[2] or "░" in lines[3]
    assert any("▓" in line for line in lines[2:4])
    assert all(len(line) <= 80 for line in lines[:4])
