"""`parallelizer timeline` and `top` with a real worker: what they draw is what ran."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from orchestration.reports.fleet import fleet
from orchestration.reports.timeline import timeline
from orchestration.state.live import LiveState
from orchestration.store.pool import Database
from tests.support.clients import Client, running_client
from tests.support.commands import WAIT_SECONDS, clean_environment, parallelizer
from tests.support.fleet import Fleet
from tests.support.journal import read_journal
from tests.support.records import Records
from tests.support.waiting import wait_until

NOOP = {"uses": "core.noop"}
SLOTS = 3


@pytest.fixture(scope="module")
def worker(module_fleet: Fleet) -> Fleet:
    module_fleet.start(1, concurrency=SLOTS, ACTION_MODULES="tests.support.journal", INLINE_FORK_MS="0")
    return module_fleet


@pytest.fixture(scope="module")
def client(worker: Fleet) -> Iterator[Client]:
    with running_client(worker) as running:
        yield running


@pytest.fixture(scope="module")
def services(worker: Fleet) -> Iterator[tuple[Database, LiveState]]:
    with (
        closing(Database(worker.database_url)) as database,
        closing(LiveState(worker.redis_url, worker.namespace)) as live,
    ):
        yield database, live


def variables(fleet: Fleet) -> dict[str, str]:
    return {name: fleet.environment[name] for name in ("REDIS_URL", "DATABASE_URL", "NAMESPACE", "DATA_DIR")}


def test_a_timeline_has_every_task_once_in_lanes_without_overlap(
    worker: Fleet, client: Client, services: tuple[Database, LiveState], tmp_path: Path
) -> None:
    database, live = services
    nap = {"uses": "core.sleep", "with": {"seconds": 0.1}}
    bad = {"uses": "core.fail", "with": {"message": "<b>no</b>"}, "needs": ["start"], "continue_on_failure": True}
    actions = {"start": NOOP, "each": {**nap, "for_each": {"range": 7}, "needs": ["start"]}, "bad": bad,
               "last": {**nap, "needs": ["each", "bad"]}}  # fmt: skip
    workflow = {"name": "drawn", "limits": {"max_concurrent_branches": 2}, "actions": actions}
    session = client.run("result = send(workflow).delay().id", workflow=workflow)
    rows = Records(worker).tasks(session, 11)
    client.run("AsyncResult(session).get(timeout=60)", session=session)
    found = timeline(database, session, live.now_us())
    bars = [bar for lane in found.lanes for block in lane.blocks for bar in block.bars]
    expected = {f"each[{item}]" for item in range(7)} | {"start", "bad", "last"}
    assert sorted(bar.name for bar in bars) == sorted(expected)
    for bar in bars:
        row = rows[bar.action, bar.item]
        assert row.started_at is not None
        assert row.started_at.timestamp() == pytest.approx(bar.start_us / 1e6, abs=1e-5)
    assert 1 <= len(found.lanes) <= SLOTS
    assert max(number for _, number in found.waiting) >= 4, "items waited for one of two permits"

    shown = parallelizer("timeline", session, folder=None, **variables(worker))
    assert shown.returncode == 0, shown.stderr
    assert "drawn 1: succeeded" in shown.stdout
    assert "░" in shown.stdout or "waiting, at most" in shown.stdout
    svg, html = tmp_path / "run.svg", tmp_path / "run.html"
    done = parallelizer("timeline", session, "--svg", str(svg), "--html", str(html), folder=None, **variables(worker))
    assert (done.returncode, done.stdout) == (0, f"wrote {svg}\nwrote {html}\n")
    assert svg.read_text().startswith("<svg ")
    page = html.read_text()
    assert "each[6]" in page
    assert "&lt;b&gt;no&lt;/b&gt;" in page, "the error, as text"
    assert "<b>" not in page
    missing = parallelizer("timeline", "no-such-run", folder=None, **variables(worker))
    assert (missing.returncode, missing.stdout) == (2, "")


def test_top_shows_workers_slots_runs_limits_and_speed(
    worker: Fleet, client: Client, services: tuple[Database, LiveState], tmp_path: Path
) -> None:
    database, live = services
    journal, name = tmp_path / "journal", f"busy{uuid.uuid4().hex[:8]}"
    hold = {"uses": "test.hold", "with": {"journal": str(journal), "folder": str(tmp_path), "seconds": 60}}
    workflow: dict[str, Any] = {
        "name": name, "limits": {"max_concurrent_branches_of_workflow": 2},
        "actions": {"each": {**hold, "for_each": {"range": 5}}},
    }  # fmt: skip
    before = fleet(database, live)
    session = client.run("result = send(workflow).delay().id", workflow=workflow)
    wait_until(lambda: len(read_journal(journal)) == 2, "two items are at work")
    shown = parallelizer("top", "--once", "--json", "--interval", "0.2", folder=None, **variables(worker))
    assert shown.returncode == 0, shown.stderr
    look = json.loads(shown.stdout)
    (one,) = look["workers"]
    assert (one["slots"], one["busy"], one["queues"]) == (SLOTS, 2, ["branches"])
    assert 0 < one["lease_left_seconds"] <= 15
    assert look["queues"] == [{"name": "branches", "slots": SLOTS, "in_flight": 2, "waiting": 0}]
    assert (look["runs"]["open"], look["runs"]["running"], look["runs"]["queued"]) == (1, 1, 0)
    (run,) = look["runs"]["oldest"]
    assert (run["flow_session_id"], run["workflow"], run["status"]) == (session, name, "running")
    assert (run["in_use"], run["ready"], run["open_branches"]) == (2, 3, 1)
    limit = next(each for each in look["limits"] if each["name"] == f"workflow:{name}")
    assert (limit["limit"], limit["in_use"], limit["waiting"]) == (2, 2, 1)
    assert set(look["rates"]) == {"tasks_per_second", "runs_per_second", "busy_share"}
    assert look["rates"]["busy_share"] == pytest.approx(2 / SLOTS, abs=1e-3)

    text = parallelizer("top", "--once", "--interval", "0.2", folder=None, **variables(worker))
    assert text.returncode == 0
    assert f"workers 1   slots 2 of {SLOTS} busy   runs 1 open, 0 queued" in text.stdout
    assert session in text.stdout
    for item in range(5):
        (tmp_path / f"each:{item}.1").touch()
    client.run("AsyncResult(session).get(timeout=60)", session=session)
    Records(worker).tasks(session, 6)
    after = fleet(database, live).ended
    assert (after.tasks - before.ended.tasks, after.sessions - before.ended.sessions) == (6, 1)


@pytest.mark.parametrize("key", ["q", "ctrl-c"])
def test_top_on_a_terminal_ends_by_a_key_and_leaves_it_as_it_was(worker: Fleet, key: str) -> None:
    ours, theirs = pty.openpty()
    environment = clean_environment(**variables(worker), TERM="xterm", COLUMNS="100", LINES="30")
    command = [sys.executable, "-m", "parallelizer", "top", "--interval", "0.2"]
    with subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, start_new_session=True
    ) as process:
        os.close(theirs)
        seen = b""
        while b"queued" not in seen:
            seen += os.read(ours, 65536)
        assert b"\x1b[?1049h" in seen, "a screen of its own"
        if key == "q":
            os.write(ours, b"q")
        else:
            process.send_signal(signal.SIGINT)
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:
                break
            if not part:
                break
            seen += part
        assert process.wait(WAIT_SECONDS) == 0
    os.close(ours)
    assert seen.rstrip().endswith(b"\x1b[?25h") or b"\x1b[?1049l" in seen
    assert b"Traceback" not in seen
