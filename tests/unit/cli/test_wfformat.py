"""`validate --wfformat`: the figures of a recording, for people and for programs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from parallelizer.cli.failures import WrongUse
from parallelizer.cli.wfformat import ReplayOptions
from parallelizer.wfformat.conversion import Replay
from parallelizer.wfformat.reader import read_recording
from parallelizer.wfformat.recording import RecordedTask, Recording
from tests.support.commands import parallelizer
from tests.support.recordings import LOAVES


def test_validate_prints_the_graph_and_the_schedules() -> None:
    done = parallelizer("validate", "--wfformat", str(LOAVES["1.3"]))
    assert (done.returncode, done.stderr) == (0, "")
    lines = [line.split() for line in done.stdout.splitlines()]
    assert done.stdout.startswith(f"{LOAVES['1.3']}: three loaves is right: 13 tasks, 14 edges\n")
    for figure in (
        ["depth", "6"],
        ["branches", "10"],
        ["critical", "path", "25.500", "s"],
        ["all", "tasks", "56.000", "s"],
    ):
        assert figure in lines
    assert ["2", "28.000", "s", "32.750", "s"] in lines


def test_validate_json_has_stable_fields() -> None:
    done = parallelizer("validate", "--wfformat", str(LOAVES["1.5"]), "--json")
    told = json.loads(done.stdout)
    assert told.pop("workflow").startswith("three_loaves-")
    schedule = {
        row["slots"]: (row["bound_seconds"], row["first_come_first_served_seconds"]) for row in told.pop("schedule")
    }
    assert schedule == {2: (28.0, 32.75), 4: (25.5, 25.5), 10: (25.5, 25.5), 50: (25.5, 25.5), 100: (25.5, 25.5)}
    assert told == {
        "valid": True, "schema_version": "1.5", "tasks": 13, "edges": 14, "roots": 3, "leaves": 2, "depth": 6,
        "width": 3, "branches": 10, "longest_task_seconds": 8.25, "longest_branch_seconds": 14.5,
        "total_seconds": 56.0, "critical_path_seconds": 25.5, "recorded_makespan_seconds": 40, "problems": [],
    }  # fmt: skip


def test_validate_json_tells_every_mistake(tmp_path: Path) -> None:
    document = json.loads(LOAVES["1.5"].read_text())
    document["workflow"]["specification"]["tasks"][0]["parents"] = ["nobody", "no-one"]
    path = tmp_path / "wrong.json"
    path.write_text(json.dumps(document))
    done = parallelizer("validate", "--wfformat", str(path), "--json")
    assert done.returncode == 2
    told = json.loads(done.stdout)
    assert not told["valid"]
    assert [problem["field"] for problem in told["problems"]] == [
        "workflow.specification.tasks[0].parents[0]",
        "workflow.specification.tasks[0].parents[1]",
    ]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (ReplayOptions(None, None, None), Replay(1.0, 10)),
        (ReplayOptions(0.5, None, 3), Replay(0.5, 3)),
        (ReplayOptions(None, 16.375, 2), Replay(0.5, 2)),
    ],
)
def test_the_time_scale_is_given_or_follows_from_the_target(options: ReplayOptions, expected: Replay) -> None:
    assert options.replay_of(read_recording(LOAVES["1.5"])) == expected


def test_a_recording_that_took_no_time_reaches_no_target() -> None:
    nothing = Recording("nothing", "1.5", (RecordedTask("a", 0, ()),), None)
    with pytest.raises(WrongUse, match="took 0 s"):
        ReplayOptions(None, 1.0, None).replay_of(nothing)
