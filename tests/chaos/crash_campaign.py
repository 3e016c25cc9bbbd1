"""A crash at every probe of the engine: what leads processes there, theme by theme, under load, and the audit of all.

`python -m tests.chaos.crash_campaign [THEME…]` prints the report; test_crash_at.py holds it to what is promised.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Any, Final

from orchestration.state.keys import KeySpace
from orchestration.telemetry.probes import PROBES
from tests.chaos.audit import SHOWN, Findings, audit, executions
from tests.chaos.campaign import SETTLE_SECONDS
from tests.chaos.crash_workload import LARGE_BYTES, crash_kinds
from tests.chaos.crashes import FIRST, LATER, Crashes
from tests.chaos.faults import Injected, crash_postgres, end_worker, lose_redis, restart_redis
from tests.chaos.stack import NAMESPACE, ROOT, ChaosStack, chaos_stack
from tests.chaos.workload import Kind, Sender, ended_runs, publish
from tests.support.otlp import receiving
from tests.support.records import live_keys

A_SECOND: Final = 4.0
LEASE_SECONDS: Final = 5
SETTINGS: Final = {
    # leases and repetitions are waited for again and again
    "LEASE_SECONDS": str(LEASE_SECONDS), "MAX_SEND_RETRIES": "2", "MAX_RESULT_BYTES": str(LARGE_BYTES),
}  # fmt: skip
POOLS: Final = (("prefork", 2), ("prefork", 2), ("prefork", 2))
#: Given out together.
AT_ONCE: Final = 12
#: For all that are given out together to be taken; on a quiet machine it takes a third of it.
MOST_SECONDS: Final = 45.0
#: With more messages than these in the queue, none are repeated.
MOST_WAITING: Final = 100
#: A worker says again within it which messages it holds; what is held for longer was given to a process of upkeep.
HELD_SECONDS: Final = 8.0


def _pair(*steps: str) -> list[str]:
    return [f"{step}.{side}" for step in steps for side in ("before", "after")]


#: Passed all the time, by processes of pools.
BY_RUNS: Final = [
    *_pair(
        "script.open_session", "script.start_runner", "script.settle_branch", "script.checkpoint_step",
        "script.flush_chunk", "script.record_rows", "script.close_session", "script.take_rate",
        "sql.insert_session", "sql.set_status", "sql.finish_session", "sql.write_rows", "sql.put_result",
        "sql.register_version", "sql.write_task_logs", "publish.runners", "publish.completion", "publish.chord",
        "redis.forget_checkpoints",
    ),
    "chord.count", "result.ready", "result.stored",
]  # fmt: skip
#: Passed all the time, by upkeep processes, or when they start.
BY_UPKEEP: Final = [
    *_pair(
        "script.beat_worker", "script.wake_sessions", "script.expire_leases", "script.reap_sessions",
        "script.settle_overdue", "redis.acknowledge_updates", "delivery.renew", "delivery.lost",
        "sql.ensure_partitions", "sql.drop_old_partitions", "sql.add_sample", "spans.send",
    ),
    "upkeep.woken",
]  # fmt: skip
#: Passed by main processes: when messages come and go, and when one of their pool's processes has died.
BY_MAIN: Final = _pair(
    "delivery.take", "delivery.settle", "delivery.give_back", "script.hold_sessions", "script.expire_runner",
    "script.resend_runners",
)  # fmt: skip
THEMES: Final = ("pool", "upkeep", "main", "delivery", "clients", "reaper", "spool", "rehydration")
#: Clients: what they do, and where they crash in it.
BY_CLIENTS: Final[Mapping[str, list[str]]] = {
    "cancel_session(run)": _pair("sql.note_cancelled", "script.cancel_session", "script.count_unheeded"),
    "pause_session(run)": _pair("script.pause_sessions"),
    "resume_session(run)": _pair("script.resume_sessions"),
    "get_processor().stores.live.set_limit(f'session:{run}', 3)": _pair("script.set_limit"),
}
_CLIENT: Final = """\
import sys
from tasks import cancel_session, pause_session, resume_session
from tasks.engine import get_processor
from orchestration.engine import control
get_processor()
print("ready", flush=True)
run = sys.stdin.readline().strip()
"""


@dataclass(slots=True)
class CrashReport:
    """What a campaign has done, and found."""

    findings: Findings
    crashes: Crashes
    runs: int
    seconds: float
    #: Runs of which a receiver has got spans.
    traced: int = 0

    @property
    def missed(self) -> set[str]:
        """Probes at which nothing crashed."""
        return set(PROBES) - set(self.crashes.covered())

    def text(self) -> str:
        """For people."""
        covered, taken = self.crashes.covered(), self.crashes.taken
        by_kind = Counter(taken.values())
        found = self.findings
        lines = [
            f"crashed at {len(covered)} of {len(PROBES)} probes ({100 * len(covered) / len(PROBES):.1f} %),"
            f" {len(taken)} times: " + ", ".join(f"{kind} {number}" for kind, number in sorted(by_kind.items())),
            f"{self.runs} runs in {self.seconds:.0f} s; actions run {found.executions}, of these again {found.again}",
            f"spans of {self.traced} runs came to a receiver",
            "seconds: " + ", ".join(f"{theme} {took:.0f}" for theme, took in self.crashes.seconds.items()),
            *([f"no crash at {', '.join(sorted(self.missed))}"] if self.missed else []),
        ]
        for promise, found_here in found.violations.items():
            lines.append(f"{promise}: {len(found_here)}")
            lines += [f"    {text}" for text in found_here[:SHOWN]]
        if not found.holds:
            lines += [f"{each.began:.3f} {each.kind} {sorted(each.pids)}" for each in self.crashes.injected]
        return "\n".join(lines)


def crash_everywhere(only: Sequence[str] | None = None) -> CrashReport:
    """Run the campaign, from the servers' start to their end.

    Args: only: these of `THEMES`.
    """
    with chaos_stack(direct=frozenset(range(len(POOLS)))) as stack, receiving() as receiver:
        stack.clocks.clear()
        stack.settings |= {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint, "OTEL_METRICS_EXPORTER": "none"}
        report = _Campaign(stack).run(only)
        report.traced = len({span.trace_id for span in receiver.spans()})
        return report


class _Campaign:
    def __init__(self, stack: ChaosStack) -> None:
        self.stack = stack
        self.mix: dict[str, Kind] = crash_kinds()
        folder = stack.servers.folder / "c"
        folder.mkdir()
        self.crashes = Crashes(stack, folder)
        self.sender = Sender(stack.redis_url, stack.database_url, self.mix, random.Random(1), A_SECOND)
        #: Workers that were told to end.
        self._ending: list[Injected] = []

    def run(self, only: Sequence[str] | None) -> CrashReport:
        began = time.monotonic()
        self.stack.pools = POOLS
        self.stack.settings |= {**SETTINGS, "CRASH_AT": self.crashes.setting()}
        publish(self.stack.database_url, self.mix)
        self.stack.start_workers()
        self.crashes.look()
        self.sender.start()
        for name in THEMES if only is None else only:
            theme: Callable[[], None] = getattr(self, name)
            since = time.monotonic()
            theme()
            self.crashes.seconds[name] = time.monotonic() - since
        self.crashes.withdraw()
        self.sender.stop()
        since = time.monotonic()
        self._settle()
        self.crashes.seconds["to end"] = time.monotonic() - since
        for fault in self._ending:
            fault.end()
        findings = audit(self.stack, self.sender.sent, self.mix, self.crashes.injected)
        return CrashReport(findings, self.crashes, len(self.sender.sent), time.monotonic() - began)

    # Themes

    def pool(self) -> None:
        """Processes that run branches."""
        for number, seconds in ((FIRST, MOST_SECONDS), (LATER, 5.0)):
            for start in range(0, len(BY_RUNS), AT_ONCE):
                self.crashes.crash(BY_RUNS[start : start + AT_ONCE], seconds, self.send_each, number=number)

    def upkeep(self) -> None:
        """Upkeep processes; a later pass of what they do only at their start would be another hour's."""

        def send() -> None:
            self.send("overdue")
            self.send("awaiting")

        self.crashes.crash(BY_UPKEEP, 2 * MOST_SECONDS, send, 2.0)

    def main(self) -> None:
        """Main processes of workers: each crash is the loss of a host, and what holds its messages and leases ends."""

        def lose_child() -> None:
            self.send("lone")
            self.crashes.kill_child()

        probes = [*BY_MAIN, "upkeep.expired", *_pair("delivery.held", "delivery.copies")]
        self.crashes.crash(probes, 2 * MOST_SECONDS, lose_child, 1.0)

    def delivery(self) -> None:
        """The end of a worker, and results that several processes would deliver."""
        ends = end_worker(signal.SIGTERM, loses=False)

        def end_one() -> None:
            fault = self.crashes.inject(ends(self.stack, random.Random(0)))
            if fault is not None:
                self._ending.append(fault)

        self.crashes.crash(_pair("script.stop_worker"), 2 * MOST_SECONDS, end_one, 10.0)
        for probe in _pair("script.release_delivery"):
            # the process that dies there has closed its session
            self.crashes.crash([probe], 15, lambda: self.crashes.give("script.close_session.after"))
        self.crashes.crash(_pair("publish.delivery_again"), 8, self.repeat_completion, 0.1)

    def clients(self) -> None:
        """Processes that cancel, pause and limit runs; what they had begun is repeated, as people do."""
        from tasks import cancel_session, resume_session  # noqa: PLC0415 - after the environment is set

        for call, probes in BY_CLIENTS.items():
            # a run ends while a client is starting
            started = [self.start_client(call, f"{probe}:1") for probe in probes]
            runs = [self.send("patient") for _ in probes]
            self.wait_running(runs)
            for run, process in zip(runs, started, strict=True):
                assert process.stdin is not None
                process.stdin.write(f"{run}\n".encode())
                process.stdin.close()
            for probe, process in zip(probes, started, strict=True):
                if process.wait() == -signal.SIGKILL:
                    self.crashes.note_client(probe)
            if call.startswith("cancel"):
                self.crashes.inject(Injected("cancel", time.time(), cancelled=frozenset(runs)))
            for run in runs:
                resume_session(run)
        runs = [self.send("slow") for _ in range(4)]
        self.wait_running(runs)
        self.crashes.inject(Injected("cancel", time.time(), cancelled=frozenset(runs)))
        for run in runs:
            cancel_session(run, waits=False)
        self.crashes.crash(_pair("script.heed_cancel"), 2)

    def reaper(self) -> None:
        """A session would never be woken; the reaper finds it, and dies."""

        self.wait_running([self.send("awaiting") for _ in range(3)])

        def forget() -> None:
            with closing(self.stack.redis()) as client:
                client.delete(self.key("delayed"))

        self.crashes.crash(["reaper.found"], 15, forget)

    def spool(self) -> None:
        """With both services away, what is finished goes to the disk; processes die there."""
        for probes in (["fallback.keep.before", "spool.written"], _pair("spool.append"), ["fallback.keep.after"]):
            runs = [self.send("narrow") for _ in range(10)]
            self.wait_running(runs[:3])
            away = [fault(self.stack, random.Random(1)) for fault in (restart_redis(hard=False), crash_postgres)]
            self.crashes.crash(probes, 3)
            for fault in away:
                assert fault is not None
                fault.takes = "redis"
                fault.end()
                self.crashes.inject(fault)
            self.crashes.look()
        self.crashes.crash(["spool.replayed"], 12)

    def rehydration(self) -> None:
        """Redis goes back, then loses all; processes die while they put it right, and while they go on with runs."""
        for probes in (
            ["rehydration.dropping", "script.begin_epoch.before"],
            ["sql.begin_epoch.before", "script.begin_epoch.after"],
            ["sql.begin_epoch.after"],
        ):
            self.crashes.crash(probes, MOST_SECONDS, self.go_back, 7.0)
        # of a run that has ended, updates that were not drained are lost with Redis: a dead updater's wait for 30 s
        self.sender.stop()
        self.wait_until(lambda: not self._left())
        self.wait_running([self.send("patient") for _ in range(10)])
        self.wait_until(lambda: not self._undrained())
        self.crashes.inject(lose_redis(self.stack, random.Random(0)))
        self.lost_since(10)
        again = [*_pair("script.take_up_sessions", "publish.take_up"), "rebuild.done"]
        # one after the other, and after each some seconds pass until the next process looks
        self.crashes.crash(again, 2 * MOST_SECONDS, self.age_held)
        self.sender.send_again()

    # What leads there

    def go_back(self) -> None:
        """Redis counts less than before, as when it has come back with what it had on disk."""
        injected = Injected("Redis gone back", time.time())
        with closing(self.stack.redis()) as client:
            client.set(self.key("ticks"), 1)
        self.crashes.inject(injected)
        self.lost_since(10)

    def lost_since(self, seconds: float) -> None:
        """The last fault may have cost what ran in the seconds before, and until all know of it."""
        fault = self.crashes.injected[-1]
        fault.lost_since, fault.over = fault.began - seconds, fault.began + 10

    def age_held(self) -> None:
        """For sessions that were given to a process which then died, the time passes until they are found again."""
        with closing(self.stack.redis()) as client:
            seconds, _ = client.time()
            client.zremrangebyscore(self.key("held_sessions"), (seconds + HELD_SECONDS) * 1e6, "+inf")

    def repeat_completion(self) -> None:
        """A completion comes three times, side by side."""
        with closing(self.stack.redis()) as client:
            waiting = client.lrange("branches", 0, -1)
            found = [message for message in waiting if b"tasks.complete_workflow" in message]
            if found and len(waiting) < MOST_WAITING:
                client.rpush("branches", found[-1], found[-1])

    def send(self, name: str) -> str:
        """Send a run beside the others."""
        run = str(uuid.uuid4())
        self.sender.sent[run] = name
        self.sender._send(run, name)
        return run

    def send_each(self) -> None:
        """Send what leads to rare places, and a workflow that nobody has published."""
        from tasks import run_workflow  # noqa: PLC0415 - after the environment is set

        run = str(uuid.uuid4())
        self.sender.sent[run] = "chain"
        for name in ("uneven", "rated", "queued", "large", "synced", "telling", "chorded"):
            self.send(name)
        definition = {**self.mix["chain"].definition, "description": run}
        with suppress(Exception):  # the audit says so when it was not accepted
            run_workflow.apply_async((definition, {}), task_id=run, retry=False)

    def wait_running(self, runs: Sequence[str]) -> None:
        """Something of each of these runs has begun."""
        self.wait_until(lambda: {each.run for each in executions(self.stack.journal)}.issuperset(runs))

    def wait_until(self, holds: Callable[[], bool]) -> None:
        """Return when it holds, or when that takes too long; the fleet is kept running."""
        end = time.monotonic() + MOST_SECONDS
        while time.monotonic() < end:
            self.crashes.look()
            if holds():
                return
            threading.Event().wait(0.05)

    def start_client(self, call: str, crash_at: str) -> subprocess.Popen[bytes]:
        """A process that is ready to make this call for the run that it reads, and to crash in it."""
        environment: dict[str, Any] = {**os.environ, "PYTHONPATH": str(ROOT), "CRASH_AT": crash_at}
        process = subprocess.Popen(
            [sys.executable, "-c", f"{_CLIENT}{call}"], env=environment, cwd=self.stack.servers.folder,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.stdout.close()
        return process

    def key(self, name: str) -> str:
        return KeySpace(NAMESPACE).key(name)

    def _settle(self) -> None:
        """Return when every run has ended and nothing of one is left in Redis, or when that takes too long."""
        sent, deadline, again = self.sender.sent, time.monotonic() + SETTLE_SECONDS, 0.0
        while time.monotonic() < deadline:
            self.crashes.look()
            if time.monotonic() > again:
                self.sender.send_again()
                self.age_held()
                again = time.monotonic() + 5
            if len(sent) <= ended_runs(self.stack.database_url, sent) and not self._left():
                return
            threading.Event().wait(0.3)

    def _left(self) -> bool:
        return self._undrained() or bool(live_keys(self.stack.redis_url, NAMESPACE))

    def _undrained(self) -> bool:
        with closing(self.stack.redis()) as client:
            return bool(client.xlen(self.key("status")))


if __name__ == "__main__":
    report = crash_everywhere(sys.argv[1:] or None)
    sys.stdout.write(report.text() + "\n")
    sys.exit(0 if report.findings.holds else 1)
