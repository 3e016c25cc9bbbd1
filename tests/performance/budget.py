"""`make budget`: where the microseconds of an item and of a step go. `python -m tests.performance.budget --help`

Prints tables in Markdown, as they stand in docs/performance.md. Exit codes: 0; 3 a server did not start; 130
interrupted.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass

from orchestration.engine.costs import MOST_ITEMS
from orchestration.errors import ProcessorError
from orchestration.state.client import MOST_DUE
from tests.performance.machine import OthersWatch
from tests.performance.stack import NAMESPACE, bench_stack
from tests.performance.task_cost import Size, TaskCost, expression_costs, task_cost
from tests.performance.unit_cost import ItemCost, StepCost, item_cost, step_cost
from tests.support.stepping import SteppingEngine

FULL = Size(rounds=15, calls=5000, items=5000, single_items=1000, steps=1000)
QUICK = Size(rounds=1, calls=100, items=600, single_items=50, steps=50)
EXPRESSIONS = {
    "path": "${{ item.sku }}",
    "text": "order ${{ item.sku }} of ${{ item_index }}",
    "cel": "${{ item.count * 2 + 1 }}",
}


@dataclass(frozen=True, slots=True)
class Line:
    """A row of a table: a piece, and its µs in both ways."""

    piece: str
    before: float
    after: float

    @property
    def cells(self) -> tuple[str, str, str]:
        return self.piece, _cell(self.before), _cell(self.after)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; returns the exit code."""
    parser = argparse.ArgumentParser(prog="budget", description="Measure the pieces of an item and of a step.")
    parser.add_argument("--quick", action="store_true", help="a moment each, to see that it works")
    size = QUICK if parser.parse_args(arguments).quick else FULL
    try:
        text = measure(size)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; everything that was started has ended\n")
        return 130
    except ProcessorError as error:
        sys.stderr.write(f"{error}\n")
        return 3
    sys.stdout.write(text)
    return 0


def measure(size: Size) -> str:
    """The tables.

    Raises: ServiceUnreachable: a server did not start.
    """
    load = os.getloadavg()[0]
    with bench_stack() as stack, closing(SteppingEngine(stack.redis_url, stack.database_url, NAMESPACE)) as engine:
        others = OthersWatch()
        task = task_cost(engine, size)
        expressions = expression_costs(engine, size, EXPRESSIONS)
        alone, together = item_cost(engine, size, 1), item_cost(engine, size, MOST_ITEMS)
        steps = step_cost(engine, size, MOST_DUE)
        share = others.share()
    items = ("µs for an item", "claimed alone", f"in a chunk of {MOST_ITEMS}")
    parts = [
        *_table(items, (line.cells for line in item_lines(task, alone, together))),
        "",
        *_table(
            ("µs for a step", "each reply awaited", "written behind"), (line.cells for line in step_lines(task, steps))
        ),
        "",
        *_table(
            ("µs more, for an input", ""),
            ((f"`{EXPRESSIONS[name]}`", _cell(cost)) for name, cost in expressions.items()),
        ),
        "",
        f"Medians of {size.rounds} rounds; load before {load:.2f}, other programs used {100 * share:.0f} % meanwhile.",
        "",
    ]
    return "\n".join(parts)


def item_lines(task: TaskCost, alone: ItemCost, together: ItemCost) -> list[Line]:
    """What an item that does nothing costs; the lines of each process add up to its total."""
    both = (alone, together)
    own = task.whole + task.row
    settled = [each.process + each.settle.client + each.settle.script + each.settle.waiting for each in both]
    return [
        *_task_lines(task),
        Line("chunk: taken, watched, result kept", *(max(0.0, each.process - own) for each in both)),
        Line("settle and claim: the client's part", *(each.settle.client for each in both)),
        Line("settle and claim: the script in Redis", *(each.settle.script for each in both)),
        Line("settle and claim: waiting besides", *(each.settle.waiting for each in both)),
        Line("**in the worker's process, until it is settled**", *settled),
        Line("updater: reading and removing entries", *(each.record.channel for each in both)),
        Line("updater: parsing rows", *(each.record.parse for each in both)),
        Line("updater: the statement", *(each.record.statement for each in both)),
        Line("PostgreSQL", *(each.record.postgresql for each in both)),
        Line("**in the upkeep process, until it is recorded**", *(each.record.whole for each in both)),
    ]


def step_lines(task: TaskCost, steps: StepCost) -> list[Line]:
    """What a step that does nothing costs, in the middle of a linear branch."""
    awaited, behind = steps.awaited, steps.behind
    # measured whole with checkpoints written behind; with each reply awaited, only these would be different
    rest = max(0.0, steps.process - task.whole - task.row - behind.client)
    own = task.whole + task.row + rest
    return [
        *_task_lines(task),
        Line("branch: watched, result kept, counted", rest, rest),
        Line("checkpoint: the client's part, its row as JSON", awaited.client, behind.client),
        Line("checkpoint: the script in Redis (written behind: meanwhile)", awaited.script, behind.script),
        Line("checkpoint: waiting besides", awaited.waiting, steps.waiting),
        Line(
            "**in the worker's process, until its end is kept**",
            own + awaited.client + awaited.script + awaited.waiting, own + behind.client + steps.waiting,
        ),
    ]  # fmt: skip


def _task_lines(task: TaskCost) -> list[Line]:
    pieces = {
        "inputs, when there are none": task.inputs,
        "the call of the action": task.call,
        "its time limit: timer and signals": task.limit,
        "the task around it: rule, checks, result": task.rest,
        "its row": task.row,
    }
    return [Line(name, cost, cost) for name, cost in pieces.items()]


def _table(head: tuple[str, ...], lines: Iterable[tuple[str, ...]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (head, ("---",) * len(head), *lines)]


def _cell(value: float) -> str:
    return f"{value:.1f}" if value >= 0.95 else f"{value:.2f}"


if __name__ == "__main__":
    sys.exit(main())
