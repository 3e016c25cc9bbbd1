"""Probes: which there are, what CRASH_AT may say, and that a process dies where it was told to, once."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest

from config.settings import WrongSetting
from orchestration.telemetry.probes import POINTS, PROBES, STEPS, crash_at

ROOT = Path(__file__).resolve().parents[3]
_NAMED = re.compile(r'probe(?:d)?\("([\w.]+)"\)')
_PROGRAM = """\
from orchestration.telemetry.probes import crash_at, probe
import sys
crash_at(sys.argv[1])
for _ in range(5):
    probe("result.ready")
    print("passed", flush=True)
"""


def passes(setting: str) -> tuple[int, int]:
    """How often a process passed a probe of five, and how it ended."""
    ended = subprocess.run([sys.executable, "-c", _PROGRAM, setting], capture_output=True, check=False)
    return ended.stdout.count(b"passed"), ended.returncode


def test_every_script_has_probes_and_every_name_is_used() -> None:
    used = set()
    for package in ("orchestration", "tasks"):
        for path in (ROOT / package).rglob("*.py"):
            used |= set(_NAMED.findall(path.read_text()))
    for folder, prefix in (("orchestration.state.lua", "script"), ("tasks.transport.lua", "delivery")):
        used |= {f"{prefix}.{path.name[:-4]}" for path in files(folder).iterdir() if path.name.endswith(".lua")}
    halves = {name.rpartition(".")[0] for name in used if name.endswith((".before", ".after"))}
    assert {name for name in used if not name.endswith((".before", ".after"))} | halves == {*STEPS, *POINTS}


@pytest.mark.parametrize("setting", ["nowhere:1", "result.ready", "result.ready:0", "result.ready:x", "result.ready:²"])
def test_a_wrong_setting_is_refused_with_its_name(setting: str) -> None:
    with pytest.raises(WrongSetting, match="CRASH_AT"):
        crash_at(setting)


def test_an_unknown_probe_stops_a_worker_which_lists_those_there_are() -> None:
    environment = {
        **os.environ, "CRASH_AT": "nowhere:1", "REDIS_URL": "redis://localhost:1", "DATABASE_URL": "postgresql://localhost",
        "PYTHONPATH": str(ROOT),
    }  # fmt: skip
    command = [sys.executable, "-m", "celery", "-A", "tasks", "worker"]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert "'nowhere'" in ended.stderr
    assert all(probe in ended.stderr for probe in PROBES)


def test_a_process_dies_at_the_pass_it_was_told() -> None:
    assert passes("") == (5, 0)
    assert passes("result.stored:1") == (5, 0)
    assert passes("result.stored:1,result.ready:3") == (2, -signal.SIGKILL)


def test_of_those_with_a_ticket_one_dies_once(tmp_path: Path) -> None:
    ticket = tmp_path / "ticket"
    assert passes(f"result.ready:2:{ticket}") == (5, 0), "there is no ticket yet"
    ticket.touch()
    assert passes(f"result.ready:2:{ticket}") == (1, -signal.SIGKILL)
    assert passes(f"result.ready:2:{ticket}") == (5, 0)
    (taken,) = tmp_path.iterdir()
    assert taken.name.removeprefix("ticket.").isdecimal()
