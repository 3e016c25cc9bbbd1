"""Definition → plan: branches and the joins between them, with every expression ready to be evaluated. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from types import MappingProxyType

from orchestration.definition.check import MAX_ACTIONS, ensure_checked
from orchestration.definition.expressions import Condition, ItemSource, Template
from orchestration.definition.rates import parse_rate
from orchestration.definition.schema import ActionDefinition, Definition, LimitsDefinition, RetryDefinition
from orchestration.plan.model import KEY_RATE, Branch, Limits, Plan, PlannedAction, RetryPolicy, Successor
from orchestration.vocabulary import Dispatch


def compile_plan(definition: Definition, *, max_actions: int = MAX_ACTIONS) -> Plan:
    """Compile a definition; 20,000 actions take about a second.

    A definition from `load_definition` has been checked already; any other is checked first. The actions it uses must
    have been loaded (`registry.load_actions`).
    Raises: DefinitionError: with all mistakes.
    """
    ensure_checked(definition, max_actions)
    successors: dict[str, list[str]] = {name: [] for name in definition.actions}
    for name, action in definition.actions.items():
        for need in action.needs:
            successors[need].append(name)
    actions = {
        name: _planned(definition, name, action, tuple(successors[name])) for name, action in definition.actions.items()
    }
    branches = _branches(actions)
    return Plan(
        workflow=definition.name,
        version_id=definition.version_id,
        actions=MappingProxyType(actions),
        branches=MappingProxyType(branches),
        roots=tuple(name for name, branch in branches.items() if branch.predecessors == 0),
        limits=_limits(definition.limits),
        output=None if definition.output is None else Template(definition.output),
        payload_schema=definition.payload_schema,
        dispatch=None if definition.dispatch is None else Dispatch(definition.dispatch),
        places=MappingProxyType(
            {
                action.name: (branch.name, place)
                for branch in branches.values()
                for place, action in enumerate(branch.actions)
            }
        ),
    )


def _limits(limits: LimitsDefinition) -> Limits:
    return Limits(
        limits.max_concurrent_branches,
        limits.branch_timeout_seconds,
        limits.weight,
        limits.max_concurrent_branches_of_workflow,
        limits.max_concurrent_branches_per_key,
        None if limits.concurrency_key is None else Template(limits.concurrency_key),
        limits.max_concurrent_sessions,
        limits.max_concurrent_sessions_per_key,
        limits.when_full or "queue",
        limits.deadline_seconds,
        limits.max_wait_seconds,
    )


def _planned(definition: Definition, name: str, action: ActionDefinition, successors: tuple[str, ...]) -> PlannedAction:
    return PlannedAction(
        name=name,
        uses=action.uses,
        needs=action.needs,
        successors=successors,
        rule=action.trigger_rule,
        condition=None if action.condition is None else Condition(action.condition),
        inputs=Template(action.inputs),
        items=None if action.for_each is None else ItemSource(action.for_each),
        retry=_retry(action.retry),
        timeout_seconds=action.timeout_seconds,
        queue=definition.queue_of(name),
        continue_on_failure=action.continue_on_failure,
        max_concurrent=action.max_concurrent,
        durability=action.durability,
        rates=(
            *_rates(f"{definition.name}/{name}", action.rate_limit),
            *_rates(definition.name, definition.limits.rate_limit),
            *_rates(KEY_RATE, definition.limits.rate_limit_per_key),
        ),
    )


def _rates(name: str, text: str | None) -> Iterator[tuple[str, int, int]]:
    rate = parse_rate(text) if text else None
    if rate is not None:
        yield name, rate.interval_us, rate.burst


def _retry(retry: RetryDefinition | None) -> RetryPolicy:
    if retry is None:
        return RetryPolicy()
    return RetryPolicy(
        max_attempts=retry.max_attempts,
        delay_ms=round(retry.delay_seconds * 1000),
        backoff=retry.backoff,
        max_delay_ms=round(retry.max_delay_seconds * 1000),
        jitter=retry.jitter,
        retry_on=retry.retry_on,
        never_on=retry.never_on,
    )


def _branches(actions: dict[str, PlannedAction]) -> dict[str, Branch]:
    """Cut the graph into its maximal linear stretches, in the order of their first actions."""
    stretches: dict[str, tuple[PlannedAction, ...]] = {}
    for first in actions.values():
        if _continues(actions, first):
            continue
        stretch = [first]
        while len(stretch[-1].successors) == 1:
            following = actions[stretch[-1].successors[0]]
            if not _continues(actions, following):
                break
            stretch.append(following)
        stretches[first.name] = tuple(stretch)
    return {
        name: Branch(
            name=name,
            actions=stretch,
            queue=stretch[0].queue,
            predecessors=len(stretch[0].needs),
            successors=tuple(
                Successor(following, len(actions[following].needs), actions[following].queue)
                for following in stretch[-1].successors
            ),
        )
        for name, stretch in stretches.items()
    }


def _continues(actions: dict[str, PlannedAction], action: PlannedAction) -> bool:
    """Whether an action belongs to the branch of its predecessor."""
    if len(action.needs) != 1 or action.items is not None:
        return False
    before = actions[action.needs[0]]
    return len(before.successors) == 1 and before.items is None and before.queue == action.queue
