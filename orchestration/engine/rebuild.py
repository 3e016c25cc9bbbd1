"""What of a flow session has been done, by what PostgreSQL knows of it, as settlements that open it again.

Called when a session that was accepted has no live state: Redis has lost it, or the process died that ran its first
branch. Decides only: `open_session` settles what comes out here, in one call, by the code that settles a runner's.

A branch has been done when all its actions have ended and all branches before it have been done; of any other, what has
ended is kept as checkpoints. So a gap in the record costs hardly more than the actions that it hides. What had begun
comes back with a number above that of all its rows, which a newer row must have to win.

What if it dies here: nothing has been written.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import orjson

from orchestration.engine.branch import join_steps, outcome_of
from orchestration.engine.context import ProcessingContext, retries_field
from orchestration.engine.results import NO_RESULT, STORED, counts_of, keep_ended, keep_items, keep_success
from orchestration.errors import ActionError, ExpressionError
from orchestration.plan import Branch, PlannedAction
from orchestration.state.records import GAPS_FIELD
from orchestration.state.rows import place_of
from orchestration.store import results as stored_results
from orchestration.store.recovery import Facts, TaskFact
from orchestration.vocabulary import Claim, ItemCounts, Outcome, Settlement, TaskStatus, UnitKind

#: Says that the results of items are to be read from PostgreSQL (with `item_results_cap` 0).
_IN_RECORD = b"[]"


@dataclass(slots=True)
class Rebuilt:
    """What has been done."""

    #: In an order in which it could have been.
    settlements: list[Settlement] = field(default_factory=list)
    #: What is kept of tasks that have ended, by action.
    results: dict[str, bytes] = field(default_factory=dict)


def rebuild(context: ProcessingContext, facts: Facts, now_us: int, *, crashed: bool) -> Rebuilt:
    """What has been done of a session.

    Args: context: of no live state; it learns the results. now_us: by Redis. crashed: a process died in it, which
        counts as an attempt of what had begun.
    """
    return _Rebuilding(context, facts, now_us, crashed).run()


class _Rebuilding:
    def __init__(self, context: ProcessingContext, facts: Facts, now_us: int, crashed: bool) -> None:
        self._context = context
        self._facts = facts
        self._now_us = now_us
        self._crashed = crashed
        self._rebuilt = Rebuilt()

    def run(self) -> Rebuilt:
        plan = self._context.plan
        ready, joined = [plan.branches[name] for name in plan.roots], dict.fromkeys(plan.branches, 0)
        context = self._context
        context.read_items = lambda action, size: stored_results.item_results(
            context.stores.database, context.flow_session_id, context.day, action, size
        )
        while ready:
            branch = ready.pop()
            self._keep_ended(branch)
            if not (self._for_each(branch) if branch.is_for_each else self._plain(branch)):
                continue
            for successor in branch.successors:
                joined[successor.branch] += 1
                if joined[successor.branch] == successor.predecessors:
                    ready.append(plan.branches[successor.branch])
        context.read_items = None
        self._keep_rest({name for name, number in joined.items() if number < plan.branches[name].predecessors})
        return self._rebuilt

    def _keep_rest(self, unreached: Iterable[str]) -> None:
        """Of branches of which something before them is not recorded: what has ended of them is not run again."""
        before = len(self._rebuilt.results)
        for name in unreached:
            branch = self._context.plan.branches[name]
            if not branch.is_for_each:
                self._keep_ended(branch)
        if len(self._rebuilt.results) > before:
            self._rebuilt.results[GAPS_FIELD] = b"1"
            self._context.has_gaps = True

    def _keep_ended(self, branch: Branch) -> None:
        """What is kept of the actions that have ended: somebody reads it, or it is a checkpoint."""
        for action in branch.actions:
            fact = self._ended(action)
            if fact is not None:
                kept = kept_of(action, fact)
                self._rebuilt.results[action.name] = kept
                self._context.remember_kept(action.name, kept)

    def _ended(self, action: PlannedAction) -> TaskFact | None:
        """How an action ended; None: it has not, or somebody reads its result, or an item's, which is not recorded."""
        fact = self._facts.tasks.get(action.name)
        if fact is None or not fact.status.is_final:
            return None
        if action.name in self._context.reads:
            items = counts_in(fact) if action.items is not None else None
            if items is not None:
                recorded = self._facts.items.get(action.name, {}).values()
                return fact if sum(item.status.is_final for item in recorded) >= items.size else None
            if fact.status is TaskStatus.SUCCEEDED and fact.result is None:
                return None
        return fact

    def _plain(self, branch: Branch) -> bool:
        """Whether all of the branch has been done."""
        ended = [self._ended(action) for action in branch.actions]
        statuses = [fact.status for fact in ended if fact is not None]
        if len(statuses) < len(ended):
            self._begun(branch)
            return False
        last = branch.actions[-1]
        for action in branch.actions:
            if action.name not in self._context.reads:
                del self._rebuilt.results[action.name]
        counts: dict[str, int] = {}
        for status in statuses:
            counts[status.value] = counts.get(status.value, 0) + 1
        self._done(branch, f"b:{branch.name}", UnitKind.BRANCH, outcome_of(last, statuses[-1]), counts)
        return True

    def _begun(self, branch: Branch) -> None:
        """A branch that has not been done is ready: behind its rows, if there are any."""
        facts = [fact for action in branch.actions if (fact := self._facts.tasks.get(action.name)) is not None]
        sequences = [fact.sequence for fact in facts]
        if branch.name in self._facts.branches:
            sequences.append(self._facts.branches[branch.name])
        if not sequences and not (self._crashed and not branch.predecessors):
            return
        attempt, retry = place_of(max(sequences)) if sequences else (1, -1)
        attempt, retry = (attempt + 1, 0) if self._crashed else (attempt, retry + 1)
        for action in branch.actions:
            fact = self._facts.tasks.get(action.name)
            if fact is not None and not fact.status.is_final:
                tried = fact.attempt - place_of(fact.sequence)[0] + (fact.status is TaskStatus.PENDING)
                if tried > 0:
                    self._rebuilt.results[retries_field(action.name)] = str(tried).encode()
        claim = self._claim(UnitKind.BRANCH, branch.name, f"b:{branch.name}", attempt, 1, retry)
        self._rebuilt.settlements.append(Settlement(claim, "back"))

    def _done(
        self, branch: Branch, unit: str, kind: UnitKind, outcome: Outcome, counts: dict[str, int]
    ) -> None:  # fmt: skip
        fails = branch.actions[-1].is_leaf and outcome in (Outcome.FAILED, Outcome.UPSTREAM_FAILED)
        self._rebuilt.settlements.append(
            Settlement(
                self._claim(kind, branch.name, unit, 1, 1, 0), "done", counts=counts, outcome=outcome,
                fails_session=fails, successors=join_steps(branch),
            )
        )  # fmt: skip

    # for_each

    def _for_each(self, branch: Branch) -> bool:
        """Whether all of a `for_each` has been done; its items that have are settled in any case."""
        action = branch.actions[0]
        end = self._ended(action)
        if end is None:
            self._items(branch, action)
            return False
        outcome, items = outcome_of(action, end.status), counts_in(end)
        if items is None or not items.size:
            is_expanded = items is not None and end.status is TaskStatus.SUCCEEDED
            self._done(
                branch, f"b:{branch.name}", UnitKind.BRANCH, outcome, {} if is_expanded else {end.status.value: 1}
            )
        else:
            counts = {status: number for status, number in counts_of(items).items() if number and status != "total"}
            self._expand(branch, action, items.size)
            self._rebuilt.settlements.append(self._settled(action, 0, items.size, counts))
            self._done(branch, f"f:{branch.name}", UnitKind.FINISH, outcome, counts)
        if action.name not in self._context.reads:
            self._rebuilt.results.pop(action.name, None)
        return True

    def _items(self, branch: Branch, action: PlannedAction) -> None:
        facts = self._facts.items.get(action.name)
        if not facts:
            self._begun(branch)
            return
        try:
            size = len(self._context.items(action))
        except (ExpressionError, ActionError):
            return  # the runner that expands it says so
        self._expand(branch, action, size)
        self._rebuilt.settlements += self._runs(action, {item: facts[item] for item in sorted(facts) if item < size})

    def _runs(self, action: PlannedAction, facts: Mapping[int, TaskFact]) -> Iterator[Settlement]:
        """Items up to the last that is known: those that have ended, and between them those that are to run."""
        start, ended = 0, dict[str, int]()
        for item, fact in facts.items():
            known = start + sum(ended.values())
            if ended and (item > known or not fact.status.is_final):
                yield self._settled(action, start, known - start, ended)
                start, ended = known, {}
            if item > start and not ended:
                yield Settlement(self._chunk(action, start, item - start, 1, 0), "back")
                start = item
            if fact.status.is_final:
                ended[fact.status.value] = ended.get(fact.status.value, 0) + 1
                continue
            attempt, retry = place_of(fact.sequence)
            attempt, retry = (
                (attempt + 1, 0) if self._crashed else (attempt, retry + (fact.status is TaskStatus.PENDING))
            )
            yield Settlement(self._chunk(action, item, 1, attempt, retry), "back")
            start = item + 1
        if ended:
            yield self._settled(action, start, sum(ended.values()), ended)

    def _expand(self, branch: Branch, action: PlannedAction, size: int) -> None:
        claim = self._claim(UnitKind.BRANCH, branch.name, f"b:{branch.name}", 1, 1, 0)
        self._rebuilt.settlements.append(
            Settlement(claim, "expand", size=size, max_concurrent=action.max_concurrent or 0)
        )

    def _settled(self, action: PlannedAction, start: int, count: int, counts: dict[str, int]) -> Settlement:
        results = _IN_RECORD if action.name in self._context.reads else b""
        return Settlement(
            self._chunk(action, start, count, 1, 0), "items", counts=counts, settled=count, item_results=results
        )

    def _chunk(self, action: PlannedAction, start: int, count: int, attempt: int, retry: int) -> Claim:
        return self._claim(UnitKind.CHUNK, action.name, f"c:{action.name}:{start}", attempt, count, retry, start)

    def _claim(
        self, kind: UnitKind, name: str, unit: str, attempt: int, count: int, retry: int, start: int = 0
    ) -> Claim:  # fmt: skip
        """Nobody's: no life can have it."""
        value = f"|{attempt}|{count}|{retry}|{self._now_us}|{self._now_us}"
        return Claim(kind, name, unit, value, attempt, retry, start, count)


def kept_of(action: PlannedAction, fact: TaskFact) -> bytes:
    """What Redis keeps of a task that has ended, by what is recorded of it."""
    if action.items is not None and (items := counts_in(fact)) is not None:
        return keep_items(fact.status, items)
    if fact.status is not TaskStatus.SUCCEEDED:
        return keep_ended(fact.status, None if fact.error is None else orjson.loads(fact.error))
    if fact.is_stored and fact.result is not None and stored_results.is_stored_mark(fact.result):
        return STORED
    return keep_success(NO_RESULT if fact.result is None else fact.result.encode())


def counts_in(fact: TaskFact) -> ItemCounts | None:
    """Of a `for_each` that has ended: how its items did; None: it never was expanded."""
    if fact.result is None:
        return None
    counts = orjson.loads(fact.result)
    return ItemCounts(
        counts["total"], counts["succeeded"], counts["failed"], counts["timed_out"], counts["skipped"],
        counts["cancelled"],
    )  # fmt: skip
