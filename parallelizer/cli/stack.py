"""`parallelizer up`, `down`, `doctor`, `migrate`: the stack on this machine. The work is in parallelizer.services."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import psutil
import typer

from config.settings import Settings, load_settings
from orchestration.errors import ServiceUnreachable
from orchestration.store import migrate as migrations
from parallelizer.cli.failures import OUT_OF_REACH, WRONG_USE, WrongUse
from parallelizer.services.attach import TemporaryStack, stack_urls, temporary_stack
from parallelizer.services.checks import Finding, Grade, examine
from parallelizer.services.folder import log_path, log_tail, open_log, prepare_folder
from parallelizer.services.reach import database_answers, place_of
from parallelizer.services.record import read_record
from parallelizer.services.stack import Stack, StackPlan, StackRunning
from parallelizer.services.workers import POOLS, READY_SECONDS

__all__ = ["TemporaryStack", "register", "stack_urls", "temporary_stack"]

#: How long `down` waits for the stack beyond the grace of its workers, seconds.
DOWN_SECONDS = 40.0

DataDir = Annotated[Path | None, typer.Option(help="Folder of the embedded servers; by default DATA_DIR.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the command line."""
    for command in (up, down, doctor, migrate):
        app.command()(command)


def up(
    workers: Annotated[int, typer.Option(min=1, max=256, help="Worker processes to start.")] = 1,
    concurrency: Annotated[
        int | None, typer.Option(min=1, max=10_000, help="Slots of each worker; by default one for each processor.")
    ] = None,
    pool: Annotated[str, typer.Option(help=f"Celery's pool: {', '.join(POOLS)}.")] = "prefork",
    data_dir: DataDir = None,
    detach: Annotated[bool, typer.Option(help="Return when the stack is ready; logs go to <data dir>/log.")] = False,
    grace: Annotated[float, typer.Option(min=0, help="Seconds that workers may finish what they run at the end.")] = 30,
    flower: Annotated[
        int | None, typer.Option(min=1, max=65535, metavar="PORT", help="Start Flower with our pages on this port.")
    ] = None,
) -> None:
    """Run the whole stack on this machine.

    Starts a server for each of REDIS_URL and DATABASE_URL that is not set, migrates the database and runs workers, with
    their logs. What dies is started again. Ctrl-C ends it all; a second one does not wait for what the workers run.
    """
    settings = _settings(data_dir)
    plan = StackPlan(workers=workers, pool=_checked_pool(pool), grace_seconds=grace, flower_port=flower)
    if concurrency is not None:
        plan = replace(plan, concurrency=concurrency)
    if detach:
        _detach(settings, plan)
    else:
        run_stack(Stack(settings, plan, _announce, _show_line), plan)


def down(
    data_dir: DataDir = None,
    now: Annotated[bool, typer.Option(help="Don't let the workers finish what they run.")] = False,
) -> None:
    """Stop what `up` started.

    Nothing else is touched; with no stack in this data folder it says so.
    """
    folder = _settings(data_dir).data_dir
    record = read_record(folder)
    if record is None:
        typer.echo(f"no stack is running in {folder}")
        return
    if record.temporary:
        raise WrongUse(
            f"the stack in {folder} belongs to `parallelizer run` (process {record.supervisor.pid}) and ends with it"
        )
    process = psutil.Process(record.supervisor.pid)
    process.terminate()
    if now:
        process.send_signal(signal.SIGINT)
    typer.echo(f"stopping the stack in {folder} (process {process.pid}); workers finish what they run")
    try:
        _wait_gone(process)
    except KeyboardInterrupt:
        process.terminate()
        _wait_gone(process)
    typer.echo("stopped")


def doctor(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Check everything, say what to do.

    Packages, actions, settings, Redis, PostgreSQL, schema, workers. Exit codes: 2 something is wrong, 3 a service is
    out of reach.
    """
    findings = []
    for finding in examine(_settings(data_dir)):
        findings.append(finding)
        if not as_json:
            _print_finding(finding)
    if as_json:
        typer.echo(json.dumps({"findings": [asdict(finding) for finding in findings]}, indent=2))
    grades = {finding.grade for finding in findings}
    if Grade.UNREACHABLE in grades:
        raise typer.Exit(OUT_OF_REACH)
    if Grade.WRONG in grades:
        raise typer.Exit(WRONG_USE)


def migrate(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Bring the database to our newest schema.

    The database is DATABASE_URL, or the running stack's. Safe to repeat, and from two places at once.
    """
    settings = _settings(data_dir)
    record = read_record(settings.data_dir)
    url = settings.database_url or (record.database_url if record is not None else None)
    if url is None:
        raise ServiceUnreachable("no PostgreSQL: set DATABASE_URL, or start a stack with `parallelizer up`")
    database_answers(url)
    before, after = migrations.upgrade(url)
    if as_json:
        typer.echo(json.dumps({"from": before, "to": after, "database": place_of(url)}))
    elif before == after:
        typer.echo(f"{place_of(url)}: schema {after} is the newest; nothing to do")
    else:
        typer.echo(f"{place_of(url)}: schema {before or 'none'} → {after}")


def run_stack(stack: Stack, plan: StackPlan) -> None:
    """Run a stack in the foreground, with its workers' logs, until Ctrl-C or SIGTERM.

    Raises: StackRunning, ServiceUnreachable: it did not come up; nothing is left running.
    """
    with _stop_signals(stack):
        try:
            stack.start()
            if stack.stop_requested:
                return
            _announce(
                f"ready: Redis at {place_of(stack.redis_url)}, PostgreSQL at {place_of(stack.database_url)}, "
                f"{plan.workers} {plan.pool} worker(s) with {plan.concurrency} slots each; data in {stack.data_dir}; "
                "Ctrl-C stops"
            )
            if plan.flower_port is not None:
                _announce(f"pages at http://127.0.0.1:{plan.flower_port}/flow in a moment")
            stack.watch()
        finally:
            stack.stop()


@contextmanager
def _stop_signals(stack: Stack) -> Iterator[None]:
    def on_signal(_number: int, _frame: FrameType | None) -> None:
        stack.request_stop()

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, on_signal) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _settings(data_dir: Path | None) -> Settings:
    overrides: dict[str, Any] = {} if data_dir is None else {"data_dir": data_dir}
    return load_settings(**overrides)


def _checked_pool(pool: str) -> str:
    if pool not in POOLS:
        raise WrongUse(f"--pool {pool}: choose one of {', '.join(POOLS)}")
    if pool == "gevent" and _missing("gevent"):
        raise WrongUse("--pool gevent needs the package gevent: pip install 'celery-parallelizer[gevent]'")
    return pool


def _detach(settings: Settings, plan: StackPlan) -> None:
    """Start `up` in a process of its own and return when its stack is ready."""
    folder = prepare_folder(settings.data_dir)
    running = read_record(folder)
    if running is not None:
        raise StackRunning(f"a stack is running in {folder} (process {running.supervisor.pid})")
    command = [
        sys.executable, "-m", "parallelizer", "up", "--workers", str(plan.workers),
        "--concurrency", str(plan.concurrency), "--pool", plan.pool, "--grace", str(plan.grace_seconds),
        "--data-dir", str(folder), *(["--flower", str(plan.flower_port)] if plan.flower_port is not None else []),
    ]  # fmt: skip
    with open_log(folder, "up") as log:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        while True:
            record = read_record(folder)
            if record is not None and record.ready and record.supervisor.pid == child.pid:
                break
            if child.poll() is not None:
                typer.echo(log_tail(log_path(folder, "up")), err=True)
                raise typer.Exit(child.returncode or WRONG_USE)
            time.sleep(0.05)
    except KeyboardInterrupt:
        child.terminate()
        child.wait(READY_SECONDS)
        raise
    typer.echo(f"ready (process {child.pid}); logs in {folder / 'log'}; `parallelizer down` stops it")


def _wait_gone(process: psutil.Process) -> None:
    mark_lost = f"process {process.pid} is still stopping its workers; ask again, or `parallelizer down --now`"
    try:
        process.wait(DOWN_SECONDS)
    except psutil.TimeoutExpired:
        raise ServiceUnreachable(mark_lost) from None


def _show_line(worker: str, line: str) -> None:
    _say(f"{typer.style(worker, fg='cyan')} │ {line}")


def _announce(message: str) -> None:
    _say(typer.style(message, bold=True))


def _say(text: str) -> None:
    # A terminal that was closed must not keep the stack from ending.
    with suppress(OSError):
        typer.echo(text)


def _print_finding(finding: Finding) -> None:
    colour = {Grade.OK: "green", Grade.WARNING: "yellow"}.get(finding.grade, "red")
    typer.echo(f"{typer.style(f'{finding.grade:<11}', fg=colour)} {finding.check}: {finding.message}")
    if finding.remedy:
        typer.echo(f"{'':<11} → {finding.remedy}")


def _missing(package: str) -> bool:
    return find_spec(package) is None
