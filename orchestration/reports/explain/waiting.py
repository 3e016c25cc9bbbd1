"""Why something is not running: facts of a run under way → causes. Pure.

The order of the questions is that of the scripts: whoever would hand out a slot or a permit asks them so
(`wants_runner` and `hand_on_queue` in state/lua/shared/slots.lua, `claim` in shared/claim.lua).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from orchestration.reports.explain.claims import at_work, claimed_name, deaths, lost_workers
from orchestration.reports.explain.facts import Facts
from orchestration.reports.explain.model import (
    MOST_TASKS,
    Cause,
    CauseCode,
    counted,
    in_words,
    rfc3339,
    some,
    task_name,
)
from orchestration.state.situation import (
    DeferredUnit,
    Items,
    Level,
    OpenSession,
    QueueState,
    ReadyUnit,
    Situation,
)
from orchestration.vocabulary import RunStatus

_PAUSED = {
    "session": ("the run is paused", "parallelizer resume {session}"),
    "workflow": ("its workflow is paused", "parallelizer resume --workflow {workflow}"),
    "all": ("everything is paused", "parallelizer resume --all"),
}
#: Units that wait for a time, each with a cause of its own; the others are counted.
_MOST_TIMED = 10


def why_run_waits(facts: Facts) -> list[Cause]:
    """Everything that keeps a run, or a part of it, from going on, and what is at work; the most important first."""
    situation, session = facts.situation, facts.session
    if situation is None:
        return []
    if session is None:
        return without_live_state(facts, situation)
    causes = session_causes(facts, session)
    causes += lost_workers(facts, situation, session.claims)
    if session.status == "running" and not session.paused:
        for queue in session.queues.values():
            units = [unit for unit in session.ready if unit.queue == queue.name]
            if units:
                causes.append(why_ready_waits(facts, queue, units))
        causes += [hidden for name, items in session.items.items() if (hidden := for_each_limit(name, items))]
    causes += deaths(facts, session.ready)
    if session.status in ("running", "paused"):
        causes += why_deferred(facts, session.deferred, session.deferred_total)
        causes += at_work(facts, situation, session.claims)
        causes += waiting_for_predecessors(facts, session)
    return causes + time_limits(facts, session)


def session_causes(facts: Facts, session: OpenSession) -> list[Cause]:
    """What keeps the run as a whole."""
    now_us = facts.situation.now_us if facts.situation else 0
    causes = [_paused(facts, session, why, now_us) for why in _PAUSED if why in session.paused]
    if session.status == "queued":
        causes += [_queued(session, level, now_us) for level in session.session_levels if level.position is not None]
    elif session.status == "ended":
        causes.append(_completion(session, now_us))
    elif session.status == "cancelled":
        why = session.stopped.why if session.stopped else "asked"
        running = sum(claim.count for claim in session.claims)
        at_work = f"{counted(running, 'branch or item', 'branches or items')} still at work are told to end"
        said = f"it was stopped ({why}), and ends when nothing of it is at work: {at_work}"
        causes.append(Cause(CauseCode.CANCELLING, said, details={"why": why, "at_work": running}))
    return causes


def without_live_state(facts: Facts, situation: Situation) -> list[Cause]:
    """A run that has not ended and is not in Redis: one process has it, or nobody."""
    age_us = situation.now_us - int(facts.row.created_at.timestamp() * 1e6) if facts.row else 0
    alive = len(situation.alive)
    causes: list[Cause] = []
    if situation.is_paused_at_start:
        said = "the run is to be paused as soon as its first branch has ended"
        causes.append(Cause(CauseCode.PAUSED, said, f"parallelizer resume {facts.flow_session_id}"))
    if alive and facts.row is not None and facts.row.retry_of is not None and facts.row.status is RunStatus.QUEUED:
        said = "the message that begins it is on its way to a process that is free"
        return [*causes, Cause(CauseCode.RUNNER_COMING, said, details={"age_seconds": age_us / 1e6})]
    if alive and (situation.is_held or age_us < facts.lease_us):
        step = facts.step_of(facts.shape.roots[0]) if facts.shape and len(facts.shape.roots) == 1 else None
        row = facts.tasks.get(step) if step else None
        where = f" on {row.worker}" if row and row.worker else ""
        what = f", now {step}" if step else ""
        said = f"one process{where} runs its first branch{what}; it has no other branches at work"
        details: dict[str, object] = {"worker": row.worker if row else None, "age_seconds": age_us / 1e6}
        tasks = (step,) if step else ()
        return [*causes, Cause(CauseCode.FIRST_BRANCH, said, "", tasks, len(tasks), details)]
    lost = "no worker holds its message and Redis has nothing of it"
    details = {"age_seconds": age_us / 1e6, "workers": alive}
    if not alive:
        said = f"{lost}; no worker is alive to take it up again"
        return [*causes, Cause(CauseCode.LOST, said, "celery -A tasks worker", details=details)]
    said = f"{lost}, so it was lost; a worker takes it up again within about {in_words(facts.lease_us / 1e6 + 5)}"
    return [*causes, Cause(CauseCode.LOST, said, details=details)]


def why_ready_waits(facts: Facts, queue: QueueState, units: Sequence[ReadyUnit]) -> Cause:
    """Why units of a running session that are ready on a queue have not been claimed."""
    situation, session = facts.situation, facts.session
    assert situation is not None
    assert session is not None
    tasks, total = _tasks_of(facts, session, units)
    since_us = min(unit.since_us for unit in units)
    waited = (situation.now_us - since_us) / 1e6
    details = {"queue": queue.name, "ready": total, "waited_seconds": round(waited, 6)}
    who = f"{some(tasks, total)} {'waits' if total == 1 else 'wait'}"
    if queue.slots <= 0:
        return _unserved(situation, queue, who, tasks, total, details)
    if situation.status_is_full:
        entries = situation.status_entries
        said = (
            f"{who} for the status channel, which is full: {entries:,} updates have not reached PostgreSQL, and "
            "nothing is claimed until a fifth of them has"
        )
        remedy = "see whether PostgreSQL answers and keeps up: parallelizer doctor"
        return Cause(CauseCode.STATUS_CHANNEL_FULL, said, remedy, tasks, total, {**details, "entries": entries})
    in_use = len(session.claims)
    if in_use >= session.limit:
        return _at_session_limit(facts, session, who, tasks, total, details)
    for level in session.levels:
        if level.limit and level.in_use >= level.limit and not queue.coming:
            return _at_level(facts, level, who, tasks, total, details)
    if session.turn and session.turn != queue.name and in_use + 1 >= session.limit:
        said = f"{who} for a permit, of which one is kept for the queue {session.turn}, whose work has waited longer"
        return Cause(CauseCode.TURN, said, "", tasks, total, {**details, "turn": session.turn, "limit": session.limit})
    in_flight = sum(queue.in_flight.values())
    if in_flight >= queue.slots and not queue.coming:
        return _slots_busy(facts, queue, who, tasks, total, details)
    if queue.coming:
        said = f"{who} for {counted(queue.coming, 'runner')} of it on the way to a worker of the queue {queue.name}"
        return Cause(CauseCode.RUNNER_COMING, said, "", tasks, total, {**details, "coming": queue.coming})
    if session.is_chord and not session.parked:
        said = f"{who} for a runner of the run's chord, none of which is free: each has its message under way"
        return Cause(CauseCode.RUNNER_COMING, said, "", tasks, total, {**details, "coming": 0, "parked": 0})
    said = f"nothing keeps {some(tasks, total)}: {queue.name} has {queue.slots - in_flight} free of {queue.slots} slots"
    return Cause(CauseCode.NEXT, said, "", tasks, total, {**details, "slots": queue.slots, "in_flight": in_flight})


def for_each_limit(name: str, items: Items) -> Cause | None:
    """A `for_each` that has as many chunks at work as it may."""
    left = items.size - items.cursor + items.back
    if not items.most or items.running < items.most or left <= 0:
        return None
    said = (
        f"{counted(left, 'item')} of {name} {'waits' if left == 1 else 'wait'} for its limit max_concurrent="
        f"{items.most}: {items.running} at work, {items.settled:,} of {items.size:,} have ended"
    )
    details = {"limit": items.most, "in_use": items.running, "left": left, "size": items.size, "ended": items.settled}
    return Cause(CauseCode.FOR_EACH_LIMIT, said, f"raise max_concurrent of {name}", (name,), left, details)


def why_deferred(facts: Facts, units: Sequence[DeferredUnit], total: int) -> list[Cause]:
    """Units that wait for a time: the first ones each, the others counted."""
    now_us = facts.situation.now_us if facts.situation else 0
    causes = [_deferred(facts, unit, now_us) for unit in units[:_MOST_TIMED]]
    left = total - len(causes)
    if left > 0:
        last = causes[-1]
        said = f"{left:,} more wait for later times"
        causes.append(Cause(last.code, said, "", (), left, {"more": left}))
    return causes


def waiting_for_predecessors(facts: Facts, session: OpenSession) -> list[Cause]:
    """How many tasks wait for those before them."""
    if facts.shape is None:
        return []
    begun = {name for unit in _units(session) for name in facts.shape.following_of(unit)} | set(session.items)
    waiting = [
        name for name in facts.shape.actions
        if not facts.has_ended(name) and name not in begun and facts.shape.needs[name]
    ]  # fmt: skip
    if not waiting:
        return []
    verb = "waits" if len(waiting) == 1 else "wait"
    said = f"{some(waiting)} {verb} for the actions before them"
    return [Cause(CauseCode.PREDECESSORS, said, "", tuple(waiting[:MOST_TASKS]), len(waiting), {"tasks": len(waiting)})]


def time_limits(facts: Facts, session: OpenSession) -> list[Cause]:
    """When what has not ended is ended whatever happens."""
    now_us = facts.situation.now_us if facts.situation else 0
    causes = []
    if session.deadline_us is not None and session.status not in ("ended", "cancelled"):
        left = (session.deadline_us - now_us) / 1e6
        said = f"what has not ended {f'in {in_words(left)}' if left > 0 else 'now'} is ended by the run's deadline"
        details = {"at": rfc3339(session.deadline_us), "left_seconds": round(left, 6)}
        causes.append(Cause(CauseCode.DEADLINE, said, "raise deadline_seconds", details=details))
    since = _waits_since(session)
    if session.max_wait_us is not None and since is not None and session.status in ("running", "queued"):
        expires = since + session.max_wait_us
        left = (expires - now_us) / 1e6
        what = "the run" if session.status == "queued" else "a branch that waits"
        when = f"in {in_words(left)}" if left > 0 else "now"
        said = f"{what} is timed out {when} if it has not begun (max_wait_seconds)"
        details = {"at": rfc3339(expires), "left_seconds": round(left, 6), "limit_seconds": session.max_wait_us / 1e6}
        causes.append(Cause(CauseCode.MAX_WAIT, said, "raise max_wait_seconds", details=details))
    return causes


def _units(session: OpenSession) -> Iterator[str]:
    units = [one.unit for one in session.claims] + [one.unit for one in session.ready]
    for unit in units + [one.unit for one in session.deferred]:
        kind, _, name = unit.partition(":")
        yield name.rpartition(":")[0] if kind == "c" else name


def _waits_since(session: OpenSession) -> int | None:
    """Since when the oldest branch waits that nobody has begun, or the queued session does."""
    if session.status == "queued":
        return session.opened_us
    untouched = [u.since_us for u in session.ready if u.unit.startswith("b:") and u.attempt == 1 and not u.retry]
    return max(min(untouched), session.began_us) if untouched else None


def _tasks_of(facts: Facts, session: OpenSession, units: Sequence[ReadyUnit]) -> tuple[tuple[str, ...], int]:
    """Names of what ready units stand for, MOST_TASKS at most, and how many tasks they are."""
    names: list[str] = []
    total = 0
    for unit in units:
        action, item = facts.task_of(unit.unit)
        if unit.unit.startswith("i:"):
            items = session.items[action]
            left = items.size - items.cursor + items.back
            names.append(f"{counted(left, 'item')} of {action}")
            total += 1
        else:
            names.append(task_name(action, item))
            total += 1
    return tuple(names[:MOST_TASKS]), total


def _paused(facts: Facts, session: OpenSession, why: str, now_us: int) -> Cause:
    said, remedy = _PAUSED[why]
    details: dict[str, object] = {"why": why}
    known = session.paused_by.get(why)
    if known is not None:
        who, at_us = known
        details |= {"by": who, "at": rfc3339(at_us)}
        said += f", by {who or 'somebody'}, {in_words((now_us - at_us) / 1e6)} ago"
    return Cause(
        CauseCode.PAUSED, said, remedy.format(session=facts.flow_session_id, workflow=session.workflow), details=details
    )


def _queued(session: OpenSession, level: Level, now_us: int) -> Cause:
    waited = (now_us - session.opened_us) / 1e6
    holders = [f"{name}" for name, _ in level.holders]
    assert level.position is not None
    said = (
        f"queued for {in_words(waited)} at the limit {level.name}={level.limit}, at position {level.position} of "
        f"{level.waiting}: {level.in_use} of {level.limit} runs are under way ({some(holders, level.in_use)})"
    )
    details = {
        "limit": level.name, "value": level.limit, "in_use": level.in_use, "position": level.position,
        "behind": level.position - 1, "waiting": level.waiting, "holders": holders[:MOST_TASKS],
        "set_by": _set_by(level.by_operator), "waited_seconds": round(waited, 6),
    }  # fmt: skip
    return Cause(CauseCode.QUEUED, said, _raise(level), details=details)


def _completion(session: OpenSession, now_us: int) -> Cause:
    ended = (now_us - (session.ended_us or now_us)) / 1e6
    said = f"all its branches have settled {in_words(ended)} ago; its end is about to be recorded"
    details: dict[str, object] = {"ended_seconds": round(ended, 6), "published_again": session.again}
    if session.again:
        said += f", which was asked for again {counted(session.again, 'time')}"
    if session.complete_at_us is not None:
        details["next_at"] = rfc3339(session.complete_at_us)
        said += f", next in {in_words(max(0.0, (session.complete_at_us - now_us) / 1e6))}"
    return Cause(CauseCode.COMPLETION, said, "parallelizer doctor says whether PostgreSQL and a worker answer",
                 details=details)  # fmt: skip


def _unserved(
    situation: Situation, queue: QueueState, who: str, tasks: tuple[str, ...], total: int, details: dict[str, object]
) -> Cause:
    start = f"start one: celery -A tasks worker -Q {queue.name}"
    if not queue.registered:
        said = f"{who} for a worker of the queue {queue.name}, which none serves"
        return Cause(CauseCode.NO_WORKER, said, start, tasks, total, {**details, "workers": []})
    gone = sorted(queue.workers)
    until = max((situation.workers.get(name, 0) for name in gone), default=0)
    ago = (situation.now_us - until) / 1e6
    said = (
        f"{who} for a worker of the queue {queue.name}: the lease of {some(gone)} was over {in_words(ago)} ago, and no "
        "other serves it"
    )
    details |= {"workers": gone, "lease_over_seconds": round(ago, 6), "lease_over_at": rfc3339(until)}
    return Cause(CauseCode.NO_WORKER, said, start, tasks, total, details)


def _at_session_limit(
    facts: Facts, session: OpenSession, who: str, tasks: tuple[str, ...], total: int, details: dict[str, object]
) -> Cause:
    names = [claimed_name(facts, claim) for claim in session.claims]
    in_use = len(session.claims)
    said = (
        f"{who} for the limit session:{facts.flow_session_id}={session.limit}: {in_use} of {session.limit} permits in "
        f"use, by {some(names)}"
    )
    remedy = f"parallelizer limits set session:{facts.flow_session_id} N, or max_concurrent_branches"
    details |= {
        "limit": f"session:{facts.flow_session_id}", "value": session.limit, "in_use": in_use,
        "holders": names[:MOST_TASKS], "set_by": _set_by(session.limit_by_operator),
    }  # fmt: skip
    return Cause(CauseCode.SESSION_LIMIT, said, remedy, tasks, total, details)


def _at_level(
    facts: Facts, level: Level, who: str, tasks: tuple[str, ...], total: int, details: dict[str, object]
) -> Cause:
    holders = [f"{_this(facts, name)} ({number})" for name, number in level.holders]
    said = (
        f"{who} for the limit {level.name}={level.limit}: {level.in_use} of {level.limit} permits in use, by "
        f"{some(holders)}"
    )
    if level.position is not None:
        said += f"; {counted(level.position - 1, 'run')} before it"
    details |= {
        "limit": level.name, "value": level.limit, "in_use": level.in_use, "holders": dict(level.holders[:MOST_TASKS]),
        "position": level.position, "behind": None if level.position is None else level.position - 1,
        "waiting": level.waiting, "set_by": _set_by(level.by_operator),
    }  # fmt: skip
    return Cause(CauseCode.LIMIT, said, _raise(level), tasks, total, details)


def _slots_busy(
    facts: Facts, queue: QueueState, who: str, tasks: tuple[str, ...], total: int, details: dict[str, object]
) -> Cause:
    in_flight = sum(queue.in_flight.values())
    on = [f"{_this(facts, name)} ({number})" for name, number in queue.in_flight.items()]
    said = f"{who} for a free slot of the queue {queue.name}: {in_flight} of {queue.slots} are busy, with {some(on)}"
    if queue.position is not None:
        said += f"; {counted(queue.position - 1, 'run')} before it"
    details |= {
        "slots": queue.slots, "in_flight": in_flight, "holders": dict(list(queue.in_flight.items())[:MOST_TASKS]),
        "workers": len(queue.workers), "position": queue.position,
        "behind": None if queue.position is None else queue.position - 1, "waiting": queue.waiting,
    }  # fmt: skip
    remedy = f"start another worker: celery -A tasks worker -Q {queue.name}, or one with more --concurrency"
    return Cause(CauseCode.SLOTS_BUSY, said, remedy, tasks, total, details)


def _deferred(facts: Facts, unit: DeferredUnit, now_us: int) -> Cause:
    action, item = facts.task_of(unit.unit)
    name = task_name(action, item)
    left = max(0.0, (unit.due_us - now_us) / 1e6)
    attempt = unit.attempt + unit.retry
    shape = facts.shape.actions.get(action) if facts.shape else None
    if (action, item) in facts.rate_places:
        rates = list(shape.rates) if shape else []
        said = f"{name} waits for its turn by the rate limit {some(rates) or 'of its action'}, in {in_words(left)}"
        details = {"rates": rates, "at": rfc3339(unit.due_us), "left_seconds": round(left, 6)}
        return Cause(CauseCode.RATE_LIMIT, said, "raise rate_limit", (name,), 1, details)
    most = shape.max_attempts if shape else None
    row = facts.row_of(action, item)
    error = row.error if row else None
    failed = f", since attempt {attempt - 1} failed: {error_in_words(error)}" if error else ""
    of = f" of {most}" if most else ""
    said = f"{name} is tried again in {in_words(left)}, attempt {attempt}{of}{failed}"
    details = {"attempt": attempt, "max_attempts": most, "at": rfc3339(unit.due_us), "left_seconds": round(left, 6),
               "error": error}  # fmt: skip
    return Cause(CauseCode.RETRY, said, "", (name,), 1, details)


def _this(facts: Facts, flow_session_id: str) -> str:
    return "this run" if flow_session_id == facts.flow_session_id else f"run {flow_session_id}"


def _set_by(by_operator: bool) -> str:
    return "operator" if by_operator else "settings and definitions"


def _raise(level: Level) -> str:
    return f"parallelizer limits set {level.name} N"


def error_in_words(error: object, most: int = 200) -> str:
    """A recorded error (an object with `type` and `message`) as `Type: message`."""
    if not isinstance(error, dict):
        return "" if error is None else str(error)[:most]
    kind = str(error.get("type") or "").rpartition(".")[2]
    return ": ".join(part for part in (kind, str(error.get("message") or "")) if part)[:most]
