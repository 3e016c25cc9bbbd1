"""Recorded executions of others, where they are at hand, on a worker of their own."""

from __future__ import annotations

import json

from tests.cluster.test_wfformat import CLOCK_SECONDS, repeated
from tests.support.fleet import Fleet
from tests.support.recordings import real_recordings


def test_every_real_recording_runs_and_every_edge_is_respected(fleet: Fleet) -> None:
    folder = real_recordings()
    fleet.start(1, concurrency=10, pool="threads")
    for known in json.loads((folder / "figures.json").read_text(encoding="utf-8")):
        compared = repeated(fleet, folder / known["file"], "--target-seconds", "2")["comparison"]
        assert (compared["tasks"], compared["edges"]) == (known["tasks"], known["edges"]), known["file"]
        assert (compared["unrecorded"], compared["violations"]) == (0, 0), known["file"]
        assert compared["makespan_seconds"] >= compared["bound_seconds"] - CLOCK_SECONDS, known["file"]
        assert compared["most_at_once"] <= 10, known["file"]
