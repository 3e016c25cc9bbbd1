"""`explain_run`: facts are read, causes decided, and put into one answer."""

from __future__ import annotations

from typing import Final

from orchestration.reports.explain.facts import Facts
from orchestration.reports.explain.failing import why_run_failed
from orchestration.reports.explain.gather import Live, gather, items_of
from orchestration.reports.explain.model import (
    PARTS,
    Cause,
    CauseCode,
    Explanation,
    TimeSpent,
    counted,
    in_words,
    task_name,
)
from orchestration.reports.explain.spent import time_spent
from orchestration.reports.explain.tasks import why_task
from orchestration.reports.explain.waiting import why_run_waits
from orchestration.store.pool import Database
from orchestration.store.retries import TAKEN_OVER_ATTEMPT, TAKEN_STATUSES
from orchestration.vocabulary import NO_ITEM, RunStatus

#: Items of which it is read when they ran: more would take seconds.
MOST_ITEMS: Final = 100_000
#: As `MAX_CONCURRENT_BRANCHES` and `LEASE_SECONDS` are by default.
DEFAULT_LIMIT: Final = 10
DEFAULT_LEASE_SECONDS: Final = 15.0
_AWAY = {"Redis": CauseCode.REDIS_AWAY, "PostgreSQL": CauseCode.POSTGRESQL_AWAY}
#: What does not keep a run from going on.
_NO_WAITS = frozenset({
    CauseCode.RUNNING, CauseCode.NEXT, CauseCode.FIRST_BRANCH, CauseCode.COMPLETION, CauseCode.CANCELLING,
    CauseCode.PREDECESSORS, CauseCode.RUNNER_COMING, CauseCode.DEADLINE, CauseCode.MAX_WAIT,
})  # fmt: skip


def explain_run(
    database: Database,
    live: Live,
    flow_session_id: str,
    action: str | None = None,
    item: int | None = None,
    *,
    default_limit: int = DEFAULT_LIMIT,
    lease_seconds: float = DEFAULT_LEASE_SECONDS,
) -> Explanation:
    """Why a run, or one task of it, is not running, failed, or took so long.

    Args: action: a task of it; None for the run. item: of a `for_each`; None for the action as a whole.
        default_limit: branches of a run at once where its definition says nothing. lease_seconds: how long leases last.
    Raises: UnknownRun, UnknownTask: there is no such run or task; with the nearest names.
        A service that is away is a cause, and not raised.
    """
    facts = gather(database, live, flow_session_id, action, item, round(lease_seconds * 1e6))
    away = [_away(service, said) for service, said in facts.away.items()]
    if action is not None and facts.shape is not None:
        status, causes = why_task(facts, action, NO_ITEM if item is None else item)
        return _answer(facts, action, item, status, [*away, *causes], None)
    if facts.row is not None and facts.row.status.is_final:
        return _explain_end(database, facts, away, default_limit)
    causes = [*away, *why_run_waits(facts), *_retries(facts)]
    return _answer(facts, action, item, _status(facts), causes, None)


def waits_of(database: Database, live: Live, flow_session_id: str) -> tuple[str, ...]:
    """What keeps a run from going on, or a part of it, as sentences; empty when nothing does.

    Raises: UnknownRun.
    """
    return tuple(
        cause.sentence for cause in why_run_waits(gather(database, live, flow_session_id))
        if cause.code not in _NO_WAITS
    )  # fmt: skip


def _explain_end(database: Database, facts: Facts, away: list[Cause], default_limit: int) -> Explanation:
    assert facts.row is not None
    spent = None
    if facts.shape is not None:
        limit = int(facts.shape.limits.get("max_concurrent_branches") or default_limit)
        items = items_of(database, facts.row, facts.shape, MOST_ITEMS)
        spent = time_spent(facts.row, facts.shape, facts.tasks, facts.branches, items, limit)
    causes = why_run_failed(facts)
    return _answer(facts, None, None, facts.row.status.value, [*away, *causes, *_retries(facts)], spent)


def _retries(facts: Facts) -> list[Cause]:
    """Which run this one is a retry of, and which one is its own."""
    row, causes = facts.row, list[Cause]()
    if row is not None and row.retry_of is not None:
        rows = facts.tasks.values()
        taken = sum(task.attempt == TAKEN_OVER_ATTEMPT and task.status in TAKEN_STATUSES for task in rows)
        said = f"it is a retry of {row.retry_of}, of which {counted(taken, 'action was', 'actions were')} taken over"
        causes.append(Cause(CauseCode.RETRY_OF, said, details={"run": row.retry_of, "taken_over": taken}))
    if row is not None and row.retried_as is not None:
        said, remedy = f"it was retried as {row.retried_as}", f"parallelizer explain {row.retried_as}"
        causes.append(Cause(CauseCode.RETRIED, said, remedy, details={"run": row.retried_as}))
    return causes


def _answer(
    facts: Facts, action: str | None, item: int | None, status: str, causes: list[Cause], spent: TimeSpent | None
) -> Explanation:
    workflow = facts.row.workflow if facts.row else facts.session.workflow if facts.session else ""
    run_status = _status(facts)
    what = workflow if action is None else task_name(action, item)
    took = f" in {in_words(spent.total_seconds)}" if spent is not None else ""
    said = f"{what or facts.flow_session_id}: {status.replace('_', ' ')}{took}"
    if causes and status != RunStatus.SUCCEEDED:
        said += f"; {causes[0].sentence}"
    elif spent is not None:
        said += f": {spent_in_words(spent)}"
    return Explanation(
        facts.flow_session_id, workflow, run_status, action, item, status, said, tuple(causes), spent
    )  # fmt: skip


def spent_in_words(spent: TimeSpent) -> str:
    """The shares of the time, the largest first: `81 % running, 12 % queueing`."""
    shares = spent.shares()
    shown = [f"{shares[part]:.0%}".replace("%", " %") + f" {_WORDS[part]}" for part in PARTS if shares[part] >= 0.005]
    return ", ".join(sorted(shown, key=lambda text: -int(text.partition(" ")[0])))


_WORDS = {
    "running": "running", "permits": "waiting for permits", "queueing": "queueing",
    "retries": "earlier attempts and waits for a retry", "rate_limits": "waiting for rate limits",
    "overhead": "overhead",
}  # fmt: skip


def _away(service: str, said: str) -> Cause:
    lost = {
        "Redis": "nothing new begins until it is back; what is at work goes on",
        "PostgreSQL": "no run is accepted and none ends until it is back; open runs go on, their updates wait",
    }[service]
    return Cause(_AWAY[service], f"{service} is away, and {lost} ({said})", "parallelizer doctor")


def _status(facts: Facts) -> str:
    """Of the run: Redis knows first what it does."""
    row, session = facts.row, facts.session
    if row is not None and row.status.is_final:
        return row.status.value
    if session is None:
        return "" if row is None else row.status.value
    if session.status in ("queued", "cancelled", "paused"):
        return session.status
    only_waits = session.deferred and not session.claims and not session.ready
    return RunStatus.SUSPENDED.value if only_waits else RunStatus.RUNNING.value
