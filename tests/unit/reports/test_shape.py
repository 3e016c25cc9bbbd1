"""What reports read from a stored definition is what the engine compiles from it."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given

from orchestration.definition import load_definition
from orchestration.plan import compile_plan
from orchestration.registry import load_actions
from orchestration.reports.shape import shape_of
from tests.unit.definition.graphs import definitions

load_actions(["tests.unit.definition.sample_actions"])


@given(definitions())
def test_the_shape_of_a_stored_definition_is_that_of_its_plan(source: dict[str, Any]) -> None:
    loaded = load_definition(source)
    plan = compile_plan(loaded)
    shape = shape_of(json.loads(json.dumps(loaded.to_dict())))
    assert list(shape.actions) == list(plan.actions)
    for name, action in shape.actions.items():
        planned = plan.actions[name]
        assert (action.needs, action.rule, action.queue) == (planned.needs, planned.rule, planned.queue)
        assert action.is_for_each == (planned.items is not None)
        assert action.max_attempts == planned.retry.max_attempts
        assert action.max_concurrent == (planned.max_concurrent or 0)
        assert action.continue_on_failure == planned.continue_on_failure
        assert bool(action.condition) == (planned.condition is not None)
    assert {name: sorted(after) for name, after in shape.successors.items()} == {
        name: sorted(planned.successors) for name, planned in plan.actions.items()
    }
    for branch in plan.branches.values():
        assert list(shape.following_of(branch.name)) == [action.name for action in branch.actions]
        assert {shape.branch_of[action.name] for action in branch.actions} == {branch.name}
    assert tuple(shape.roots) == plan.roots


def test_a_definition_of_another_release_has_a_shape_though_its_trigger_rule_is_not_known() -> None:
    actions = {"a": {"uses": "core.noop"}, "b": {"uses": "core.noop", "needs": ["a"], "trigger_rule": "most_done"}}
    assert shape_of({"name": "w", "actions": actions}).actions["b"].rule == "most_done"
