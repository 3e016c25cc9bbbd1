"""Why one task is not running, or ended as it did: facts → causes. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from orchestration.reports.explain.claims import at_work, deaths, lost_workers
from orchestration.reports.explain.facts import Facts
from orchestration.reports.explain.failing import why_task_ended
from orchestration.reports.explain.model import (
    MOST_TASKS,
    Cause,
    CauseCode,
    counted,
    in_words,
    some,
    task_name,
)
from orchestration.reports.explain.waiting import (
    for_each_limit,
    session_causes,
    time_limits,
    why_deferred,
    why_ready_waits,
    without_live_state,
)
from orchestration.state.situation import ClaimedUnit, DeferredUnit, OpenSession, ReadyUnit, Situation
from orchestration.vocabulary import NO_ITEM, TaskStatus


def why_task(facts: Facts, action: str, item: int = NO_ITEM) -> tuple[str, list[Cause]]:
    """The status of a task, and why it stands so, the cause of its own first."""
    row = facts.row_of(action, item)
    if row is not None and row.status.is_final:
        return row.status.value, [why_task_ended(facts, row)]
    if facts.row is not None and facts.row.status.is_final:
        return _never_recorded(facts, action, item)
    situation, session = facts.situation, facts.session
    if situation is None:
        return (row.status if row else TaskStatus.PENDING).value, []
    if session is None:
        return _without_live_state(facts, situation, action)
    status, causes = _in_session(facts, situation, session, action, item)
    whole = session_causes(facts, session)
    if status == TaskStatus.RUNNING.value:
        return status, causes + time_limits(facts, session)
    return status, whole + causes + time_limits(facts, session)


def _in_session(
    facts: Facts, situation: Situation, session: OpenSession, action: str, item: int
) -> tuple[str, list[Cause]]:
    claim = _claim_of(facts, session, action, item)
    if claim is not None:
        lost = lost_workers(facts, situation, [claim])
        return TaskStatus.RUNNING.value, lost or at_work(facts, situation, [claim])
    is_held_up = session.status != "running" or bool(session.paused)
    deferred = _deferred_of(facts, session, action, item)
    if deferred is not None:
        return TaskStatus.PENDING.value, why_deferred(facts, [deferred], 1)
    ready = _ready_of(facts, session, action, item)
    if ready is not None:
        died = list(deaths(facts, [ready]))
        return TaskStatus.PENDING.value, died if is_held_up else [*_ready(facts, session, ready, action, item), *died]
    items = session.items.get(action)
    if items is not None:
        return _in_for_each(facts, situation, session, action, item)
    return TaskStatus.PENDING.value, _waits_for_predecessors(facts, session, action)


def _ready(facts: Facts, session: OpenSession, ready: ReadyUnit, action: str, item: int) -> list[Cause]:
    cause = why_ready_waits(facts, session.queues[ready.queue], [ready])
    if item == NO_ITEM or not ready.unit.startswith("i:"):
        return [cause]
    before = max(0, item - session.items[action].cursor)
    said = f"{task_name(action, item)} has {counted(before, 'item')} of {action} before it; {cause.sentence}"
    details = {**cause.details, "items_before": before}
    return [Cause(cause.code, said, cause.remedy, (task_name(action, item),), 1, details)]


def _in_for_each(
    facts: Facts, situation: Situation, session: OpenSession, action: str, item: int
) -> tuple[str, list[Cause]]:
    items = session.items[action]
    limit = for_each_limit(action, items)
    claims = [claim for claim in session.claims if claim.unit.startswith(f"c:{action}:")]
    causes = [] if limit is None else [limit]
    if item != NO_ITEM and item < items.cursor and not items.back:
        said = f"{task_name(action, item)} has ended, or is about to; its row has not reached PostgreSQL"
        return TaskStatus.PENDING.value, [Cause(CauseCode.NEXT, said, "", (task_name(action, item),), 1)]
    deferred = [unit for unit in session.deferred if unit.unit.startswith(f"c:{action}:")]
    causes += at_work(facts, situation, claims)
    if deferred and item == NO_ITEM:
        causes += why_deferred(facts, deferred, len(deferred))
    return (TaskStatus.RUNNING if claims else TaskStatus.PENDING).value, causes


def _waits_for_predecessors(facts: Facts, session: OpenSession, action: str) -> list[Cause]:
    """What it waits for, and why those that are not at work wait themselves."""
    assert facts.shape is not None
    needs = facts.shape.needs[action]
    left = [need for need in needs if not facts.has_ended(need)]
    standing = _standing(facts, session)
    stand = {need: standing.get(need, "waits for others") for need in left[:MOST_TASKS]}
    shown = some([f"{need} ({how})" for need, how in stand.items()], len(left))
    of = f"{len(left)} of {counted(len(needs), 'action')} before it" if needs else "its turn"
    said = f"{action} waits for {of}: {shown}" if left else f"{action} is about to be ready: all before it have ended"
    details = {"left": left[:MOST_TASKS], "left_total": len(left), "needs": len(needs), "standing": stand}
    causes = [Cause(CauseCode.PREDECESSORS, said, "", (action,), 1, details)]
    for first in _frontier(facts, standing, left)[:MOST_TASKS]:
        situation = facts.situation
        assert situation is not None
        for cause in _in_session(facts, situation, session, first, NO_ITEM)[1]:
            if cause not in causes and cause.code is not CauseCode.PREDECESSORS:
                causes.append(cause)
    return causes


def _frontier(facts: Facts, standing: Mapping[str, str], names: list[str]) -> list[str]:
    """Of what is before a task, that which waits for no other."""
    assert facts.shape is not None
    seen, stack, found = set(names), list(reversed(names)), list[str]()
    while stack:
        name = stack.pop()
        before = [need for need in facts.shape.needs[name] if not facts.has_ended(need)]
        if not before or name in standing:
            found.append(name)
            continue
        for need in before:
            if need not in seen:
                seen.add(need)
                stack.append(need)
    return found


def _standing(facts: Facts, session: OpenSession) -> dict[str, str]:
    """How actions stand that have not ended and wait for no other, in a word or two."""
    found = {name: f"{items.settled:,} of {items.size:,} items have ended" for name, items in session.items.items()}
    for word, units in (
        ("ready", [unit.unit for unit in session.ready]),
        ("waits for a time", [unit.unit for unit in session.deferred]),
        ("running", [claim.unit for claim in session.claims]),
    ):
        for unit in units:
            action, item = facts.task_of(unit)
            if item == NO_ITEM and action not in session.items:
                found[action] = word
    return found


def _claim_of(facts: Facts, session: OpenSession, action: str, item: int) -> ClaimedUnit | None:
    for claim in session.claims:
        name, start = facts.task_of(claim.unit)
        if name == action and (start <= item < start + claim.count if start != NO_ITEM else item == NO_ITEM):
            return claim
    return None


def _deferred_of(facts: Facts, session: OpenSession, action: str, item: int) -> DeferredUnit | None:
    return next((unit for unit in session.deferred if facts.task_of(unit.unit) == (action, item)), None)


def _ready_of(facts: Facts, session: OpenSession, action: str, item: int) -> ReadyUnit | None:
    """The unit by which the task is ready: its own, or that of all items of its `for_each` which nobody has claimed."""
    for unit in session.ready:
        name, _ = facts.task_of(unit.unit)
        is_items = unit.unit.startswith("i:")
        waits = not is_items or item == NO_ITEM or item >= session.items[action].cursor or session.items[action].back
        if name == action and (item == NO_ITEM or is_items) and waits:
            return unit
    return None


def _without_live_state(facts: Facts, situation: Situation, action: str) -> tuple[str, list[Cause]]:
    causes = without_live_state(facts, situation)
    if facts.shape is None or len(facts.shape.roots) != 1:
        return TaskStatus.PENDING.value, causes
    step = facts.step_of(facts.shape.roots[0])
    if step == action and causes[-1].code is CauseCode.FIRST_BRANCH:
        return TaskStatus.RUNNING.value, causes
    needs = [need for need in facts.shape.needs[action] if not facts.has_ended(need)]
    said = f"{action} waits for {some(needs)}" if needs else f"{action} has not begun"
    own = Cause(CauseCode.PREDECESSORS, said, "", (action,), 1, {"left": needs[:MOST_TASKS], "left_total": len(needs)})
    return TaskStatus.PENDING.value, [own, *causes]


def _never_recorded(facts: Facts, action: str, item: int) -> tuple[str, list[Cause]]:
    """Of a run that has ended, a task without a row of its end."""
    assert facts.row is not None
    name = task_name(action, item)
    if item != NO_ITEM and action in facts.tasks and facts.tasks[action].status.is_final:
        cause = why_task_ended(facts, facts.tasks[action])
        said = f"{name} never began: {cause.sentence}"
        return TaskStatus.PENDING.value, [Cause(cause.code, said, cause.remedy, (name,), 1, cause.details)]
    ended = (facts.row.finished_at.timestamp() if facts.row.finished_at else 0.0) * 1e6
    now_us = facts.situation.now_us if facts.situation else ended
    ago = in_words(max(0.0, (now_us - ended) / 1e6))
    said = f"the run ended {ago} ago, and nothing of {name} is recorded; what was on its way may come, or be lost"
    return TaskStatus.PENDING.value, [Cause(CauseCode.LOST, said, "parallelizer dead-letters list", (name,), 1)]
