"""What was promised, and what PostgreSQL, Redis and the actions' own journal say of it.

I1 every accepted run has ended       I2 no branch was settled twice      I3 no limit was exceeded
I4 nothing is left in Redis           I5 nothing ran again without cause  I6 the record is complete, and as it must be
I7 metrics are what the record says
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psycopg2

from orchestration.reports.metrics import Families, Recorded, add_recorded
from orchestration.store.pool import Database
from orchestration.store.totals import read_totals
from tests.chaos.faults import Injected
from tests.chaos.stack import ChaosStack
from tests.chaos.workload import Kind
from tests.support.overlap import Span, Spell, breaches
from tests.support.records import live_keys
from tests.support.scrapes import Scrape, counted, differences, recorded

#: What ended less than this before its process was lost may be unsettled, seconds: items are settled together.
UNSETTLED_SECONDS: Final = 0.25
#: Calls that failed are made again within this, seconds.
AGAIN_SECONDS: Final = 3.0
#: A worker that was frozen begins what it holds in this time after, seconds, until it hears that it holds it no more.
THAWED_SECONDS: Final = 1.0
#: Most findings of a kind that are printed.
SHOWN: Final = 10


@dataclass(slots=True)
class Execution:
    """One execution of a task; `ended` stays None when its process died in it. Seconds since 1970."""

    run: str
    task: str
    pid: int
    started: float
    ended: float | None = None


@dataclass(slots=True)
class Findings:
    """What the audit found; all lists are empty when every promise was kept."""

    runs: int = 0
    executions: int = 0
    #: Executions beyond the first that a fault explains.
    again: int = 0
    lost: list[str] = field(default_factory=list)
    not_ended: list[str] = field(default_factory=list)
    settled_twice: list[str] = field(default_factory=list)
    limits_exceeded: list[str] = field(default_factory=list)
    left_in_redis: list[str] = field(default_factory=list)
    without_cause: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    miscounted: list[str] = field(default_factory=list)

    @property
    def violations(self) -> dict[str, list[str]]:
        """By promise."""
        return {
            "I1 lost": self.lost, "I1 not ended": self.not_ended, "I2 settled twice": self.settled_twice,
            "I3 limits exceeded": self.limits_exceeded, "I4 left in Redis": self.left_in_redis,
            "I5 run again without cause": self.without_cause, "I6 wrong or missing in the record": self.wrong,
            "I7 metrics other than the record": self.miscounted,
        }  # fmt: skip

    @property
    def holds(self) -> bool:
        """Whether every promise was kept."""
        return not any(self.violations.values())


def audit(stack: ChaosStack, sent: Mapping[str, str], mix: Mapping[str, Kind], faults: Sequence[Injected]) -> Findings:
    """Compare everything, once nothing runs any more.

    Args: sent: name of the workflow, by run.
    """
    found = Findings(runs=len(sent))
    cancelled = {run for fault in faults for run in fault.cancelled}
    sessions = {
        row[0]: row[1:] for row in _rows(stack, "SELECT flow_session_id::text, status, counts FROM flow_sessions")
    }
    tasks: dict[str, list[tuple[Any, ...]]] = defaultdict(list)
    for row in _rows(stack, "SELECT flow_session_id::text, action, item, status, started_at, finished_at FROM tasks"):
        tasks[row[0]].append(row[1:])
    for run, name in sent.items():
        if run not in sessions:
            found.lost.append(f"{run} ({name}) was sent and is not in the record")
        else:
            status, counts = sessions[run]
            _check_run(run, mix[name], status, counts, tasks[run], found, was_cancelled=run in cancelled)
    found.wrong += _wrong_times(stack, sent)
    ours = [each for each in executions(stack.journal) if each.run in sent]
    _check_executions(ours, sent, mix, faults, found)
    found.miscounted += _wrongly_counted(stack)
    found.left_in_redis += live_keys(stack.redis_url, stack.servers.namespace)
    return found


def _check_run(
    run: str,
    kind: Kind,
    status: str,
    counts: Mapping[str, int] | None,
    tasks: Sequence[tuple[Any, ...]],
    found: Findings,
    *,
    was_cancelled: bool,
) -> None:
    name = kind.definition["name"]
    if counts is None:
        found.not_ended.append(f"{run} ({name}) is {status}")
        return
    total, expected = sum(counts.values()), sum(kind.counts.values())
    if was_cancelled and status == "cancelled":
        if total > expected:
            found.settled_twice.append(f"{run} ({name}) counts {total} tasks of {expected}: {counts}")
        return
    if total > expected:
        found.settled_twice.append(f"{run} ({name}) counts {total} tasks of {expected}: {counts}")
    elif (status, counts) != (kind.status, kind.counts):
        found.wrong.append(f"{run} ({name}) is {status} with {counts}, not {kind.status} with {kind.counts}")
    recorded: dict[str, int] = defaultdict(int)
    actions: Mapping[str, Any] = kind.definition["actions"]
    for action, item, task_status, *_ in tasks:
        if item >= 0 or "for_each" not in actions[action]:
            recorded[task_status] += 1
    if dict(recorded) != dict(counts):
        found.wrong.append(f"{run} ({name}) counts {counts}; its tasks are recorded as {dict(recorded)}")
    spans = [
        Span(_us(started), _us(finished), f"{run} {action}:{item}")
        for action, item, _, started, finished in tasks
        if started and finished and (item >= 0 or "for_each" not in actions[action])
    ]
    found.limits_exceeded += breaches(spans, [Spell(kind.most_branches)])


#: Rows of these that end before they begin, or at a time that has not come by the servers' clock.
_WRONG_TIMES: Final = """
SELECT flow_session_id::text, name, started_at, finished_at FROM (
    SELECT flow_session_id, 'the run' AS name, started_at, finished_at FROM flow_sessions
    UNION ALL SELECT flow_session_id, 'branch ' || branch, started_at, finished_at FROM branches
    UNION ALL SELECT flow_session_id, 'task ' || action || ':' || item, started_at, finished_at FROM tasks
) AS rows
WHERE finished_at < started_at OR greatest(started_at, finished_at) > clock_timestamp() + interval '1 second'
    OR least(started_at, finished_at) < clock_timestamp() - interval '50 minutes'
"""


def _wrong_times(stack: ChaosStack, sent: Mapping[str, str]) -> list[str]:
    return [
        f"{run} {name} is recorded from {started} to {finished}"
        for run, name, started, finished in _rows(stack, _WRONG_TIMES)
        if run in sent
    ]


def _wrongly_counted(stack: ChaosStack) -> list[str]:
    """Where metrics say another number than the record."""
    with closing(Database(stack.database_url)) as database:
        found = Families()
        add_recorded(found, Recorded(read_totals(database), 0), most_names=1000)
        told, said = counted(Scrape.of(found.all())), recorded(database.fetch)
    return differences(told, said)


def _us(moment: Any) -> int:
    return int(moment.timestamp() * 1_000_000)


def executions(journal: Path) -> list[Execution]:
    """What the journal tells, in the order of starts."""
    found: list[Execution] = []
    running: dict[tuple[int, str, str], Execution] = {}
    for line in journal.read_text().splitlines() if journal.exists() else ():
        kind, run, task, _, when, pid = line.split()
        key = (int(pid), run, task)
        if kind == "start":
            running[key] = Execution(run, task, int(pid), float(when))
            found.append(running[key])
        elif key in running:
            running.pop(key).ended = float(when)
    return found


def _check_executions(
    runs: Iterable[Execution], sent: Mapping[str, str], mix: Mapping[str, Kind], faults: Sequence[Injected],
    found: Findings,
) -> None:  # fmt: skip
    by_task: dict[tuple[str, str], list[Execution]] = defaultdict(list)
    for execution in runs:
        found.executions += 1
        by_task[execution.run, execution.task].append(execution)
    by_process = [(fault, fault.began - _unsettled_since(fault.began, faults)) for fault in faults if fault.pids]
    by_time = [fault for fault in faults if fault.lost_since]
    for (run, task), every in by_task.items():
        if len(every) == 1:
            continue
        kind = mix[sent[run]]
        causes = sum(_has_cause(execution, by_process, by_time) for execution in every)
        allowed = 1 + causes + kind.retries.get(task.partition(":")[0], 0)
        if len(every) > allowed:
            told = ", ".join(f"{each.started:.3f}-{each.ended or 0:.3f} in {each.pid}" for each in every)
            found.without_cause.append(
                f"{run} {task} ({sent[run]}) ran {len(every)} times, {allowed} are explained: {told}"
            )
        else:
            found.again += min(causes, len(every) - 1)


def _unsettled_since(moment: float, faults: Sequence[Injected]) -> float:
    """What had ended after this may be unsettled at that moment: Redis could not be told while it was away."""
    away = [
        each.began for each in faults if each.takes == "redis" and each.began <= moment <= each.over + AGAIN_SECONDS
    ]
    return min(away, default=moment) - UNSETTLED_SECONDS


def _has_cause(execution: Execution, by_process: Sequence[tuple[Injected, float]], by_time: Sequence[Injected]) -> bool:
    """Whether a fault may have cost its outcome."""
    ended = execution.ended
    for fault, unsettled_seconds in by_process:
        was_in = execution.pid in fault.pids and execution.started <= (fault.over or fault.began) + THAWED_SECONDS
        if was_in and (ended is None or fault.began - ended <= unsettled_seconds):
            return True
    return any(execution.started <= fault.over and (ended is None or ended >= fault.lost_since) for fault in by_time)


def _rows(stack: ChaosStack, statement: str) -> list[tuple[Any, ...]]:
    with closing(psycopg2.connect(stack.database_url)) as connection, connection.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchall()
