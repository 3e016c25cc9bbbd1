"""`make bench`: speed and memory, beside plain Celery on the same worker. `python -m tests.performance.bench --help`

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
from tests.performance.chart import to_svg
from tests.performance.comparison import Pair
from tests.performance.counting import Counters, WrongCount
from tests.performance.machine import OthersWatch, describe
from tests.performance.report import Measured, Report
from tests.performance.stack import WorkerLost, bench_stack
from tests.performance.workloads import Workload, full_size, quick_size

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
    picture = options.json.with_suffix(".svg")
    picture.write_text(to_svg(report), encoding="utf-8")
    console.print(f"written to {options.json} and {picture}")
    missed = report.missed()
    for sentence in missed:
        console.print(f"missed: {sentence}", soft_wrap=True)
    return 1 if missed else 0


def measure(workloads: Sequence[Workload], repeats: int | None, *, quick: bool) -> Report:
    """Run workloads on a stack of their own.

    Args: repeats: pairs of each; None: as many as the workload says.
    Raises: WrongCount, WorkerLost; ServiceUnreachable: a server did not start.
    """
    taken_at, begun = datetime.now(UTC), time.monotonic()
    _say("starting servers")
    with bench_stack() as stack, closing(Counters(stack)) as counters:
        machine = describe(stack, counters.database)
        measured = [_measure_one(workload, repeats or workload.repeats, counters) for workload in workloads]
    return Report(taken_at, time.monotonic() - begun, quick, machine, measured)


def _measure_one(workload: Workload, repeats: int, counters: Counters) -> Measured:
    _say(f"{workload.title}: warm-up, worker {workload.worker.title}")
    counters.stack.use(workload.worker)
    workload.warm_up(counters)
    pairs, others = [], OthersWatch()
    for number in range(1, repeats + 1):
        _say(f"{workload.title}: {number} of {repeats}")
        pairs.append(Pair(workload.ours(counters), workload.other(counters)))
    return Measured(workload, pairs, others.share())


def _sizes(*, quick: bool) -> list[Workload]:
    return quick_size() if quick else full_size()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bench", description="Measure the processor beside plain Celery.")
    parser.add_argument(
        "--repeats", type=_positive, help="so many pairs of each workload (default: what suits it, 1 to 5)"
    )
    parser.add_argument(
        "--json",
        type=Path,
        default=RESULTS,
        metavar="FILE",
        help="the report; the chart goes beside it, as .svg (default: %(default)s)",
    )
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
