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
from xml.etree import ElementTree as ET

import psutil

WAIT_SECONDS = 250.0
OBSERVED = {"items": 200, "steps": 500, "runs": 8, "rows": 201 + 500 + 40}


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

    assert ET.parse(written.with_suffix(".svg")).getroot().tag.endswith("svg")
    report = json.loads(written.read_text())
    assert set(report) == {"taken_at", "duration_seconds", "quick", "goals_met", "machine", "workloads"}
    assert (report["quick"], report["goals_met"]) == (True, None)
    assert {"cores", "python", "celery", "postgresql"} <= set(report["machine"])
    assert {name: report["machine"][name] for name in ("appendonly", "fsync")} == {"appendonly": "yes", "fsync": "on"}
    assert {each["worker"] for each in report["workloads"]} == {
        "-P prefork -c 2", "INLINE_FORK_MS=0 -P prefork -c 2", "-P threads -c 10",
        "METRICS_ENABLED=false OTEL_SDK_DISABLED=true TASK_LOG_LINES=0 -P prefork -c 2",
    }  # fmt: skip
    ours, beside = ({each["name"]: _counts(each, side) for each in report["workloads"]} for side in ("ours", "beside"))
    messages = {name: counts.pop("messages") for name, counts in ours.items() if "messages" in counts}
    waiting = {
        f"wait-{size}": {"items": int(size.split("-")[0]), "rows": int(size.split("-")[0]) + 1}
        for size in ("40-async", "400-async", "1000-async", "40-threads", "400-threads")
    }
    assert ours == {
        "fan-out": {"items": 200, "rows": 201},
        "growth": {"items": 1000, "rows": 1001},
        "chain": {"steps": 50, "rows": 50},
        "one-action": {"runs": 10, "rows": 10},
        "small-runs": {"runs": 8, "rows": 40},
        "small-runs-forked": {"runs": 8, "rows": 40},
        **waiting,
        "mixed": {"items": 300, "slow": 3, "rows": 301, "runs": 300},
        "million": {"items": 3000, "rows": 3001},
        "small-beside-large": {"items": 1000, "runs": 22, "rows": 1001 + 22 * 5},
        "shares-1-1": {"items": 600, "rows": 602},
        "shares-1-3": {"items": 600, "rows": 602},
        "waiting-sessions": {"calls": 50, "waiting": 50},
        "branching": {"runs": 1, "rows": 17},
        "observability": OBSERVED,
        "backlog": {"rows": 20_000, "rows_alone": 5000},
    }
    assert {name: counts for name, counts in beside.items() if counts} == {
        "fan-out": {"tasks": 200, "messages": 200},
        "growth": {"items": 1000, "rows": 1005},
        "chain": {"tasks": 20, "messages": 20},
        "one-action": {"tasks": 10, "messages": 10},
        "small-runs": {"chords": 8, "messages": 32},
        "small-runs-forked": {"chords": 8, "messages": 32},
        "million": {"items": 1000, "rows": 1005},
        "small-beside-large": {"runs": 22, "rows": 22 * 5},
        "waiting-sessions": {"calls": 50, "waiting": 0},
        "branching": {"runs": 1, "rows": 17},
        "observability": OBSERVED,
    }
    assert (messages["chain"], messages["one-action"]) == (1, 10)
    # a run that forks: itself, its end, and runners for the two processes, now and then one that gives way
    assert 8 <= messages["small-runs"] <= messages["small-runs-forked"] <= 8 * 5
    # one where all of it is expected to be so short that it is run where it began
    assert 1 <= messages["fan-out"] <= 20
    for each in report["workloads"]:
        assert 0 <= each["others_share"] <= 1
        for one in each["comparisons"]:
            assert set(one) == {"title", "unit", "by", "ours", "beside", "compared", "goal", "met"}
            assert one["met"] is None
            for side in ("ours", "beside", "compared"):
                assert one[side] is None or one[side]["low"] <= one[side]["median"] <= one[side]["high"]


def test_the_budget_has_a_figure_for_each_piece(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.performance.budget", "--quick"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=WAIT_SECONDS, check=False)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in done.stdout.splitlines() if "|" in line]
    figures = [(cells[0], [float(cell) for cell in cells[1:]]) for cells in rows if cells[-1][:1].isdigit()]
    assert len(figures) == len(rows) - 3 * 2  # of each table, the head and the line below it
    assert all(value >= 0 for _, values in figures for value in values)
    alone, together = dict(figures)["**in the worker's process, until it is settled**"]
    assert alone > together > 0


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


def _counts(workload: dict[str, Any], side: str) -> dict[str, int]:
    [pair] = workload["pairs"]
    return dict(pair[side]["counts"]) if pair[side] else {}
