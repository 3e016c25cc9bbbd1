"""The benchmark itself works: it measures, counts exactly, and leaves nothing behind. Not: how fast anything is."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

WAIT_SECONDS = 120.0


@contextmanager
def running_bench(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """The benchmark in the block, with `folder` for its temporary files; it has ended after the block."""
    folder.mkdir()
    command = [sys.executable, "-m", "tests.performance.bench", "--quick", "--repeats", "1", *arguments]
    with subprocess.Popen(
        command, env={**os.environ, "TMPDIR": str(folder)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def test_quick_measures_everything_and_counts_exactly(tmp_path: Path) -> None:
    written, temporary = tmp_path / "results" / "bench.json", tmp_path / "temporary"
    with running_bench(temporary, "--json", str(written)) as process:
        output, errors = process.communicate(timeout=WAIT_SECONDS)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    assert "not judged" in output
    assert list(temporary.iterdir()) == []

    report = json.loads(written.read_text())
    assert set(report) == {"taken_at", "duration_seconds", "quick", "goals_met", "machine", "workloads"}
    assert (report["quick"], report["goals_met"]) == (True, None)
    assert {"cores", "python", "celery", "postgresql", "worker"} <= set(report["machine"])
    assert {name: report["machine"][name] for name in ("appendonly", "fsync")} == {"appendonly": "yes", "fsync": "on"}
    counts = {each["name"]: _counts(each) for each in report["workloads"]}
    forked = {name: counts[name][0].pop("messages") for name in ("fan-out", "small-runs")}
    assert counts == {
        "fan-out": ({"items": 200, "rows": 201}, {"tasks": 200, "messages": 200}),
        "chain": ({"steps": 50, "rows": 50, "messages": 1}, {"tasks": 20, "messages": 20}),
        "one-action": ({"runs": 10, "rows": 10, "messages": 10}, {"tasks": 10, "messages": 10}),
        "small-runs": ({"runs": 8, "rows": 40}, {"chords": 8, "messages": 32}),
    }
    # a run that forks: itself, its end, and runners for the two processes, now and then one that gives way
    assert 2 <= forked["fan-out"] <= 20
    assert 8 <= forked["small-runs"] <= 8 * 5
    goals = {
        (each["name"], one["goal"])
        for each in report["workloads"]
        for one in each["comparisons"]
        if one["goal"] is not None
    }
    assert goals == {("fan-out", 4.0), ("chain", 10.0)}
    for each in report["workloads"]:
        for one in each["comparisons"]:
            assert set(one) == {"title", "unit", "by", "ours", "raw", "compared", "goal", "met"}
            assert one["met"] is None
            for side in ("ours", "raw", "compared"):
                assert one[side]["low"] <= one[side]["median"] <= one[side]["high"]


def test_ctrl_c_ends_everything_it_started(tmp_path: Path) -> None:
    temporary = tmp_path / "temporary"
    with running_bench(temporary, "--only", "fan-out", "--json", str(tmp_path / "bench.json")) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "warm-up" in line:
                break
        started = psutil.Process(process.pid).children(recursive=True)
        assert {"valkey-server", "postgres"} <= {each.name() for each in started}
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=WAIT_SECONDS)
    assert process.returncode == 130
    assert "interrupted" in errors
    assert "Traceback" not in errors
    _, alive = psutil.wait_procs(started, timeout=10)
    assert alive == []
    assert list(temporary.iterdir()) == []
    assert not (tmp_path / "bench.json").exists()


def _counts(workload: dict[str, Any]) -> tuple[dict[str, int], dict[str, int]]:
    [pair] = workload["pairs"]
    return pair["ours"]["counts"], pair["raw"]["counts"]
