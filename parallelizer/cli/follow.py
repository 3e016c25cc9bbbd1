"""Follows one run to its end: asks the reports how far it is, draws it, and reads the result from Celery."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from typing import Any, Protocol

import typer
from rich.console import Console
from rich.live import Live
from rich.text import Text

from orchestration import reports
from orchestration.reports import RunProgress, TaskReport
from orchestration.vocabulary import TaskStatus
from parallelizer.cli.connect import Services
from parallelizer.cli.failures import INTERRUPTED
from parallelizer.cli.view import LiveView, PlainLines, final_table
from parallelizer.cli.words import counts_in_words, error_in_words, one_line, seconds_in_words, style_of

#: Between two looks, seconds: short at first, since most workflows take milliseconds, then ten times a second.
FIRST_LOOK_SECONDS, LOOK_SECONDS = 0.01, 0.1
#: Looking takes longer the more actions there are: at most this share of the time, so that the run has the rest.
LOOKING_SHARE = 0.05
#: Lines of text appear less often than a picture changes.
PLAIN_LOOK_SECONDS = 0.5
#: Errors shown while the run goes on; the rest is counted, and `status --tasks` lists them all.
MOST_ERRORS = 20
#: Statuses of tasks that come with an error.
FAILURES = (TaskStatus.FAILED, TaskStatus.TIMED_OUT)
#: A run that no worker has taken up after this long, seconds, is worth a remark.
PATIENCE_SECONDS = 5.0
#: How long the end of a run may take to reach PostgreSQL before the table is printed as it is, seconds.
RECORDED_SECONDS = 5.0


class Result(Protocol):
    """What is used of Celery's `AsyncResult`."""

    def ready(self) -> bool: ...
    def get(self, timeout: float | None = ...) -> Any: ...


class Follower:
    """Shows one run on one console."""

    def __init__(self, services: Services, console: Console, flow_session_id: str) -> None:
        self._services = services
        self._console = console
        self._id = flow_session_id
        self._errors_shown: set[tuple[str, int | None]] = set()

    def until_ready(self, result: Result, workflow: str, needs: Mapping[str, Sequence[str]]) -> dict[str, Any]:
        """Show the run until its result is there.

        Args: needs: each action's direct predecessors.
        Returns: the result of `run_workflow`. Raises: what the task raised.
        """
        live_view, plain = LiveView(workflow, needs), PlainLines()
        started = time.monotonic()
        next_look, wait, remarked = started, FIRST_LOOK_SECONDS, False
        with ExitStack() as stack:
            live = (
                Live(console=self._console, auto_refresh=False, transient=True) if self._console.is_terminal else None
            )
            if live is not None:
                stack.enter_context(live)
            while not result.ready():
                time.sleep(wait)
                wait = min(LOOK_SECONDS, wait * 2)
                if time.monotonic() < next_look:
                    continue
                began = time.monotonic()
                next_look = began + (PLAIN_LOOK_SECONDS if live is None else wait)
                progress = self._progress()
                if progress is None:
                    if not remarked and time.monotonic() - started > PATIENCE_SECONDS:
                        remarked = True
                        self._console.print("No worker has taken up the run yet; does one run? (parallelizer doctor)")
                    continue
                self._print_new_errors(progress)
                if live is not None:
                    live.update(live_view.draw(progress, datetime.now(UTC), self._console.height), refresh=True)
                else:
                    self._print_lines(plain.changes(progress))
                now = time.monotonic()
                next_look = max(next_look, now + (now - began) * (1 / LOOKING_SHARE - 1))
        ended: dict[str, Any] = result.get(timeout=PATIENCE_SECONDS)
        return ended

    def print_end(self, ended: Mapping[str, Any]) -> None:
        """Print how the run ended: the errors not shown yet, a row for each action, and one line."""
        until = time.monotonic() + RECORDED_SECONDS
        progress = self._progress()
        while progress is not None and not progress.recorded and time.monotonic() < until:
            time.sleep(LOOK_SECONDS / 2)
            progress = self._progress()
        if any(ended["counts"].get(status) for status in FAILURES):
            self._print_errors()
        if progress is not None:
            self._console.print(final_table(progress))
        self._console.print(summary_line(ended), soft_wrap=True)

    @contextmanager
    def interrupts_explained(self) -> Iterator[None]:
        """On Ctrl-C say what becomes of the run, and end this command only."""
        try:
            yield
        except KeyboardInterrupt:
            if self._services.own_stack_logs is None:
                said = f"The run goes on; look at it with: parallelizer status {self._id}"
            else:
                said = (
                    f"Stopping the stack that was started for this run, and the run {self._id} with it; "
                    "for runs that go on without this command start `parallelizer up` first"
                )
            self._console.print(said, markup=False, soft_wrap=True)
            raise typer.Exit(INTERRUPTED) from None

    def _progress(self) -> RunProgress | None:
        return reports.progress(self._services.database, self._services.live, self._id)

    def _print_new_errors(self, progress: RunProgress) -> None:
        # A `for_each` that failed has an error of its own beside those of its items.
        whole = sum(action.size is not None and action.status in FAILURES for action in progress.actions)
        failed = sum(action.failed for action in progress.actions) + whole
        if len(self._errors_shown) < min(failed, MOST_ERRORS):
            self._print_errors()

    def _print_errors(self) -> None:
        """Print the errors not printed yet."""
        for task in reports.failures(self._services.database, self._id, limit=MOST_ERRORS):
            if (task.action, task.item) not in self._errors_shown:
                self._errors_shown.add((task.action, task.item))
                self._console.print(error_line(task), soft_wrap=True)
                if len(self._errors_shown) == MOST_ERRORS:
                    said = f"… further errors: parallelizer status {self._id} --tasks"
                    self._console.print(said, markup=False, soft_wrap=True)
                    return

    def _print_lines(self, lines: Sequence[str]) -> None:
        for line in lines:
            self._console.print(line, markup=False, soft_wrap=True)


def follow_to_the_end(
    follower: Follower, result: Result, workflow: str, needs: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
    """Show a run until it has ended, and how it ended.

    Args: needs: each action's direct predecessors.
    Returns: the result of `run_workflow`. Raises: what the task raised; typer.Exit: Ctrl-C ended this command.
    """
    with follower.interrupts_explained():
        ended = follower.until_ready(result, workflow, needs)
        follower.print_end(ended)
    return ended


def error_line(task: TaskReport) -> Text:
    """One failed task in a line."""
    name = task.action if task.item is None else f"{task.action}[{task.item}]"
    sign = Text(f"✘ {name} ", style="red")
    return sign.append(one_line(f"{task.status}: {error_in_words(task.error)}"), style="default")


def summary_line(ended: Mapping[str, Any]) -> Text:
    """The result of a run in one line."""
    status, counts = str(ended["status"]), counts_in_words(ended["counts"])
    duration = ended["duration_seconds"]
    took = f" in {seconds_in_words(duration)}" if duration is not None else ""
    line = Text.assemble((str(ended["workflow"]), "bold"), f" {ended['version']}: ", (status, style_of(status)), took)
    return line.append(f" ({counts or 'nothing ran'})  {ended['flow_session_id']}")
