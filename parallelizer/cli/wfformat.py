"""`run --wfformat` and `validate --wfformat`: recorded executions in WfFormat, repeated and measured.

`runs.py` and `workflows.py` have the commands; what they do with a recording is here.
"""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from config.settings import Settings
from orchestration import reports
from orchestration.definition.loader import load_definition
from orchestration.definition.schema import Definition
from orchestration.errors import DefinitionError
from orchestration.plan.compile import compile_plan
from orchestration.vocabulary import RunStatus
from parallelizer.cli.connect import Services, services_for_a_run
from parallelizer.cli.failures import OK, WORKFLOW_FAILED, WRONG_USE, WrongUse
from parallelizer.cli.follow import Follower, follow_to_the_end
from parallelizer.cli.output import console_for, print_json
from parallelizer.cli.submit import submit
from parallelizer.cli.words import one_line, seconds_in_words
from parallelizer.wfformat.comparison import Comparison, Interval, compare
from parallelizer.wfformat.conversion import Replay, action_names, to_definition
from parallelizer.wfformat.reader import read_recording
from parallelizer.wfformat.recording import Recording
from parallelizer.wfformat.schedule import TABLE_SLOTS, first_come_first_served_seconds, lower_bound_seconds
from parallelizer.wfformat.shape import Shape, shape_of

DEFAULT_SLOTS = 10
#: How long PostgreSQL may take to learn of a further task that has ended, seconds; then it is taken for lost.
RECORDED_SECONDS = 15.0
LOOK_SECONDS = 0.1

AsWfFormat = Annotated[bool, typer.Option("--wfformat", help="FILE is a recorded execution in WfFormat (.json[.gz]).")]
TimeScale = Annotated[float | None, typer.Option(help="With --wfformat: seconds for each recorded one.  [default: 1]")]
TargetSeconds = Annotated[
    float | None, typer.Option(help="With --wfformat: choose the time scale for a run of about so many seconds.")
]
Slots = Annotated[
    int | None,
    typer.Option(min=1, max=10_000, help=f"With --wfformat: most tasks at once.  [default: {DEFAULT_SLOTS}]"),
]


@dataclass(frozen=True, slots=True)
class ReplayOptions:
    """The options of `run` that only a recording has, as they were given."""

    time_scale: float | None
    target_seconds: float | None
    slots: int | None

    def refuse_without_recording(self) -> None:
        """Raise WrongUse if one is given though what is run is no recording."""
        for option, value in (
            ("--time-scale", self.time_scale), ("--target-seconds", self.target_seconds), ("--slots", self.slots),
        ):  # fmt: skip
            if value is not None:
                raise WrongUse(f"{option} is for a recorded execution; it goes with --wfformat")

    def replay_of(self, recording: Recording) -> Replay:
        """How to repeat a recording.

        Raises: WrongUse: the options contradict each other, or the recording.
        """
        slots = DEFAULT_SLOTS if self.slots is None else self.slots
        for option, value in (("--time-scale", self.time_scale), ("--target-seconds", self.target_seconds)):
            if value is not None and not (math.isfinite(value) and value > 0):
                raise WrongUse(f"{option} is {value:g}; it must be more than 0")
        if self.target_seconds is None:
            return Replay(1.0 if self.time_scale is None else self.time_scale, slots)
        if self.time_scale is not None:
            raise WrongUse("--time-scale and --target-seconds say the same thing in two ways; leave one out")
        takes = first_come_first_served_seconds(recording, slots)
        if takes == 0:
            raise WrongUse("--target-seconds can't be reached: all tasks of the recording took 0 s")
        return Replay(self.target_seconds / takes, slots)


def validate_recording(file: Path, settings: Settings, *, as_json: bool) -> None:
    """Check a recording, and that it makes a workflow; print its figures."""
    try:
        recording = read_recording(file, settings.max_actions)
        shape = shape_of(recording)
        # how long a branch may take depends on the time scale, which is chosen by the run
        definition = _definition(recording, shape, Replay(0.0, DEFAULT_SLOTS), settings)
        compile_plan(definition, max_actions=settings.max_actions)
    except DefinitionError as error:
        if not as_json:
            raise
        print_json({"valid": False, "problems": [asdict(problem) for problem in error.problems]})
        raise typer.Exit(WRONG_USE) from None
    schedule = [
        {
            "slots": slots, "bound_seconds": lower_bound_seconds(shape, slots),
            "first_come_first_served_seconds": first_come_first_served_seconds(recording, slots),
        }
        for slots in TABLE_SLOTS
    ]  # fmt: skip
    if as_json:
        print_json({
            "valid": True, "workflow": definition.name, "schema_version": recording.schema_version,
            **asdict(shape),
            "recorded_makespan_seconds": recording.makespan_seconds, "schedule": schedule, "problems": [],
        })  # fmt: skip
        return
    console = console_for(result_is_json=False)
    console.print(f"{file}: {one_line(recording.name)} is right: {_size(shape)}", markup=False, soft_wrap=True)
    console.print(_figures(recording, shape))
    table = _table("slots", "bound", "first come, first served")
    for row in schedule:
        table.add_row(*(f"{value:,}" if name == "slots" else _seconds(value) for name, value in row.items()))
    console.print(table)


def run_recording(file: Path, options: ReplayOptions, settings: Settings, *, as_json: bool) -> None:
    """Run the graph of a recording, each task a sleep, and print its makespan beside what is possible.

    Exits: 1 when the workflow failed, or an edge was not respected.
    """
    recording = read_recording(file, settings.max_actions)
    replay = options.replay_of(recording)
    shape, names = shape_of(recording), action_names(recording)
    definition = _definition(recording, shape, replay, settings, names)
    console = console_for(result_is_json=as_json)
    takes = first_come_first_served_seconds(recording, replay.slots) * replay.time_scale
    said = f"{_size(shape)}, {replay.slots:,} slots, 1 s as {replay.time_scale:.4g} s: about {seconds_in_words(takes)}"
    console.print(f"{one_line(recording.name)}: {said}", markup=False, soft_wrap=True)
    with services_for_a_run(settings) as services:
        result = submit(definition, {})
        follower = Follower(services, console, result.id)
        needs = {name: action.needs for name, action in definition.actions.items()}
        ended = follow_to_the_end(follower, result, definition.name, needs)
        intervals = _recorded_intervals(services, str(ended["flow_session_id"]), recording, names)
    comparison = compare(recording, shape, replay, intervals)
    if as_json:
        renamed = {task: name for task, name in names.items() if task != name}
        print_json({**ended, "comparison": comparison.to_json(), "renamed": renamed})
    else:
        _print_comparison(console, comparison)
    good = ended["status"] == RunStatus.SUCCEEDED and comparison.respects_every_edge
    raise typer.Exit(OK if good else WORKFLOW_FAILED)


def _definition(
    recording: Recording, shape: Shape, replay: Replay, settings: Settings, names: dict[str, str] | None = None
) -> Definition:
    source = to_definition(recording, shape, replay, action_names(recording) if names is None else names)
    return load_definition(source, max_actions=settings.max_actions)


def _recorded_intervals(
    services: Services, flow_session_id: str, recording: Recording, names: dict[str, str]
) -> dict[str, Interval]:
    """When each task ran, by its id in the recording, once PostgreSQL has them all or gets no more."""
    known, until = -1, 0.0
    while True:
        report = reports.status(services.database, services.live, flow_session_id, tasks=True)
        times = {task.action: (task.started_at, task.finished_at) for task in report.tasks or ()}
        found: dict[str, Interval] = {}
        for task in recording.tasks:
            started_at, finished_at = times.get(names[task.id], (None, None))
            if started_at is not None and finished_at is not None:
                found[task.id] = Interval(started_at, finished_at)
        if len(found) == len(recording.tasks):
            return found
        if len(found) > known:
            known, until = len(found), time.monotonic() + RECORDED_SECONDS
        elif time.monotonic() > until or report.status != RunStatus.SUCCEEDED:
            return found
        time.sleep(LOOK_SECONDS)


def _print_comparison(console: Console, comparison: Comparison) -> None:
    slots = comparison.replay.slots
    table = _table("", "seconds", "makespan is")
    rows: tuple[tuple[str, float | None], ...] = (
        ("makespan", comparison.makespan_seconds),
        ("bound", comparison.bound_seconds),
        ("first come, first served", comparison.first_come_first_served_seconds),
    )
    for place, (word, seconds) in enumerate(rows):
        ratio = comparison.ratio_to(seconds) if place and seconds is not None else None
        table.add_row(word, "–" if seconds is None else _seconds(seconds), "" if ratio is None else f"{ratio:.3f} ×")
    console.print(table)
    console.print(f"at most {comparison.most_at_once:,} of {slots:,} slots were used at the same time")
    if comparison.unrecorded:
        console.print(f"{comparison.unrecorded:,} tasks have no recorded start and end", style="red")
    for each in comparison.violations[:5]:
        early = f"✘ {each.after} started {each.seconds:.6f} s before {each.before} had ended"
        console.print(Text(one_line(early), style="red"), soft_wrap=True)
    count, edges = len(comparison.violations), comparison.shape.edges
    console.print(f"{count:,} of {edges:,} edges violated" if count else f"all {edges:,} edges were respected")


def _figures(recording: Recording, shape: Shape) -> Table:
    table = Table.grid(padding=(0, 3, 0, 0))
    rows = [
        ("version", recording.schema_version), ("roots", f"{shape.roots:,}"), ("leaves", f"{shape.leaves:,}"),
        ("depth", f"{shape.depth:,}"), ("width", f"{shape.width:,}"), ("branches", f"{shape.branches:,}"),
        ("longest task", _seconds(shape.longest_task_seconds)), ("all tasks", _seconds(shape.total_seconds)),
        ("critical path", _seconds(shape.critical_path_seconds)),
    ]  # fmt: skip
    if recording.makespan_seconds is not None:
        rows.append(("recorded makespan", _seconds(recording.makespan_seconds)))
    for word, value in rows:
        table.add_row(Text(word, style="bold"), value)
    return table


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    for column in columns:
        table.add_column(column, justify="right" if column else "left")
    return table


def _seconds(value: Any) -> str:
    return f"{value:,.3f} s"


def _size(shape: Shape) -> str:
    return f"{shape.tasks:,} tasks, {shape.edges:,} edges"
