"""What reports need of a definition: the graph, and what an action may wait for or fail by. Pure, but for `load_shape`.

Read from the definition as it was stored, without checking it again: it may name actions that this process does not
know.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from orchestration.definition.schema import DEFAULT_QUEUE
from orchestration.store import workflows
from orchestration.store.pool import Database
from orchestration.vocabulary import TriggerRule


@dataclass(frozen=True, slots=True)
class ActionShape:
    """One action of a definition."""

    name: str
    uses: str
    needs: tuple[str, ...]
    #: A `TriggerRule`, or one of another release.
    rule: str
    queue: str
    is_for_each: bool
    #: `if`, as it was written; empty: there is none.
    condition: str
    #: Attempts in all.
    max_attempts: int
    #: Chunks of a `for_each` at once; 0: no limit.
    max_concurrent: int
    continue_on_failure: bool
    #: Its rate limits as they were written: its own, the workflow's, that of the concurrency key.
    rates: tuple[str, ...]


@dataclass(frozen=True)
class Shape:
    """The graph of a definition."""

    actions: Mapping[str, ActionShape]
    #: Of a flow session: `limits`, as it was written.
    limits: Mapping[str, Any]

    @cached_property
    def needs(self) -> Mapping[str, tuple[str, ...]]:
        """Each action's direct predecessors, in the order of the definition."""
        return {name: action.needs for name, action in self.actions.items()}

    @cached_property
    def for_each(self) -> frozenset[str]:
        return frozenset(name for name, action in self.actions.items() if action.is_for_each)

    @cached_property
    def successors(self) -> Mapping[str, tuple[str, ...]]:
        found: dict[str, list[str]] = {name: [] for name in self.actions}
        for name, before in self.needs.items():
            for need in before:
                found[need].append(name)
        return {name: tuple(after) for name, after in found.items()}

    @cached_property
    def following(self) -> Mapping[str, str]:
        """The action that alone follows and needs nothing else, in the same place: the next one of the branch."""
        return {
            name: after[0]
            for name, after in self.successors.items()
            if len(after) == 1 and len(self.needs[after[0]]) == 1 and not self.for_each.intersection((name, after[0]))
            and self.actions[name].queue == self.actions[after[0]].queue
        }  # fmt: skip

    @cached_property
    def branch_of(self) -> Mapping[str, str]:
        """The branch of each action, by the name of its first one."""
        found: dict[str, str] = {}
        inner = set(self.following.values())
        for first in self.actions:
            if first not in inner:
                found.update(dict.fromkeys(self.following_of(first), first))
        return found

    def following_of(self, branch: str) -> Iterator[str]:
        """The actions of a branch, in order."""
        name: str | None = branch
        while name is not None:
            yield name
            name = self.following.get(name)

    @property
    def roots(self) -> list[str]:
        return [name for name, needs in self.needs.items() if not needs]


def shape_of(definition: Mapping[str, Any]) -> Shape:
    """The graph of a definition as it was stored."""
    limits: Mapping[str, Any] = definition.get("limits") or {}
    queue = definition.get("queue") or DEFAULT_QUEUE
    actions: Mapping[str, Mapping[str, Any]] = definition["actions"]
    return Shape({name: _action(name, action, queue, limits) for name, action in actions.items()}, limits)


def load_shape(database: Database, version_id: str) -> Shape:
    """The graph of a version; kept, since a version never changes."""
    shape = _shapes.get(version_id)
    if shape is None:
        if len(_shapes) >= _KEPT_SHAPES:
            _shapes.clear()
        shape = _shapes[version_id] = shape_of(workflows.load_version(database, version_id).definition)
    return shape


#: By version id.
_shapes: dict[str, Shape] = {}
_KEPT_SHAPES = 64


def _action(name: str, action: Mapping[str, Any], queue: str, limits: Mapping[str, Any]) -> ActionShape:
    texts = (action.get("rate_limit"), limits.get("rate_limit"), limits.get("rate_limit_per_key"))
    condition = action.get("if")
    return ActionShape(
        name=name,
        uses=str(action.get("uses", "")),
        needs=tuple(action.get("needs") or ()),
        rule=str(action.get("trigger_rule") or TriggerRule.ALL_SUCCESS.value),
        queue=action.get("queue") or queue,
        is_for_each=action.get("for_each") is not None,
        condition="" if condition is None else str(condition),
        max_attempts=int((action.get("retry") or {}).get("max_attempts") or 1),
        max_concurrent=int(action.get("max_concurrent") or 0),
        continue_on_failure=bool(action.get("continue_on_failure")),
        rates=tuple(text for text in texts if text),
    )
