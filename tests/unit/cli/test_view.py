"""How a run is drawn while it goes on."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from rich.console import Console, RenderableType

from orchestration.reports import ActionProgress, RunProgress
from orchestration.vocabulary import RunStatus, TaskStatus
from parallelizer.cli.view import LiveView, PlainLines, final_table, remaining

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
NEEDS = {"list": [], "hash": ["list"], "left": ["hash"], "right": ["hash"], "join": ["left", "right"]}


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def action(name: str, status: TaskStatus = TaskStatus.PENDING, **known: Any) -> ActionProgress:
    fields: dict[str, Any] = {
        "size": None, "succeeded": 0, "failed": 0, "skipped": 0, "running": 0, "started_at": None, "finished_at": None,
    }  # fmt: skip
    return ActionProgress(name=name, status=status, **fields | known)


def run(*actions: ActionProgress) -> RunProgress:
    return RunProgress("id", "audit", 1, RunStatus.RUNNING, ago(12.3), None, actions, recorded=False)


def shown(renderable: RenderableType) -> list[str]:
    console = Console(file=io.StringIO(), width=110, color_system=None)
    console.print(renderable)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]


HALFWAY = run(
    action("list", TaskStatus.SUCCEEDED, started_at=ago(12), finished_at=ago(11.5), succeeded=1),
    action("hash", TaskStatus.RUNNING, size=1000, succeeded=748, failed=2, running=8, started_at=ago(11.25)),
    action("left"),
    action("right"),
    action("join"),
)


def test_the_live_view_is_a_tree_with_a_bar_counts_and_times() -> None:
    lines = shown(LiveView("audit", NEEDS).draw(HALFWAY, NOW, height=30))
    assert lines[0] == "audit  running  12.3 s, about 4 s left in hash"
    assert lines[1].startswith("✔ list")
    assert lines[1].endswith("0.50 s")
    assert "750/1,000  8 running  2 failed" in lines[2]
    assert "67/s" in lines[2]
    assert [line.split()[:3] for line in lines[3:]] == [
        ["├─", "○", "left"],
        ["└─", "○", "right"],
        ["○", "join", "pending"],
    ]


def test_what_does_not_fit_is_summed_up_and_what_runs_stays() -> None:
    many = run(*(action(str(n), TaskStatus.SUCCEEDED) for n in range(50)), action("busy", TaskStatus.RUNNING))
    lines = shown(LiveView("audit", {one.name: [] for one in many.actions}).draw(many, NOW, height=10))
    assert len(lines) <= 10
    assert any("busy" in line for line in lines)
    assert lines[-1] == "  … 45 more: 45 succeeded"


def test_lines_of_text_say_each_change_once() -> None:
    plain = PlainLines()
    assert plain.changes(run(action("list"), action("hash"))) == []
    assert plain.changes(HALFWAY) == ["list: succeeded", "hash: running, 750/1,000  8 running  2 failed"]
    assert plain.changes(HALFWAY) == []
    further = run(action("hash", TaskStatus.RUNNING, size=1000, succeeded=797, failed=2))
    assert plain.changes(further) == []
    tenth = run(action("hash", TaskStatus.RUNNING, size=1000, succeeded=798, failed=2))
    assert plain.changes(tenth) == ["hash: running, 800/1,000  2 failed"]


def test_the_final_table_has_a_row_for_each_action() -> None:
    lines = shown(final_table(HALFWAY))
    assert lines[0].split() == ["action", "status", "items", "failed", "time"]
    assert lines[1].split() == ["list", "succeeded", "0.50", "s"]
    assert lines[2].split() == ["hash", "running", "1,000", "2"]


def many(status: TaskStatus, number: int) -> list[ActionProgress]:
    return [action(f"{status}{place}", status) for place in range(number)]


def test_of_a_large_graph_only_each_further_tenth_is_said() -> None:
    plain = PlainLines()
    assert plain.changes(run(*many(TaskStatus.RUNNING, 10), *many(TaskStatus.PENDING, 990))) == []
    halfway = run(*many(TaskStatus.SUCCEEDED, 540), *many(TaskStatus.FAILED, 9), *many(TaskStatus.PENDING, 451))
    assert plain.changes(halfway) == ["549 of 1,000 actions have ended: 540 succeeded, 9 failed, 451 pending"]
    assert plain.changes(halfway) == []


def test_the_final_table_of_a_large_graph_has_what_did_not_succeed() -> None:
    ended = run(*many(TaskStatus.SUCCEEDED, 700), *many(TaskStatus.SKIPPED, 400), *many(TaskStatus.FAILED, 2))
    lines = [line.split() for line in shown(final_table(ended))]
    assert [line[0] for line in lines[1:4]] == ["failed0", "failed1", "skipped0"]
    assert lines[-1] == ["…", "802", "more", "102", "skipped,", "700", "succeeded"]
    assert len(lines) == 302


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        ({"size": 100, "succeeded": 25, "started_at": ago(10)}, 30.0),
        ({"size": 100, "succeeded": 100, "started_at": ago(10)}, 0.0),
        ({"size": 100, "succeeded": 0, "started_at": ago(10)}, None),
        ({"size": 100, "succeeded": 25, "started_at": None}, None),
        ({"size": 100, "succeeded": 25, "started_at": ago(0.1)}, None),
        ({"size": 0, "started_at": ago(10)}, None),
        ({"started_at": ago(10)}, None),
    ],
)
def test_the_remaining_time_is_told_only_where_it_is_known(known: dict[str, Any], expected: float | None) -> None:
    left = remaining(action("a", TaskStatus.RUNNING, **known), NOW)
    assert (None if left is None else left.total_seconds()) == expected
