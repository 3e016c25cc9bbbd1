"""`make bench`: speed beside plain Celery, on one worker in one run. `python -m tests.performance.bench --help`

Exit codes: 0 all goals met (or not judged: --quick), 1 a goal was missed, 2 work was lost or done twice, or the worker
ended, 3 a server did not start, 130 interrupted. Nothing is left behind in any case.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from orchestration.errors import ProcessorError
from tests.performance.comparison import Pair
from tests.performance.counting import Counters, WrongCount
from tests.performance.machine import describe
from tests.performance.report import Measured, Report
from tests.performance.stack import WorkerLost, bench_stack
from tests.performance.workloads import Workload, full_size, quick_size

REPEATS = 3
RESULTS = Path("bench-results/bench.json")
#: Of the table, where the output is no terminal.
WIDTH = 180


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write the report; returns the exit code."""
    options = _parser().parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else WIDTH, highlight=False, markup=False)
    workloads = [each for each in _sizes(quick=options.quick) if each.name in (options.only or [each.name])]
    try:
        report = measure(workloads, options.repeats, quick=options.quick)
    except KeyboardInterrupt:
        _say("interrupted; everything that was started has ended")
        return 130
    except (WrongCount, WorkerLost) as error:
        _say(str(error))
        return 2
    except ProcessorError as error:
        _say(str(error))
        return 3
    report.print_table(console)
    report.write(options.json)
    console.print(f"written to {options.json}")
    missed = report.missed()
    for sentence in missed:
        console.print(f"missed: {sentence}", soft_wrap=True)
    return 1 if missed else 0


def measure(workloads: Sequence[Workload], repeats: int, *, quick: bool) -> Report:
    """Run workloads on a stack of their own, `repeats` pairs of each.

    Raises: WrongCount, WorkerLost; ServiceUnreachable: a server did not start.
    """
    taken_at, begun = datetime.now(UTC), time.monotonic()
    _say("starting servers and a worker")
    with bench_stack() as stack, closing(Counters(stack)) as counters:
        machine = describe(stack, counters.database)
        measured = [_measure_one(workload, repeats, counters) for workload in workloads]
    return Report(taken_at, time.monotonic() - begun, quick, machine, measured)


def _measure_one(workload: Workload, repeats: int, counters: Counters) -> Measured:
    _say(f"{workload.title}: warm-up")
    workload.warm_up(counters)
    pairs = []
    for number in range(1, repeats + 1):
        _say(f"{workload.title}: pair {number} of {repeats}")
        pairs.append(Pair(workload.ours(counters), workload.raw(counters)))
    return Measured(workload, pairs)


def _sizes(*, quick: bool) -> list[Workload]:
    return quick_size() if quick else full_size()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bench", description="Measure the processor beside plain Celery.")
    parser.add_argument(
        "--repeats", type=_positive, default=REPEATS, help="pairs of each workload (default: %(default)s)"
    )
    parser.add_argument("--json", type=Path, default=RESULTS, metavar="FILE", help="the report (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it works; nothing is judged")
    names = [each.name for each in full_size()]
    parser.add_argument("--only", nargs="+", choices=names, help="these workloads alone")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
