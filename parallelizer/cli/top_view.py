"""How the fleet looks on a terminal. Pure."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from orchestration.reports.fleet import FleetReport, Rates
from parallelizer.cli.words import one_line, seconds_in_words, style_of

#: Lines that a part has at least when the terminal is low; what does not fit is counted.
LEAST_LINES = 3
#: Characters of a run's id.
ID_COLUMNS = 36


def draw(report: FleetReport, rates: Rates | None, height: int) -> RenderableType:
    """The fleet: a line of sums, then queues, workers, limits and runs.

    Args: height: lines that there are.
    """
    queues, workers, limits, runs = _queues(report), _workers(report), _limits(report), _runs(report)
    left = max(4 * LEAST_LINES, height - 10)
    parts: list[RenderableType] = [_sums(report, rates)]
    shares = ((queues, 0.15), (workers, 0.25), (limits, 0.2), (runs, 1.0))
    for (columns, rows), share in shares:
        if rows:
            room = max(LEAST_LINES, int(left * share))
            parts += ["", _table(columns, rows, room)]
            left -= min(len(rows), room)
    return Group(*parts)


Rows = tuple[tuple[str, ...], list[list[Text | str]]]


def _sums(report: FleetReport, rates: Rates | None) -> Text:
    state = report.state
    slots, busy = sum(one.slots for one in state.workers), sum(one.busy for one in state.workers)
    line = Text.assemble(
        ("workers ", "bold"), f"{len(state.workers)}   ", ("slots ", "bold"), f"{busy} of {slots} busy   ",
        ("runs ", "bold"), f"{state.sessions_open:,} open, {state.sessions_queued:,} queued",
    )  # fmt: skip
    if rates is not None:
        line.append(f"   {rates.tasks:,.0f} tasks/s, {rates.runs:,.1f} runs/s")
    if state.status_entries:
        style = "red" if state.status_is_full else "dim"
        full = ": full, nothing begins" if state.status_is_full else ""
        line.append(f"   {state.status_entries:,} updates wait for PostgreSQL{full}", style=style)
    return line


def _queues(report: FleetReport) -> Rows:
    rows: list[list[Text | str]] = []
    for queue in report.state.queues:
        counts = queue.counts
        if counts.slots or counts.runners or counts.waiting:
            style = "red" if counts.waiting and not counts.slots else "yellow" if counts.waiting else ""
            waiting = Text(f"{counts.waiting:,}", style=style)
            rows.append([Text(one_line(queue.name, 40)), f"{counts.slots:,}", f"{counts.runners:,}", waiting])
    return ("queue", "slots", "in flight", "runs waiting"), rows


def _workers(report: FleetReport) -> Rows:
    rows: list[list[Text | str]] = []
    for worker in report.state.workers:
        left = worker.lease_left_seconds
        lease = Text(f"over for {seconds_in_words(-left)}" if left < 0 else seconds_in_words(left))
        if left < 0:
            lease.stylize("red")
        queues = Text(one_line(", ".join(worker.queues), 40))
        rows.append([Text(one_line(worker.name, 48)), queues, f"{worker.busy}/{worker.slots}", lease])
    return ("worker", "queues", "busy", "lease"), rows


def _limits(report: FleetReport) -> Rows:
    rows: list[list[Text | str]] = []
    for limit in sorted(report.limits, key=lambda one: (-one.waiting, one.name)):
        if limit.limit is not None or limit.waiting:
            wait = limit.longest_wait_seconds
            waiting = Text(f"{limit.waiting:,}", style="yellow" if limit.waiting else "")
            rows.append(
                [Text(one_line(limit.name, 48)), f"{limit.in_use:,}/{limit.limit or '-'}", waiting,
                 "" if wait is None else seconds_in_words(wait)]
            )  # fmt: skip
    return ("limit", "in use", "waiting", "longest wait"), rows


def _runs(report: FleetReport) -> Rows:
    rows: list[list[Text | str]] = [
        [
            Text(one_line(run.workflow, 30)), Text(run.flow_session_id), Text(run.status, style=style_of(run.status)),
            f"{run.in_use}/{run.limit}", f"{run.ready:,}", f"{run.deferred:,}", f"{run.open_branches:,}",
            seconds_in_words(run.open_seconds),
        ]
        for run in report.state.sessions
    ]  # fmt: skip
    return ("workflow", "run", "status", "at work", "ready", "waiting", "open", "since"), rows


def _table(columns: tuple[str, ...], rows: list[list[Text | str]], room: int) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    for column in columns:
        left = column in ("queue", "worker", "queues", "limit", "workflow", "run", "status")
        # an id that is cut is of no use
        least = ID_COLUMNS if column == "run" else None
        table.add_column(column, justify="left" if left else "right", no_wrap=True, min_width=least)
    shown = rows if len(rows) <= room else rows[: room - 1]
    for row in shown:
        table.add_row(*row)
    if len(shown) < len(rows):
        table.add_row(Text(f"… {len(rows) - len(shown):,} more", style="dim"))
    return table
