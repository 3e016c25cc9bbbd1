"""`parallelizer run`, `status`, `list`: runs of workflows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from orchestration import reports
from orchestration.definition.payload import check_payload
from orchestration.definition.schema import Definition
from orchestration.reports import RunReport
from orchestration.store.workflows import find_version, load_version
from orchestration.vocabulary import RunStatus
from parallelizer.cli.connect import (
    Services,
    read_settings,
    services_for_a_run,
    services_for_reading,
)
from parallelizer.cli.failures import OK, WORKFLOW_FAILED, WrongUse
from parallelizer.cli.follow import Follower, follow_to_the_end
from parallelizer.cli.output import AsJson, console_for, print_json, print_value
from parallelizer.cli.payload import read_payload
from parallelizer.cli.source import PublishedName, read_source
from parallelizer.cli.submit import submit
from parallelizer.cli.wfformat import AsWfFormat, ReplayOptions, Slots, TargetSeconds, TimeScale, run_recording
from parallelizer.cli.words import (
    between,
    counts_in_words,
    error_in_words,
    local_time,
    one_line,
    seconds_in_words,
    style_of,
)
from parallelizer.services.known_actions import load_known_actions

DataDir = Annotated[Path | None, typer.Option(help="Folder of the embedded servers; by default DATA_DIR.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the command line."""
    app.command()(run)
    app.command()(status)
    app.command("list")(list_runs)


def run(  # noqa: PLR0913, PLR0917 - the options of a command
    workflow: Annotated[str, typer.Argument(metavar="FILE|NAME", help="A definition, or a published NAME[@VERSION].")],
    payload: Annotated[str | None, typer.Option(help="A JSON object, @FILE with one, or @- for stdin.")] = None,
    follow: Annotated[bool, typer.Option(help="Show the run until it ends.")] = True,
    wfformat: AsWfFormat = False,
    time_scale: TimeScale = None,
    target_seconds: TargetSeconds = None,
    slots: Slots = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Run a workflow, or repeat a recorded one.

    Exits 0 when it succeeded, 1 when it did not. Uses the services of REDIS_URL and DATABASE_URL, else those of
    `parallelizer up`, else starts a stack for this run. With --json the result is on standard output, and what
    --follow shows on standard error.

    With --wfformat the graph of the recording is run, each task as a sleep as long as it took, and the makespan is
    printed beside the shortest one possible and that of a first-come-first-served schedule. Exits 1 also when a task
    started before one that it waits for had ended.
    """
    settings = read_settings(data_dir)
    load_known_actions(settings)
    options = ReplayOptions(time_scale, target_seconds, slots)
    if wfformat:
        if payload is not None or not follow:
            raise WrongUse(f"a recording has no use for {'--no-follow' if payload is None else '--payload'}")
        run_recording(Path(workflow), options, settings, as_json=as_json)
    options.refuse_without_recording()
    source = read_source(workflow, settings.max_actions)
    values = read_payload(payload, settings.max_payload_bytes)
    if isinstance(source, Definition):
        check_payload(source.payload_schema, values)
    console = console_for(result_is_json=as_json)
    with services_for_a_run(settings) as services:
        if services.own_stack_logs is not None and not follow:
            raise WrongUse("--no-follow needs a stack that stays; start one with `parallelizer up`")
        outline = _outline(source, services)
        check_payload(outline.payload_schema, values)
        result = submit(source, values)
        if not follow:
            _print_started(result.id, outline.name, as_json)
            return
        follower = Follower(services, console, result.id)
        ended = follow_to_the_end(follower, result, outline.name, outline.needs)
    if as_json:
        print_json(ended)
    elif ended["output"] not in (None, {}):
        print_value(console, "output", ended["output"])
    raise typer.Exit(OK if ended["status"] == RunStatus.SUCCEEDED else WORKFLOW_FAILED)


def status(
    flow_session_id: Annotated[str, typer.Argument(metavar="RUN", help="Id of a run, as `list` shows it.")],
    tasks: Annotated[bool, typer.Option("--tasks", help="Show every task.")] = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Show how a run stands."""
    with services_for_reading(read_settings(data_dir)) as services:
        report = reports.status(services.database, services.live, flow_session_id, tasks=tasks)
        failed = [] if tasks else reports.failures(services.database, flow_session_id)
    if as_json:
        print_json(report.to_json())
        return
    console = console_for(result_is_json=False)
    console.print(_facts(report))
    if report.tasks is not None:
        console.print(_task_table(report))
    elif failed:
        console.print("errors", style="bold")
        for task in failed:
            item = "" if task.item is None else f"[{task.item}]"
            text = one_line(f"{task.action}{item} {task.status}: {error_in_words(task.error)}")
            console.print(f"  {text}", markup=False, soft_wrap=True)
    if report.output not in (None, {}):
        print_value(console, "output", report.output)


def list_runs(
    status: Annotated[RunStatus | None, typer.Option(help="Only runs with this status.")] = None,
    workflow: Annotated[str | None, typer.Option(help="Only runs of this workflow.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Most runs shown.")] = 20,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """List runs, the newest first."""
    with services_for_reading(read_settings(data_dir)) as services:
        found = reports.list_runs(services.database, status=status, workflow=workflow, limit=limit)
    if as_json:
        print_json([report.to_json() for report in found])
        return
    if not found:
        print("no such run" if status or workflow else "no run yet; `parallelizer run FILE` starts one")
        return
    table = _table("run", "workflow", "status", "started", "time")
    for report in found:
        name = str(report.status)
        table.add_row(
            report.flow_session_id, Text(f"{report.workflow} {report.version}"), Text(name, style=style_of(name)),
            local_time(report.started_at), _duration(report),
        )  # fmt: skip
    console_for(result_is_json=False).print(table)


@dataclass(frozen=True, slots=True)
class _Outline:
    """What following a run needs of its workflow; for a published one without checking it again."""

    name: str
    needs: Mapping[str, Sequence[str]]
    payload_schema: Mapping[str, object] | None


def _outline(source: Definition | PublishedName, services: Services) -> _Outline:
    if isinstance(source, PublishedName):
        version = find_version(services.database, source.name, source.number)
        stored = load_version(services.database, version.version_id).definition
    else:
        stored = source.to_dict()
    needs = {name: action.get("needs", ()) for name, action in stored["actions"].items()}
    return _Outline(stored["name"], needs, stored.get("payload_schema"))


def _print_started(flow_session_id: str, workflow: str, as_json: bool) -> None:
    if as_json:
        print_json({"flow_session_id": flow_session_id, "workflow": workflow})
    else:
        print(f"{workflow} was started; look at it with: parallelizer status {flow_session_id}")


def _facts(report: RunReport) -> Table:
    table = Table.grid(padding=(0, 3, 0, 0))
    name = str(report.status)
    for word, value in (
        ("run", Text(report.flow_session_id)), ("workflow", Text(f"{report.workflow} {report.version}")),
        ("status", Text(name, style=style_of(name))), ("waits", Text(one_line("; ".join(report.waits_for)))),
        ("tasks", Text(counts_in_words(report.counts))),
        ("started", Text(local_time(report.started_at))), ("finished", Text(local_time(report.finished_at))),
        ("retry of", Text(report.retry_of or "")), ("retried as", Text(report.retried_as or "")),
        ("time", Text(_duration(report))), ("error", Text(one_line(error_in_words(report.error)), style="red")),
    ):  # fmt: skip
        if value.plain:
            table.add_row(Text(word, style="bold"), value)
    return table


def _task_table(report: RunReport) -> Table:
    table = _table("action", "item", "status", "attempt", "worker", "time", "error")
    for task in report.tasks or ():
        name = str(task.status)
        table.add_row(
            Text(task.action), "" if task.item is None else str(task.item), Text(name, style=style_of(name)),
            str(task.attempt), Text(task.worker or ""), between(task.started_at, task.finished_at),
            Text(one_line(error_in_words(task.error), most=120), style="red"),
        )  # fmt: skip
    return table


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    for column in columns:
        table.add_column(
            column, no_wrap=column in ("run", "started"), justify="right" if column in ("item", "time") else "left"
        )
    return table


def _duration(report: RunReport) -> str:
    return "" if report.duration_seconds is None else seconds_in_words(report.duration_seconds)
