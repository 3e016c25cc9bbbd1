"""What is at work, and what was when its process or worker was lost: claims → causes. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from orchestration.reports.explain.facts import Facts
from orchestration.reports.explain.model import MOST_TASKS, Cause, CauseCode, in_words, rfc3339, some, task_name
from orchestration.state.situation import ClaimedUnit, ReadyUnit, Situation
from orchestration.vocabulary import NO_ITEM


def at_work(facts: Facts, situation: Situation, claims: Sequence[ClaimedUnit]) -> list[Cause]:
    """What is at work on workers that live."""
    live = [claim for claim in claims if not _is_silent(facts, situation, claim)]
    if not live:
        return []
    names = tuple(claimed_name(facts, claim) for claim in live[:MOST_TASKS])
    longest = min(claim.since_us for claim in live)
    workers = sorted({claim.worker for claim in live})
    seconds = (situation.now_us - longest) / 1e6
    verb = "is" if len(live) == 1 else "are"
    said = f"{some(names, len(live))} {verb} at work on {some(workers)}, for {in_words(seconds)} at most"
    details = {"at_work": len(live), "workers": workers, "longest_seconds": round(seconds, 6)}
    return [Cause(CauseCode.RUNNING, said, "", names, len(live), details)]


def lost_workers(facts: Facts, situation: Situation, claims: Sequence[ClaimedUnit]) -> list[Cause]:
    """Units whose worker does not renew its lease: one cause for each worker."""
    silent = [claim for claim in claims if _is_silent(facts, situation, claim)]
    return [
        _lost_worker(facts, situation, worker, [claim for claim in silent if claim.worker == worker])
        for worker in sorted({claim.worker for claim in silent})
    ]


def deaths(facts: Facts, units: Iterable[ReadyUnit]) -> Iterator[Cause]:
    """Units that are ready again because the process or the worker that ran them is gone."""
    session = facts.session
    for unit in list(units)[:MOST_TASKS]:
        if session is None or unit.attempt < 2:
            continue
        how = session.deaths.get(unit.unit, "")
        name = task_name(*facts.task_of(unit.unit))
        lost = how == "with its worker"
        code = CauseCode.WORKER_LOST if lost else CauseCode.PROCESS_DIED
        ended = "its worker was lost" if lost else f"the process that ran it died{f' {how}' if how else ''}"
        said = f"{name} is to run again, attempt {unit.attempt + unit.retry}: {ended}"
        details = {"attempt": unit.attempt + unit.retry, "crashes": unit.attempt - 1, "how": how}
        yield Cause(code, said, "", (name,), 1, details)


def claimed_name(facts: Facts, claim: ClaimedUnit) -> str:
    """A claim by the task, or the items, that it is of."""
    action, item = facts.task_of(claim.unit)
    if claim.count > 1 and item != NO_ITEM:
        return f"{action}[{item}…{item + claim.count - 1}]"
    return task_name(action, item)


def _is_silent(facts: Facts, situation: Situation, claim: ClaimedUnit) -> bool:
    """Whether its worker has missed a renewal: it makes one every third of a lease."""
    until = claim.lease_until_us
    return until is None or until - situation.now_us < facts.lease_us / 2


def _lost_worker(facts: Facts, situation: Situation, worker: str, claims: Sequence[ClaimedUnit]) -> Cause:
    names = tuple(claimed_name(facts, claim) for claim in claims[:MOST_TASKS])
    details: dict[str, object] = {"worker": worker, "is_registered": worker in situation.workers}
    verb = "was" if len(claims) == 1 else "were"
    until_us = min((claim.lease_until_us for claim in claims if claim.lease_until_us is not None), default=None)
    if until_us is None:
        said = f"{some(names, len(claims))} {verb} at work on {worker}, which was given up; it runs again"
        return Cause(CauseCode.WORKER_LOST, said, "", names, len(claims), details)
    left = (until_us - situation.now_us) / 1e6
    details |= {"lease_over_at": rfc3339(until_us), "lease_left_seconds": round(left, 6)}
    gone = "" if worker in situation.workers else "is gone and "
    said = (
        f"{some(names, len(claims))} {verb} at work on {worker}, which {gone}has not renewed its lease for "
        f"{in_words(facts.lease_us / 1e6 - left)}: "
    )
    remedy = ""
    if left > 0:
        said += f"it is taken for lost in {in_words(left)}, and what it ran is then ready again"
    elif situation.now_us < situation.graced_until_us:
        grace = (situation.graced_until_us - situation.now_us) / 1e6
        said += f"Redis was away, so nobody is taken for lost for another {in_words(grace)}"
        details["graced_seconds"] = round(grace, 6)
    elif not situation.alive:
        said += f"the lease was over {in_words(-left)} ago, and no worker is alive that would give it up"
        remedy = "start a worker: celery -A tasks worker"
    else:
        said += f"the lease was over {in_words(-left)} ago, and it is about to be given up"
    return Cause(CauseCode.WORKER_LOST, said, remedy, names, len(claims), details)
