"""`parallelizer run`, `status`, `list`, `publish`, `graph` with real workers."""

from __future__ import annotations

import json
import re
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.commands import WAIT_SECONDS, parallelizer, running_command
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


@pytest.fixture(scope="module")
def environment(module_fleet: Fleet) -> dict[str, str]:
    """What a command needs to use the workers of this module."""
    module_fleet.start(1, concurrency=2, ACTION_MODULES=ACTIONS)
    names = ("REDIS_URL", "DATABASE_URL", "NAMESPACE", "DATA_DIR")
    return {name: module_fleet.environment[name] for name in names} | {"ACTION_MODULES": ACTIONS}


@pytest.fixture
def shapes(tmp_path: Path) -> str:
    path = tmp_path / "shapes.yaml"
    path.write_text(SHAPES.replace("RULE", "none_failed"))
    return str(path)


def result_of(*arguments: str, expected: int = 0, **environment: str) -> Any:
    """What a command with --json prints."""
    done = parallelizer(*arguments, "--json", **environment)
    assert done.returncode == expected, done.stdout + done.stderr
    return json.loads(done.stdout)


def until(condition: Callable[[], bool]) -> None:
    deadline, pause = time.monotonic() + WAIT_SECONDS, threading.Event()
    while not condition():
        assert time.monotonic() < deadline
        pause.wait(0.02)


def test_run_shows_every_action_and_prints_the_output(shapes: str, environment: dict[str, str]) -> None:
    done = parallelizer("run", shapes, **environment)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^each\s+succeeded\s+10\b", done.stdout, re.MULTILINE)
    assert re.search(r"^odd\s+skipped", done.stdout, re.MULTILINE)
    assert re.search(r"shapes 1: succeeded in .*12 succeeded, 1 skipped", done.stdout)
    assert done.stderr == ""


def test_a_workflow_that_fails_exits_1_and_shows_the_error(shapes: str, environment: dict[str, str]) -> None:
    done = parallelizer("run", shapes, "--payload", '{"bad": 1}', **environment)
    assert done.returncode == 1
    assert "✘ odd failed: DeliberateFailure: this is odd" in done.stdout
    assert re.search(r"^join\s+upstream_failed", done.stdout, re.MULTILINE)


def test_json_has_the_result_and_nothing_else_on_standard_output(shapes: str, environment: dict[str, str]) -> None:
    result = result_of("run", shapes, **environment)
    assert set(result) == {
        "flow_session_id", "workflow", "version", "status", "output", "counts", "duration_seconds",
    }  # fmt: skip
    assert result["output"] == {"join": list(range(10))}
    assert result["counts"] == {"succeeded": 12, "skipped": 1}


def test_status_tells_what_each_task_did(shapes: str, environment: dict[str, str]) -> None:
    result = result_of("run", shapes, "--payload", '{"bad": 1}', expected=1, **environment)
    report = result_of("status", result["flow_session_id"], "--tasks", **environment)
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
        shown = parallelizer("status", result["flow_session_id"], *arguments, **environment)
        assert shown.returncode == 0
        assert "this is odd" in shown.stdout


def test_an_unknown_run_is_wrong_use(environment: dict[str, str]) -> None:
    done = parallelizer("status", "no-such-run", **environment)
    assert (done.returncode, done.stdout) == (2, "")
    assert "no-such-run" in done.stderr


def test_a_published_workflow_runs_by_name_and_version(tmp_path: Path, environment: dict[str, str]) -> None:
    path = tmp_path / "bundle.yaml"
    path.write_text("name: bundle\nactions: {a: {uses: core.echo, with: {value: 1}}}\n")
    first = result_of("publish", str(path), **environment)
    assert result_of("publish", str(path), **environment) == first
    path.write_text("name: bundle\nactions: {a: {uses: core.echo, with: {value: 2}}}\n")
    assert result_of("publish", str(path), **environment)["version"] == 2
    assert result_of("run", "bundle", **environment)["output"] == {"a": 2}
    assert result_of("run", "bundle@1", **environment)["output"] == {"a": 1}
    assert [each["version"] for each in result_of("workflows", **environment) if each["workflow"] == "bundle"] == [2]
    assert "core.echo" in parallelizer("graph", "bundle", **environment).stdout


def test_an_unknown_workflow_is_answered_with_the_nearest_names(shapes: str, environment: dict[str, str]) -> None:
    result_of("publish", shapes, **environment)
    for command in ("run", "graph"):
        done = parallelizer(command, "shapse", **environment)
        assert (done.returncode, done.stdout) == (2, "")
        assert "shapse" in done.stderr
        assert "shapes" in done.stderr
    wrong_version = parallelizer("run", "shapes@99", **environment)
    assert wrong_version.returncode == 2
    assert "99" in wrong_version.stderr


def test_the_payload_of_a_published_workflow_is_checked_before_it_starts(
    shapes: str, environment: dict[str, str]
) -> None:
    result_of("publish", shapes, **environment)
    before = result_of("list", **environment)
    done = parallelizer("run", "shapes", "--payload", '{"bad": "x"}', **environment)
    assert done.returncode == 2
    assert "payload.bad" in done.stderr
    assert result_of("list", **environment) == before


def test_list_filters_and_limits(shapes: str, environment: dict[str, str]) -> None:
    good = result_of("run", shapes, **environment)["flow_session_id"]
    bad = result_of("run", shapes, "--payload", '{"bad": 1}', expected=1, **environment)["flow_session_id"]
    newest = result_of("list", "--limit", "2", **environment)
    assert [run["flow_session_id"] for run in newest] == [bad, good]
    failed = result_of("list", "--status", "failed", "--workflow", "shapes", **environment)
    assert bad in [run["flow_session_id"] for run in failed]
    assert good not in [run["flow_session_id"] for run in failed]
    assert good in parallelizer("list", **environment).stdout
    assert parallelizer("list", "--workflow", "nothing", **environment).stdout == "no such run\n"


def test_ctrl_c_while_following_leaves_the_run_going(tmp_path: Path, environment: dict[str, str]) -> None:
    begun, path = tmp_path / "begun", tmp_path / "waits.yaml"
    path.write_text(
        'name: waits\nactions: {a: {uses: cli_tests.begin_and_wait, with: {path: "${{ payload.path }}"}}}\n'
    )
    payload = json.dumps({"path": str(begun)})
    with running_command("run", str(path), "--payload", payload, **environment) as command:
        until(begun.exists)
        command.wait_for("a: running")
        command.send(signal.SIGINT)
        assert command.wait() == 130
        said = re.search(r"The run goes on; look at it with: parallelizer status (\S+)", command.output)
        assert said is not None
        assert "Traceback" not in command.output
    running = result_of("status", said[1], "--tasks", **environment)
    assert (running["status"], running["tasks"][0]["status"]) == ("running", "running")
    begun.unlink()
    until(lambda: result_of("status", said[1], **environment)["status"] == "succeeded")


def test_no_follow_returns_at_once_and_says_how_to_look(shapes: str, environment: dict[str, str]) -> None:
    started = result_of("run", shapes, "--no-follow", **environment)
    until(lambda: started["flow_session_id"] in json.dumps(result_of("list", "--status", "succeeded", **environment)))
    done = parallelizer("run", shapes, "--no-follow", **environment)
    assert re.search(r"parallelizer status \S+", done.stdout)
