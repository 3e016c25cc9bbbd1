"""`up` and `down` with real servers and real workers: how they start, and that nothing is ever left behind."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import httpx
import psutil
import psycopg2
import pytest

from config.settings import load_settings
from orchestration.errors import ServiceUnreachable
from parallelizer.services.attach import stack_urls, temporary_stack
from parallelizer.services.reach import database_answers, redis_answers
from parallelizer.services.record import FILE_NAME, read_record
from parallelizer.services.stack import StackRunning
from tests.support.commands import (
    WAIT_SECONDS,
    RunningCommand,
    clean_environment,
    parallelizer,
    running_command,
    started_since,
    wait_all_gone,
)

UP = ("up", "--concurrency", "1", "--grace", "5")
SUBMIT = """
import sys
from tasks import run_workflow
sleep = {"uses": "tests.begin_and_sleep", "with": {"path": sys.argv[1], "seconds": 600}}
run_workflow.delay({"name": "long", "actions": {"sleep": sleep}})
"""


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """A data folder that any user can reach."""
    folder = Path(tempfile.mkdtemp(prefix="parallelizer-tests-"))
    folder.chmod(0o711)
    yield folder / "data"
    shutil.rmtree(folder)


def start(data_dir: Path, *arguments: str, **variables: str) -> Iterator[RunningCommand]:
    with running_command(*UP, "--data-dir", str(data_dir), *arguments, **variables) as command:
        command.wait_for("ready: ")
        yield command


@pytest.fixture
def up(data_dir: Path) -> Iterator[RunningCommand]:
    yield from start(data_dir)


@pytest.fixture(scope="module")
def shared_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="parallelizer-tests-"))
    folder.chmod(0o711)
    yield folder / "data"
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def shared_up(shared_folder: Path) -> Iterator[RunningCommand]:
    """One stack for the tests that leave it as they found it."""
    yield from start(shared_folder)


def until(condition: Callable[[], bool], what: str) -> None:
    """Return when the condition holds."""
    deadline = time.monotonic() + WAIT_SECONDS
    look = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, f"still not: {what}"
        look.wait(0.02)


def is_reachable(check: Callable[[str], None], url: str) -> bool:
    try:
        check(url)
    except ServiceUnreachable:
        return False
    return True


def execute(url: str, statement: str) -> list[tuple[object, ...]]:
    with closing(psycopg2.connect(url)) as connection, connection, connection.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchall() if cursor.description else []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_up_cleanly_and_no_process_is_left(
    up: RunningCommand, data_dir: Path, number: signal.Signals
) -> None:
    below = up.descendants()
    assert {"postgres", "valkey-server"} <= {process.name() for process in below}
    up.send(number)
    assert up.wait() == 0
    wait_all_gone(below, 1)
    assert not (data_dir / FILE_NAME).exists()


def test_kill_9_of_up_leaves_no_process_and_the_next_up_finds_the_data(up: RunningCommand, data_dir: Path) -> None:
    record = read_record(data_dir)
    assert record is not None
    execute(record.database_url, "CREATE TABLE kept AS SELECT 42 AS answer")
    below = up.descendants()
    up.send(signal.SIGKILL)
    up.wait()
    for _ in start(data_dir):  # at once, while the servers may still be ending
        again = read_record(data_dir)
        assert again is not None
        assert again.database_url == record.database_url
        assert execute(again.database_url, "SELECT answer FROM kept") == [(42,)]
    wait_all_gone(below)


def test_asking_twice_does_not_wait_for_what_the_workers_run(data_dir: Path) -> None:
    begun = data_dir.parent / "begun"
    for up in start(data_dir, "--grace", "600", ACTION_MODULES="tests.support.actions"):
        record = read_record(data_dir)
        assert record is not None
        client = clean_environment(REDIS_URL=record.redis_url, DATABASE_URL=record.database_url)
        subprocess.run([sys.executable, "-c", SUBMIT, str(begun)], env=client, check=True)
        until(begun.exists, "the action runs")
        below = up.descendants()
        up.send(signal.SIGINT)
        up.wait_for("stopping; workers may finish what they run, for 600 s")
        up.send(signal.SIGINT)
        assert up.wait() == 0
        wait_all_gone(below, 1)


def test_a_dead_worker_is_started_again_and_up_says_so(shared_up: RunningCommand) -> None:
    ready = shared_up.output.count(" ready.")
    worker = next(process for process in shared_up.descendants() if "worker-1." in " ".join(process.cmdline()))
    below = worker.children(recursive=True)
    worker.kill()
    shared_up.wait_for("worker-1 was killed by SIGKILL; starting it again in 0.5 s")
    wait_all_gone(below)
    shared_up.wait_for(" ready.", times=ready + 1)


def test_a_dead_server_is_started_again_where_it_was(up: RunningCommand, data_dir: Path) -> None:
    record = read_record(data_dir)
    assert record is not None
    for program, name in (("valkey-server", "Redis server"), ("postgres", "PostgreSQL")):
        next(process for process in up.descendants() if process.name() == program).kill()
        up.wait_for(f"the embedded {name} was killed by SIGKILL; starting it again in 0.5 s")
    until(lambda: is_reachable(redis_answers, record.redis_url), "Redis is back")
    until(lambda: is_reachable(database_answers, record.database_url), "PostgreSQL is back")


def test_while_up_runs_others_find_it_and_a_second_one_is_refused(
    shared_up: RunningCommand, shared_folder: Path
) -> None:
    assert stack_urls(shared_folder, load_settings(redis_url=None, database_url=None)) is not None
    second = parallelizer(*UP, "--data-dir", str(shared_folder))
    assert second.returncode == 2
    assert f"process {shared_up.process.pid}" in second.stderr
    assert "parallelizer down" in second.stderr
    with pytest.raises(StackRunning), temporary_stack(load_settings(data_dir=shared_folder)):
        pass


def test_doctor_finds_nothing_wrong_with_a_running_stack(shared_up: RunningCommand, shared_folder: Path) -> None:
    doctor = parallelizer("doctor", "--json", "--data-dir", str(shared_folder))
    findings = json.loads(doctor.stdout)["findings"]
    assert doctor.returncode == 0, doctor.stdout
    assert {finding["grade"] for finding in findings} == {"ok"}, shared_up.output
    assert {finding["check"] for finding in findings} >= {"redis", "postgresql", "migrations", "workers", "stack"}


def test_detached_up_returns_when_ready_and_down_stops_all_of_it(data_dir: Path) -> None:
    started = parallelizer(*UP, "--detach", "--data-dir", str(data_dir))
    try:
        assert started.returncode == 0, started.stderr
        record = read_record(data_dir)
        assert record is not None
        assert record.ready
        below = psutil.Process(record.supervisor.pid).children(recursive=True)
    finally:
        stopped = parallelizer("down", "--data-dir", str(data_dir))
    assert stopped.returncode == 0, stopped.stderr
    wait_all_gone(below, 1)
    again = parallelizer("down", "--data-dir", str(data_dir))
    assert again.returncode == 0
    assert "no stack is running" in again.stdout


def test_down_does_not_touch_a_stranger_that_got_the_stacks_process_id(data_dir: Path) -> None:
    data_dir.mkdir()
    with subprocess.Popen(["sleep", "600"]) as stranger:
        (data_dir / FILE_NAME).write_text(
            json.dumps(
                {
                    "supervisor": {"pid": stranger.pid, "started": 1.0}, "redis_url": "", "database_url": "",
                    "workers": 1, "ready": True, "temporary": False,
                }
            )
        )  # fmt: skip
        answer = parallelizer("down", "--data-dir", str(data_dir))
        assert "no stack is running" in answer.stdout
        assert stranger.poll() is None
        stranger.kill()


def test_up_uses_the_services_that_the_settings_name(
    data_dir: Path, redis_url: str, database_url: str, namespace: str
) -> None:
    for command in start(data_dir, REDIS_URL=redis_url, DATABASE_URL=database_url, NAMESPACE=namespace):
        names = {process.name() for process in command.descendants()}
        assert not {"postgres", "valkey-server"} & names
    assert not (data_dir / "redis").exists()
    assert not (data_dir / "postgres").exists()


@pytest.mark.parametrize(
    ("variable", "url", "service"),
    [
        ("REDIS_URL", "redis://:secret@127.0.0.1:1/0", "Redis at 127.0.0.1:1/0"),
        ("DATABASE_URL", "postgresql://me:secret@127.0.0.1:1/app", "PostgreSQL at 127.0.0.1:1/app"),
    ],
)
def test_a_service_out_of_reach_ends_up_with_3_and_one_sentence(
    data_dir: Path, variable: str, url: str, service: str
) -> None:
    answer = parallelizer(*UP, "--data-dir", str(data_dir), folder=None, **{variable: url})
    assert answer.returncode == 3
    assert service in answer.stderr
    assert variable in answer.stderr
    assert "secret" not in answer.stderr
    assert "Traceback" not in answer.stderr
    assert not (data_dir / FILE_NAME).exists()
    assert not [process for process in psutil.process_iter() if str(data_dir) in " ".join(_command_line(process))]


@pytest.mark.parametrize(
    ("arguments", "variables", "words"),
    [
        (("--pool", "eventlet"), {}, "prefork, threads, gevent, solo"),
        (("--workers", "0"), {}, "--workers"),
        ((), {"MAX_CONCURRENT_BRANCHES": "many"}, "MAX_CONCURRENT_BRANCHES"),
        ((), {"REDIS_URL": "http://localhost"}, "REDIS_URL"),
    ],
)
def test_wrong_use_ends_up_with_2_and_names_what_is_wrong(
    data_dir: Path, arguments: tuple[str, ...], variables: dict[str, str], words: str
) -> None:
    answer = parallelizer(*UP, "--data-dir", str(data_dir), *arguments, folder=None, **variables)
    assert answer.returncode == 2
    assert words in answer.stderr
    assert not data_dir.exists()


def test_a_module_that_hides_one_of_our_packages_is_named_before_anything_starts(data_dir: Path) -> None:
    (data_dir.parent / "tasks.py").touch()
    answer = parallelizer(*UP, "--data-dir", str(data_dir), folder=data_dir.parent)
    assert answer.returncode == 2
    assert str(data_dir.parent / "tasks.py") in answer.stderr
    assert not data_dir.exists()


def test_a_stack_for_one_run_lives_as_long_as_its_block(data_dir: Path) -> None:
    settings = load_settings(data_dir=data_dir, redis_url=None, database_url=None)
    before = set(psutil.Process().children(recursive=True))
    with temporary_stack(settings, concurrency=1) as stack:
        below = started_since(before)
        assert stack_urls(data_dir, settings) == (stack.redis_url, stack.database_url)
        assert (stack.logs / "worker-1.log").exists()
        answer = parallelizer("down", "--data-dir", str(data_dir))
        assert answer.returncode == 2
        assert "parallelizer run" in answer.stderr
    wait_all_gone(below, 1)
    assert stack_urls(data_dir, settings) is None


def test_migrate_brings_an_empty_database_to_the_newest_schema_once(data_dir: Path, empty_database_url: str) -> None:
    first, second = (
        json.loads(parallelizer("migrate", "--json", DATABASE_URL=empty_database_url).stdout) for _ in range(2)
    )
    assert first["from"] is None
    assert second == {**first, "from": first["to"]}


def test_doctor_says_what_to_do_about_each_service(data_dir: Path) -> None:
    nothing = parallelizer("doctor", "--data-dir", str(data_dir))
    assert nothing.returncode == 0
    assert "`parallelizer up` starts an embedded server" in nothing.stdout
    lost = parallelizer(
        "doctor", "--json", "--data-dir", str(data_dir),
        REDIS_URL="redis://:secret@127.0.0.1:1/0", DATABASE_URL="postgresql://me:secret@127.0.0.1:1/app",
    )  # fmt: skip
    assert lost.returncode == 3
    assert "secret" not in lost.stdout
    found = {finding["check"]: finding for finding in json.loads(lost.stdout)["findings"]}
    for check in ("redis", "postgresql"):
        assert found[check]["grade"] == "unreachable"
        assert found[check]["remedy"]


def _command_line(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def test_up_starts_flower_with_our_pages_where_it_is_asked_to(data_dir: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for command in start(data_dir, "--flower", str(port)):
        command.wait_for("Visit me at")
        answer = httpx.get(f"http://127.0.0.1:{port}/flow", trust_env=False)
        assert answer.status_code == 200
        assert "Workflows · Flower" in answer.text
