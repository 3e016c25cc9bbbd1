"""`parallelizer run`, `status`, `list`, `publish`, `graph` with real workers."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.commands import WAIT_SECONDS, clean_environment, running_command
from tests.support.fleet import Fleet

ACTIONS = "tests.cluster.cli_actions"
SHAPES = """\
name: shapes
payload_schema: {type: object, properties: {bad: {type: integer}}}
actions:
  list:   {uses: core.echo, with: {value: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]}}
  each:   {needs: [list], for_each: "${{ tasks.list.result }}", uses: core.echo, with: {value: "${{ item }}"}}
  odd:    {needs: [list], if: "has(payload.bad)", uses: core.fail, with: {message: "this is odd"}}
  join:   {needs: [each, odd], trigger_rule: RULE, uses: core.echo, with: {value: "${{ tasks.each.result }}"}}
"""


class CommandLine:
    """The command, with the services and workers of a fleet."""

    def __init__(self, fleet: Fleet) -> None:
        self.variables = fleet.settings | {"ACTION_MODULES": ACTIONS}

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run one command to its end."""
        command = [sys.executable, "-m", "parallelizer", *arguments]
        environment = clean_environment(**self.variables)
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=WAIT_SECONDS, check=False
        )

    def json(self, *arguments: str, expected: int = 0) -> Any:
        """What a command with --json prints."""
        done = self.run(*arguments, "--json")
        assert done.returncode == expected, done.stdout + done.stderr
        return json.loads(done.stdout)


@pytest.fixture(scope="module")
def cli(module_fleet: Fleet) -> CommandLine:
    """The command, with one worker."""
    module_fleet.start(1, concurrency=2, ACTION_MODULES=ACTIONS)
    return CommandLine(module_fleet)


@pytest.fixture
def shapes(tmp_path: Path) -> str:
    path = tmp_path / "shapes.yaml"
    path.write_text(SHAPES.replace("RULE", "none_failed"))
    return str(path)


def until(condition: Callable[[], bool]) -> None:
    deadline, pause = time.monotonic() + WAIT_SECONDS, threading.Event()
    while not condition():
        assert time.monotonic() < deadline
        pause.wait(0.02)


def test_run_shows_every_action_and_prints_the_output(shapes: str, cli: CommandLine) -> None:
    done = cli.run("run", shapes)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^each\s+succeeded\s+10\b", done.stdout, re.MULTILINE)
    assert re.search(r"^odd\s+skipped", done.stdout, re.MULTILINE)
    assert re.search(r"shapes 1: succeeded in .*12 succeeded, 1 skipped", done.stdout)
    assert done.stderr == ""


def test_a_workflow_that_fails_exits_1_and_shows_the_error(shapes: str, cli: CommandLine) -> None:
    done = cli.run("run", shapes, "--payload", '{"bad": 1}')
    assert done.returncode == 1
    assert "✘ odd failed: DeliberateFailure: this is odd" in done.stdout
    assert re.search(r"^join\s+upstream_failed", done.stdout, re.MULTILINE)


def test_json_has_the_result_and_nothing_else_on_standard_output(shapes: str, cli: CommandLine) -> None:
    result = cli.json("run", shapes)
    assert set(result) == {
        "flow_session_id", "workflow", "version", "status", "output", "counts", "duration_seconds",
    }  # fmt: skip
    assert result["output"] == {"join": list(range(10))}
    assert result["counts"] == {"succeeded": 12, "skipped": 1}


def test_status_tells_what_each_task_did(shapes: str, cli: CommandLine) -> None:
    result = cli.json("run", shapes, "--payload", '{"bad": 1}', expected=1)
    report = cli.json("status", result["flow_session_id"], "--tasks")
    assert {name: report[name] for name in result} == result
    assert report["started_at"] <= report["finished_at"]
    tasks = {(task["action"], task["item"]): task for task in report["tasks"]}
    assert set(tasks) == {(name, None) for name in ("list", "each", "odd", "join")} | {("each", n) for n in range(10)}
    assert set(tasks["odd", None]) == {
        "action", "item", "status", "attempt", "queue", "worker", "started_at", "finished_at", "error",
    }  # fmt: skip
    assert tasks["odd", None]["error"]["message"] == "this is odd"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", tasks["odd", None]["finished_at"])
    for arguments in ([], ["--tasks"]):
        shown = cli.run("status", result["flow_session_id"], *arguments)
        assert shown.returncode == 0
        assert "this is odd" in shown.stdout


def test_an_unknown_run_is_wrong_use(cli: CommandLine) -> None:
    done = cli.run("status", "no-such-run")
    assert (done.returncode, done.stdout) == (2, "")
    assert "no-such-run" in done.stderr


def test_a_published_workflow_runs_by_name_and_version(tmp_path: Path, cli: CommandLine) -> None:
    path = tmp_path / "bundle.yaml"
    path.write_text("name: bundle\nactions: {a: {uses: core.echo, with: {value: 1}}}\n")
    first = cli.json("publish", str(path))
    assert cli.json("publish", str(path)) == first
    path.write_text("name: bundle\nactions: {a: {uses: core.echo, with: {value: 2}}}\n")
    assert cli.json("publish", str(path))["version"] == 2
    assert cli.json("run", "bundle")["output"] == {"a": 2}
    assert cli.json("run", "bundle@1")["output"] == {"a": 1}
    assert [each["version"] for each in cli.json("workflows") if each["workflow"] == "bundle"] == [2]
    assert "core.echo" in cli.run("graph", "bundle").stdout


def test_an_unknown_workflow_is_answered_with_the_nearest_names(shapes: str, cli: CommandLine) -> None:
    cli.json("publish", shapes)
    for command in ("run", "graph"):
        done = cli.run(command, "shapse")
        assert (done.returncode, done.stdout) == (2, "")
        assert "shapse" in done.stderr
        assert "shapes" in done.stderr
    wrong_version = cli.run("run", "shapes@99")
    assert wrong_version.returncode == 2
    assert "99" in wrong_version.stderr


def test_the_payload_of_a_published_workflow_is_checked_before_it_starts(shapes: str, cli: CommandLine) -> None:
    cli.json("publish", shapes)
    before = cli.json("list")
    done = cli.run("run", "shapes", "--payload", '{"bad": "x"}')
    assert done.returncode == 2
    assert "payload.bad" in done.stderr
    assert cli.json("list") == before


def test_list_filters_and_limits(shapes: str, cli: CommandLine) -> None:
    good = cli.json("run", shapes)["flow_session_id"]
    bad = cli.json("run", shapes, "--payload", '{"bad": 1}', expected=1)["flow_session_id"]
    newest = cli.json("list", "--limit", "2")
    assert [run["flow_session_id"] for run in newest] == [bad, good]
    failed = cli.json("list", "--status", "failed", "--workflow", "shapes")
    assert bad in [run["flow_session_id"] for run in failed]
    assert good not in [run["flow_session_id"] for run in failed]
    assert good in cli.run("list").stdout
    assert cli.run("list", "--workflow", "nothing").stdout == "no such run\n"


def test_ctrl_c_while_following_leaves_the_run_going(tmp_path: Path, cli: CommandLine) -> None:
    begun, path = tmp_path / "begun", tmp_path / "waits.yaml"
    path.write_text(
        'name: waits\nactions: {a: {uses: cli_tests.begin_and_wait, with: {path: "${{ payload.path }}"}}}\n'
    )
    payload = json.dumps({"path": str(begun)})
    with running_command("run", str(path), "--payload", payload, **cli.variables) as command:
        until(begun.exists)
        command.wait_for("a: running")
        command.send(signal.SIGINT)
        assert command.wait() == 130
        said = re.search(r"The run goes on; look at it with: parallelizer status (\S+)", command.output)
        assert said is not None
        assert "Traceback" not in command.output
    running = cli.json("status", said[1], "--tasks")
    assert (running["status"], running["tasks"][0]["status"]) == ("running", "running")
    begun.unlink()
    until(lambda: cli.json("status", said[1])["status"] == "succeeded")


def test_no_follow_returns_at_once_and_says_how_to_look(shapes: str, cli: CommandLine) -> None:
    started = cli.json("run", shapes, "--no-follow")
    until(lambda: started["flow_session_id"] in json.dumps(cli.json("list", "--status", "succeeded")))
    done = cli.run("run", shapes, "--no-follow")
    assert re.search(r"parallelizer status \S+", done.stdout)
