"""`make chaos`: runs a seeded mix of workflows while faults come by a seeded schedule, then audits what was promised.

`python -m tests.chaos.campaign --help`. Exit codes: 0 every promise was kept; 1 one was not (the seed is printed: the
same seed plans the same faults and runs, though not to the millisecond); 3 a server did not start; 130 interrupted.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psycopg2

from orchestration.errors import ProcessorError
from orchestration.state.keys import KeySpace
from tests.chaos.audit import SHOWN, Execution, Findings, audit, executions
from tests.chaos.faults import Fault, Injected, Schedule
from tests.chaos.mix import BY_NAME, FAULTS
from tests.chaos.network import CABLE, CABLES
from tests.chaos.scraping import scraping
from tests.chaos.stack import NAMESPACE, ChaosStack, chaos_stack
from tests.chaos.workload import Sender, ended_runs, kinds, publish
from tests.support import hosts
from tests.support.records import live_keys

#: Between two faults, seconds.
LEAST_PAUSE, MOST_PAUSE = 0.7, 3.0
LOOK_SECONDS: Final = 0.1
#: For everything to end when no fault comes any more: leases, waits for an outage, and what waits for them.
SETTLE_SECONDS: Final = 120.0
#: A recovery that takes longer is told as this.
MOST_RECOVERY: Final = 300.0


@dataclass(slots=True)
class Report:
    """A campaign that has ended."""

    seed: int
    seconds: float
    faults: list[Injected]
    findings: Findings
    #: Workers that ended by themselves.
    ended_alone: int
    #: Seconds from each fault until what it hit ran again, by kind.
    recoveries: Mapping[str, Sequence[float]]
    #: Until all had ended, after the last fault.
    settled_seconds: float
    #: Answers with metrics, by worker.
    scrapes: Mapping[str, int]

    def text(self) -> str:
        """For people."""
        found, counts = self.findings, defaultdict[str, int](int)
        for fault in self.faults:
            counts[fault.kind] += 1
        lines = [
            f"seed {self.seed}: {found.runs} runs and {len(self.faults)} faults in {self.seconds:.0f} s",
            f"all had ended {self.settled_seconds:.1f} s after the last fault",
            f"actions run {found.executions}, of these again because of a fault {found.again}",
            f"workers that ended by themselves {self.ended_alone}",
            f"metrics scraped {sum(self.scrapes.values())} times from {len(self.scrapes)} workers",
            "",
            f"{'fault':34} {'times':>5} {'recovered, s: p50':>18} {'longest':>8}",
        ]
        for kind, number in sorted(counts.items(), key=lambda each: -each[1]):
            times = sorted(self.recoveries.get(kind, ()))
            shown = f"{'-':>18} {'-':>8}"
            if times:
                shown = f"{times[len(times) // 2]:18.2f} {times[-1]:8.2f}"
            lines.append(f"{kind:34} {number:5} {shown}")
        lines.append("")
        for promise, found_here in found.violations.items():
            lines.append(f"{promise}: {len(found_here)}")
            lines += [f"    {text}" for text in found_here[:SHOWN]]
        return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a campaign and print its report; returns the exit code."""
    parser = argparse.ArgumentParser(prog="chaos", description="Break services and workers; see what was promised.")
    parser.add_argument("--duration", type=float, default=120, help="seconds in which faults come")
    parser.add_argument("--seed", type=int, default=None, help="by default another one each time")
    parser.add_argument("--rate", type=float, default=12, help="most runs sent in a second")
    parser.add_argument("--only", nargs="+", metavar="FAULT", choices=sorted(BY_NAME), help="these faults alone")
    parser.add_argument(
        "--cables", action="store_true", help="two workers on hosts of their own, whose cables are cut too (root)"
    )
    parser.add_argument("--keep", metavar="FOLDER", help="where journal and logs go if a promise was broken")
    options = parser.parse_args(arguments)
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(2**32)
    faults = [BY_NAME[name] for name in options.only] if options.only else FAULTS
    if options.cables and (lacking := hosts.missing()):
        parser.error(f"--cables {hosts.NEEDED.format(lacking)}")
    cables = CABLES if options.cables else ()
    try:
        report = run_campaign(seed, options.duration, options.rate, [*faults, *cables], options.keep)
    except KeyboardInterrupt:
        sys.stderr.write(f"interrupted (seed {seed}); everything that was started has ended\n")
        return 130
    except ProcessorError as error:
        sys.stderr.write(f"{error}\n")
        return 3
    sys.stdout.write(report.text() + "\n")
    return 0 if report.findings.holds else 1


def run_campaign(
    seed: int, seconds: float, a_second: float, faults: Sequence[Fault], keep: str | None = None
) -> Report:
    """Run it from the servers' start to their end."""
    with chaos_stack() as stack, ExitStack() as cables:
        if any(fault.takes == CABLE for fault in faults):
            stack.hosts.update(enumerate(cables.enter_context(hosts.own_hosts(2, [*stack.ports.values()]))))
            cables.callback(stack.stop_workers)
        publish(stack.database_url, kinds())
        stack.start_workers()
        report = break_things(stack, seed, seconds, a_second, faults)
        if keep and not report.findings.holds:
            _keep(stack, report, Path(keep))
    return report


def break_things(
    stack: ChaosStack, seed: int, seconds: float, a_second: float, faults: Sequence[Fault], most: int | None = None
) -> Report:
    """Send runs and inject faults for so long, wait until all has ended, and audit these runs.

    Args: most: so many faults are enough.
    """
    chance, mix = random.Random(seed), kinds()
    sender = Sender(stack.redis_proxy.url, stack.database_url, mix, random.Random(chance.getrandbits(64)), a_second)
    with scraping(stack) as scraper:
        sender.start()
        injected, ended_alone = _inject_for(stack, Schedule(faults, chance), sender, seconds, most)
        began = time.monotonic()
        sender.stop()
        wait_settled(stack, sender)
        settled = time.monotonic() - began
    findings = audit(stack, sender.sent, mix, injected)
    findings.miscounted += scraper.findings(injected)
    recoveries = _recoveries([each for each in executions(stack.journal) if each.run in sender.sent], injected)
    return Report(seed, seconds, injected, findings, ended_alone, recoveries, settled, scraper.watch.answers)


def _inject_for(
    stack: ChaosStack, schedule: Schedule, sender: Sender, seconds: float, most: int | None
) -> tuple[list[Injected], int]:
    """Inject faults for so long, then end those that last. Returns them, and how many workers ended by themselves."""
    injected: list[Injected] = []
    pause, ended_alone, resends = threading.Event(), 0, False
    end, due = time.time() + seconds, time.time() + MOST_PAUSE
    while (now := time.time()) < end or schedule.under_way or resends:
        if most is not None and len(injected) >= most:
            end = min(end, now)
        ended_alone += len(stack.revive())
        over = schedule.end_due(now)
        if now < end and now >= due:
            fault = schedule.next(stack)
            if fault is not None:
                injected.append(fault)
                due = now + schedule.chance.uniform(LEAST_PAUSE, MOST_PAUSE)
                over += [fault] if fault.ends is None else []
        resends = resends or any(fault.loses_messages for fault in over)
        if resends and not schedule.taken:
            # a client that was told so sends again what nobody has accepted
            with suppress(psycopg2.Error):
                sender.send_again()
                resends = False
        pause.wait(LOOK_SECONDS)
    return injected, ended_alone


def wait_settled(stack: ChaosStack, sender: Sender) -> None:
    """Return when every run has ended and nothing of one is left in Redis, or when that takes too long."""
    pause, deadline = threading.Event(), time.monotonic() + SETTLE_SECONDS
    while time.monotonic() < deadline:
        stack.revive()
        is_open = len(sender.sent) > ended_runs(stack.database_url, sender.sent)
        if not is_open and not live_keys(stack.redis_url, NAMESPACE) and not _stream_length(stack):
            return
        pause.wait(0.5)


def _stream_length(stack: ChaosStack) -> int:
    with closing(stack.redis()) as client:
        return int(client.xlen(KeySpace(NAMESPACE).key("status")))


def _recoveries(runs: Sequence[Execution], faults: Sequence[Injected]) -> dict[str, list[float]]:
    """From each fault until what it hit ran again: the tasks that were cut, or of a service, any task.

    What was cancelled does not run again.
    """
    cancelled = {run for fault in faults for run in fault.cancelled}
    starts: dict[tuple[str, str], list[float]] = defaultdict(list)
    for execution in runs:
        starts[execution.run, execution.task].append(execution.started)
    every = sorted(execution.started for execution in runs)
    found: dict[str, list[float]] = defaultdict(list)
    for fault in faults:
        if fault.pids:
            for execution in runs:
                if execution.run not in cancelled and execution.ended is None and _is_hit(execution, fault):
                    again = [start for start in starts[execution.run, execution.task] if start > execution.started]
                    # it may have been frozen, and have run again elsewhere before
                    if (first := min(again, default=fault.began + MOST_RECOVERY)) > fault.began:
                        found[fault.kind].append(first - fault.began)
        elif fault.over:
            later = [start for start in every if start > fault.over]
            found[fault.kind].append(min(later, default=fault.over + MOST_RECOVERY) - fault.over)
    return found


def _is_hit(execution: Execution, fault: Injected) -> bool:
    return execution.pid in fault.pids and execution.started <= fault.began + 1


def _keep(stack: ChaosStack, report: Report, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    lines = [f"{each.began:.3f} {each.over:.3f} {each.kind} {sorted(each.pids)}" for each in report.faults]
    (folder / "faults").write_text("\n".join([*lines, "", report.text(), ""]))
    with suppress(FileNotFoundError):
        shutil.copy(stack.journal, folder / "journal")
    shutil.copytree(stack.servers.data_dir / "log", folder / "log", dirs_exist_ok=True)


if __name__ == "__main__":
    sys.exit(main())
