"""Real recordings, where they are: their figures, computed by another program, are ours to the last digit."""

from __future__ import annotations

import json
from typing import Any

from parallelizer.wfformat.reader import read_recording
from parallelizer.wfformat.recording import Recording
from parallelizer.wfformat.schedule import first_come_first_served_seconds, lower_bound_seconds
from parallelizer.wfformat.shape import shape_of
from tests.support.recordings import real_recordings


def test_figures_and_schedules_of_every_real_recording_are_reproduced() -> None:
    folder = real_recordings()
    for known in json.loads((folder / "figures.json").read_text(encoding="utf-8")):
        recording = read_recording(folder / known["file"])
        assert figures_of(recording, known["schedule"]) == {name: known[name] for name in figures_of(recording, {})} | {
            "schedule": known["schedule"]
        }, known["file"]


def figures_of(recording: Recording, slots: Any) -> dict[str, Any]:
    """Our figures under the names that the known ones have."""
    shape = shape_of(recording)
    return {
        "schema_version": recording.schema_version, "tasks": shape.tasks, "edges": shape.edges, "roots": shape.roots,
        "leaves": shape.leaves, "depth": shape.depth, "max_width": shape.width, "branches": shape.branches,
        "longest_task_seconds": round(shape.longest_task_seconds, 3),
        "sum_runtime_seconds": round(shape.total_seconds, 3),
        "critical_path_seconds": round(shape.critical_path_seconds, 3),
        "recorded_makespan_seconds": recording.makespan_seconds,
        "schedule": {
            number: {
                "lower_bound_seconds": round(lower_bound_seconds(shape, int(number)), 3),
                "fifo_seconds": round(first_come_first_served_seconds(recording, int(number)), 3),
            }
            for number in slots
        },
    }  # fmt: skip


def test_one_run_in_two_versions_gives_one_graph_and_the_same_run_times() -> None:
    name = "montage-chameleon-2mass-005d-001"
    newer, older = (
        {task.id: (task.seconds, frozenset(task.parents)) for task in read_recording(real_recordings() / file).tasks}
        for file in (f"{name}.json", f"{name}.wfformat-1.4.json")
    )
    assert newer == older
    assert sum(len(parents) for _, parents in older.values()) == 114
