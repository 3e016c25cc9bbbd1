"""One test of chaos: a load, runs of the test's own, faults at moments that it chooses, and the audit of it all."""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import psutil
import psycopg2

from parallelizer.services.supervision import LoggedProgram
from tests.chaos.audit import Execution, Findings, audit, executions
from tests.chaos.campaign import wait_settled
from tests.chaos.faults import Injected, all_of
from tests.chaos.mix import BY_NAME
from tests.chaos.stack import ChaosStack
from tests.chaos.workload import Kind, Sender, kinds, publish
from tests.support.crashes import kill, kill_worker
from tests.support.waiting import wait_until

#: Longer than any branch here: a runner hears at its end that Redis has lost its claim.
GOES_ON_SECONDS: Final = 2.0


@dataclass(slots=True)
class Scene:
    """What a test does to a stack; see `scene`."""

    stack: ChaosStack
    mix: dict[str, Kind]
    sender: Sender
    faults: list[Injected] = field(default_factory=list)
    #: Of the audit, when the scene is over.
    findings: Findings = field(default_factory=Findings)

    def send(self, kind: Kind) -> str:
        """Send a run of one of the test's own workflows; returns its flow session."""
        return self.sender.send(str(kind.definition["name"]))

    def note(self, kind: str, **more: Any) -> Injected:
        """A fault is about to be injected, and is over at once unless `over` is set later."""
        fault = Injected(kind, time.time(), **more)
        fault.over = fault.began
        self.faults.append(fault)
        return fault

    def kill(self, pid: int) -> Injected:
        """`kill -9` of one process of a pool; returns when it is gone."""
        fault = self.note("child killed", pids=frozenset({pid}))
        kill(pid)
        fault.over = time.time()
        return fault

    def lose_host(self, worker: LoggedProgram) -> Injected:
        """`kill -9` of a whole worker; another takes its place."""
        fault = self.note("host lost", pids=all_of(worker))
        kill_worker(worker)
        fault.over = time.time()
        self.stack.replace_worker(worker)
        return fault

    def lose_redis(self) -> None:
        """All data of Redis is gone; what runs goes on to the end of its branch before it hears of it."""
        fault = self.inject("all of Redis lost")
        fault.over += GOES_ON_SECONDS

    def inject(self, name: str) -> Injected:
        """Inject a fault of the campaign; one that lasts ends by its `end`, or with the scene."""
        found = BY_NAME[name]
        fault = found.inject(self.stack, random.Random(len(self.faults)))
        assert fault is not None, f"{name}: there was nothing to hit"
        fault.kind, fault.takes = name, found.takes
        if fault.ends is None:
            fault.over = time.time()
        self.faults.append(fault)
        return fault

    def runs_of(self, run: str, task: str = "") -> list[Execution]:
        """Executions of a run so far, of one task or of all."""
        return [each for each in executions(self.stack.journal) if each.run == run and task in ("", each.task)]

    def wait_for_start(self, run: str, task: str, times: int = 1) -> Execution:
        """Return when the task has been begun so often, with its last execution."""
        wait_until(lambda: len(self.runs_of(run, task)) >= times, f"{task} is begun {times} times", seconds=60)
        return self.runs_of(run, task)[-1]

    def wait_for_end(self, run: str, seconds: float = 60) -> str:
        """Return when the run has ended, with its status."""
        statement = "SELECT status FROM flow_sessions WHERE flow_session_id = %s AND finished_at IS NOT NULL"
        wait_until(lambda: bool(self.rows(statement, run)), f"{run} has ended", seconds)
        return str(self.rows(statement, run)[0][0])

    def rows(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """What a statement gives."""
        with closing(psycopg2.connect(self.stack.database_url)) as connection, connection.cursor() as cursor:
            cursor.execute(statement, values)
            return cursor.fetchall()

    def worker_of(self, pid: int) -> LoggedProgram:
        """The worker that a process belongs to: itself, or its main process."""
        family = {pid, *(parent.pid for parent in psutil.Process(pid).parents())}
        return next(each for each in self.stack.workers if each.process is not None and each.process.pid in family)

    def log_lines(self, text: str) -> list[str]:
        """Lines of all workers' logs that hold it."""
        logs = (self.stack.servers.data_dir / "log").glob("worker-*.log*")
        return [line for log in logs for line in log.read_text(errors="replace").splitlines() if text in line]


@contextmanager
def scene(stack: ChaosStack, *own: Kind, a_second: float = 5.0) -> Iterator[Scene]:
    """Runs of the usual mix are sent during the block; after it all must end, and the audit must find nothing.

    Args: own: workflows that the test sends runs of. a_second: most runs of the mix.
    """
    stack.revive()
    load, ours = kinds(), {str(kind.definition["name"]): kind for kind in own}
    publish(stack.database_url, {**load, **ours})
    sender = Sender(stack.redis_proxy.url, stack.database_url, load, random.Random(uuid.uuid4().int), a_second)
    playing = Scene(stack, {**load, **ours}, sender)
    sender.start()
    try:
        yield playing
    finally:
        sender.stop()
        for fault in playing.faults:
            if fault.ends is not None:
                fault.end()
    sender.send_again()
    wait_settled(stack, sender)
    playing.findings = audit(stack, sender.sent, playing.mix, playing.faults)
    assert playing.findings.holds, "\n".join(
        f"{promise}: {text}" for promise, found in playing.findings.violations.items() for text in found[:10]
    )


def siblings_succeeded(playing: Scene, run: str, actions: Sequence[str]) -> None:
    """None of these actions of the run failed, nor any item of theirs."""
    rows = playing.rows("SELECT action, item, status FROM tasks WHERE flow_session_id = %s", run)
    assert {status for action, _, status in rows if action in actions} == {"succeeded"}, rows


def measured(condition: Callable[[], bool], what: str, seconds: float) -> float:
    """Seconds until the condition holds."""
    began = time.monotonic()
    wait_until(condition, what, seconds)
    return time.monotonic() - began
