"""How a running flow session looks: a live tree on a terminal, lines of text elsewhere, and the final table.

Everything here draws a `RunProgress`; nothing asks a service for anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from orchestration.reports import ActionProgress, RunProgress
from orchestration.vocabulary import TaskStatus
from parallelizer.cli.tree import TreeLine, arrange
from parallelizer.cli.words import SIGNS, between, seconds_in_words, style_of

BAR_WIDTH = 24
#: A rate is shown once it has been measured over this long; before, it jumps.
STEADY_SECONDS = 0.5
#: Above so many actions a line for each is no picture any more, and those of ten thousand are a flood.
MOST_LINES = 300


class LiveView:
    """The live tree of one run."""

    def __init__(self, workflow: str, needs: Mapping[str, Sequence[str]]) -> None:
        self._workflow = workflow
        self._lines = arrange(needs)

    def draw(self, progress: RunProgress, now: datetime, height: int) -> RenderableType:
        """Draw the run as it is.

        Args: now: UTC. height: lines there is room for; what does not fit is summed up in one line.
        """
        actions = {action.name: action for action in progress.actions}
        shown, left_out = fit(self._lines, actions, max(3, height - 3))
        table = Table.grid(padding=(0, 2, 0, 0))
        for line in shown:
            action = actions[line.name]
            table.add_row(_label(line, action), _bar(action), _counts(action), _times(action, now))
        parts: list[RenderableType] = [_header(self._workflow, progress, now), table]
        if left_out:
            parts.append(Text(f"  … {len(left_out):,} more: {_summed(left_out)}", style="dim"))
        return Group(*parts)


class PlainLines:
    """The same as lines of text, each printed once: for files, pipes and logs of other programs."""

    def __init__(self) -> None:
        self._said: dict[str, tuple[str, int]] = {}
        self._tenth = 0

    def changes(self, progress: RunProgress) -> list[str]:
        """What has changed since the last call: each new status of an action, each further tenth of a `for_each`.

        Of a large graph only each further tenth of its actions is told.
        """
        if len(progress.actions) > MOST_LINES:
            return self._further_tenth(progress.actions)
        lines = []
        for action in progress.actions:
            tenth = 10 * settled(action) // action.size if action.size else 0
            now = (str(action.status), tenth)
            before = self._said.get(action.name, (str(TaskStatus.PENDING), 0))
            if now == before or action.status == TaskStatus.PENDING:
                continue
            self._said[action.name] = now
            if action.size is not None and settled(action):
                lines.append(f"{action.name}: {action.status}, {_counts(action).plain}")
            else:
                lines.append(f"{action.name}: {action.status}")
        return lines

    def _further_tenth(self, actions: Sequence[ActionProgress]) -> list[str]:
        ended = sum(action.status.is_final for action in actions)
        tenth = 10 * ended // len(actions)
        if tenth == self._tenth:
            return []
        self._tenth = tenth
        return [f"{ended:,} of {len(actions):,} actions have ended: {_summed(actions)}"]


def final_table(progress: RunProgress) -> Table:
    """One row for each action: how it ended, its items, how long it took.

    A large graph has rows only for those that did not succeed, failures first; the others are summed up in one.
    """
    shown, left_out = list(progress.actions), list[ActionProgress]()
    if len(shown) > MOST_LINES:
        by_interest = sorted(progress.actions, key=_interest)
        shown = [action for action in by_interest if action.status != TaskStatus.SUCCEEDED][:MOST_LINES]
        left_out = by_interest[len(shown) :]
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    for column, justify in (("action", "left"), ("status", "left"), ("items", "right"), ("failed", "right")):
        table.add_column(column, justify=justify)  # type: ignore[arg-type]
    table.add_column("time", justify="right")
    for action in shown:
        status = str(action.status)
        items = f"{action.size:,}" if action.size is not None else ""
        failed = f"{action.failed:,}" if action.size is not None and action.failed else ""
        table.add_row(
            Text(action.name), Text(status, style=style_of(status)), items, Text(failed, style="red"),
            between(action.started_at, action.finished_at),
        )  # fmt: skip
    if left_out:
        table.add_row(Text(f"… {len(left_out):,} more", style="dim"), Text(_summed(left_out), style="dim"))
    return table


def settled(action: ActionProgress) -> int:
    return action.succeeded + action.failed + action.skipped


def remaining(action: ActionProgress, now: datetime) -> timedelta | None:
    """How long a running `for_each` will still take at the rate it has had, or None where that can't be said."""
    done = settled(action)
    if action.status != TaskStatus.RUNNING or not action.size or not done or action.started_at is None:
        return None
    elapsed = now - action.started_at
    if elapsed.total_seconds() < STEADY_SECONDS:
        return None
    return elapsed / done * (action.size - done)


def fit(
    lines: Sequence[TreeLine], actions: Mapping[str, ActionProgress], height: int
) -> tuple[list[TreeLine], list[ActionProgress]]:
    """Choose the lines there is room for: what runs and what failed first, then what waits, as the tree has them."""
    lines = [line for line in lines if line.name in actions]
    if len(lines) <= height:
        return list(lines), []
    by_interest = sorted(range(len(lines)), key=lambda place: (_interest(actions[lines[place].name]), place))
    chosen = set(by_interest[: height - 1])
    left_out = [actions[line.name] for place, line in enumerate(lines) if place not in chosen]
    return [line for place, line in enumerate(lines) if place in chosen], left_out


def _interest(action: ActionProgress) -> int:
    order = (TaskStatus.RUNNING, TaskStatus.FAILED, TaskStatus.TIMED_OUT, TaskStatus.PENDING)
    if action.status == TaskStatus.SUCCEEDED:
        return len(order) + 1
    return order.index(action.status) if action.status in order else len(order)


def _header(workflow: str, progress: RunProgress, now: datetime) -> Text:
    status = str(progress.status)
    header = Text.assemble((workflow, "bold"), "  ", (status, style_of(status)))
    if progress.started_at is not None:
        end = progress.finished_at or now
        header.append(f"  {seconds_in_words(max(0.0, (end - progress.started_at).total_seconds()))}")
    waits = [(left, action.name) for action in progress.actions if (left := remaining(action, now)) is not None]
    if waits:
        longest, name = max(waits)
        header.append(f", about {_rounded(longest)} left in {name}", style="dim")
    return header


def _rounded(time: timedelta) -> str:
    """An estimate, no more exact than it is."""
    seconds = max(1, round(time.total_seconds()))
    return f"{seconds} s" if seconds < 60 else seconds_in_words(seconds)


def _label(line: TreeLine, action: ActionProgress) -> Text:
    sign, style = SIGNS[str(action.status)]
    return Text.assemble((line.prefix, "dim"), (sign, style), " ", line.name)


def _bar(action: ActionProgress) -> RenderableType:
    if action.size is None:
        return Text(str(action.status), style=style_of(str(action.status)))
    style = "red" if action.failed else "cyan"
    return ProgressBar(
        total=max(action.size, 1), completed=settled(action) if action.size else 1, width=BAR_WIDTH,
        complete_style=style, finished_style="red" if action.failed else "green",
    )  # fmt: skip


def _counts(action: ActionProgress) -> Text:
    if action.size is None:
        return Text()
    text = Text(f"{settled(action):,}/{action.size:,}")
    for count, word, style in (
        (action.running, "running", "cyan"), (action.failed, "failed", "red"), (action.skipped, "skipped", "dim"),
    ):  # fmt: skip
        if count:
            text.append(f"  {count:,} {word}", style=style)
    return text


def _times(action: ActionProgress, now: datetime) -> Text:
    text = Text(between(action.started_at, action.finished_at or now), style="dim")
    left = remaining(action, now)
    if left is not None and action.started_at is not None:
        rate = settled(action) / (now - action.started_at).total_seconds()
        text.append(f"  {rate:,.0f}/s")
    return text


def _summed(actions: Sequence[ActionProgress]) -> str:
    counts: dict[str, int] = {}
    for action in actions:
        counts[str(action.status)] = counts.get(str(action.status), 0) + 1
    return ", ".join(f"{count:,} {status}" for status, count in counts.items())
