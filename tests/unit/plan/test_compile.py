"""Branches are the maximal linear stretches of the graph; nothing of the graph is lost in them."""

from __future__ import annotations

import json
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration.definition import Definition, load_definition
from orchestration.definition.expressions import Scope
from orchestration.errors import DefinitionError
from orchestration.plan import Limits, Plan, RetryPolicy, Successor, compile_plan
from orchestration.vocabulary import Durability, TriggerRule
from tests.unit.definition import sample_actions  # noqa: F401 - registers the actions
from tests.unit.definition.graphs import QUEUES, definitions, graphs

CI_GRAPHS = json.loads((Path(__file__).parents[2] / "data" / "ci_graphs.json").read_text())


def plan_of(graph: dict[str, list[str]], **options: dict[str, Any]) -> Plan:
    """The plan of a graph; `options` are more keys of single actions."""
    actions = {
        name: {"uses": "sample.anything", "needs": needs, **options.get(name, {})} for name, needs in graph.items()
    }
    return compile_plan(load_definition({"name": "w", "actions": actions}))


def names_of(plan: Plan) -> list[list[str]]:
    return [[action.name for action in branch.actions] for branch in plan.branches.values()]


def test_a_diamond_has_four_branches_around_its_fork_and_join() -> None:
    plan = plan_of({"a": [], "b": ["a"], "c": ["b"], "d": ["b"], "e": ["d"], "f": ["c", "e"], "g": ["f"]})
    assert names_of(plan) == [["a", "b"], ["c"], ["d", "e"], ["f", "g"]]
    assert plan.roots == ("a",)
    assert plan.branches["a"].successors == (Successor("c", 1, "branches"), Successor("d", 1, "branches"))
    assert plan.branches["d"].successors == (Successor("f", 2, "branches"),)
    assert plan.branches["f"].predecessors == 2
    assert [action.name for action in plan.leaves] == ["g"]


def test_a_branch_is_cut_at_a_for_each_and_where_the_queue_changes() -> None:
    graph = {"a": [], "b": ["a"], "c": ["b"], "d": ["c"], "e": ["d"]}
    plan = plan_of(graph, b={"for_each": {"range": 3}}, d={"queue": "gpu"}, e={"queue": "gpu"})
    assert names_of(plan) == [["a"], ["b"], ["c"], ["d", "e"]]
    assert [branch.is_for_each for branch in plan.branches.values()] == [False, True, False, False]
    assert plan.branches["c"].successors == (Successor("d", 1, "gpu"),)


def test_the_queue_of_the_workflow_is_that_of_its_actions() -> None:
    definition = load_definition(
        {"name": "w", "queue": "slow", "actions": {"a": {"uses": "sample.noop"},
         "b": {"uses": "sample.noop", "queue": "gpu"}}}
    )  # fmt: skip
    assert [action.queue for action in compile_plan(definition).actions.values()] == ["slow", "gpu"]


def test_every_option_reaches_the_plan() -> None:
    definition = load_definition(
        {
            "name": "w",
            "payload_schema": {"type": "object"},
            "limits": {"max_concurrent_branches": 3, "branch_timeout_seconds": 1.5, "weight": 2.5, "rate_limit": "3/s"},
            "output": "${{ payload.x }}",
            "actions": {
                "a": {
                    "uses": "sample.echo", "with": {"value": "${{ item }}"}, "for_each": "${{ payload.items }}",
                    "if": "item > 1", "trigger_rule": "one_failed", "timeout_seconds": 2, "max_concurrent": 5,
                    "continue_on_failure": True, "durability": "sync", "rate_limit": "100/m burst 20",
                    "retry": {"max_attempts": 3, "delay_seconds": 0.25, "backoff": 3, "max_delay_seconds": 2,
                              "jitter": 0, "retry_on": ["OSError"], "never_on": ["TimeoutError"]},
                }
            },
        }
    )  # fmt: skip
    plan = compile_plan(definition)
    action = plan.actions["a"]
    one = Scope({"items": [1, 2], "x": 9}, item=2, item_index=1)
    assert action.items is not None
    assert action.items.resolve(one) == [1, 2]
    assert action.condition is not None
    assert action.condition.uses_item
    assert action.condition.evaluate(one) is True
    assert action.inputs.render(one) == {"value": 2}
    assert action.retry == RetryPolicy(3, 250, 3.0, 2000, 0.0, ("OSError",), ("TimeoutError",))
    assert action.rule is TriggerRule.ONE_FAILED
    assert action.durability is Durability.SYNC
    assert (action.timeout_seconds, action.max_concurrent, action.continue_on_failure) == (2, 5, True)
    assert action.rates == (("w/a", 600_000, 20), ("w", 333_334, 1))
    assert plan.output is not None
    assert plan.output.render(one) == 9
    assert (plan.limits, plan.payload_schema) == (Limits(3, 1.5, 2.5), {"type": "object"})
    assert (plan.workflow, plan.version_id) == ("w", definition.version_id)


def test_a_definition_that_was_not_loaded_is_checked() -> None:
    definition = Definition.model_validate({"name": "w", "actions": {"a": {"uses": "sample.noop", "needs": ["a"]}}})
    with pytest.raises(DefinitionError, match="a can't need itself"):
        compile_plan(definition)


@pytest.mark.parametrize("entry", CI_GRAPHS, ids=[f"{entry['repository']}/{entry['path']}" for entry in CI_GRAPHS])
def test_graphs_of_public_pipelines_are_compiled(entry: dict[str, Any]) -> None:
    rules = {name: {"trigger_rule": "all_done"} for name in entry["runs_whatever_happened_before"]}
    graph: dict[str, list[str]] = entry["graph"]
    plan = plan_of(graph, **rules)
    followers = Counter(need for needs in graph.values() for need in needs)
    merged = sum(len(needs) == 1 and followers[needs[0]] == 1 for needs in graph.values())
    assert len(plan.actions) == entry["jobs"]
    assert sum(len(action.needs) for action in plan.actions.values()) == entry["edges"]
    assert len(plan.branches) == entry["jobs"] - merged


@given(graphs(), st.data())
def test_branches_rebuild_the_graph(graph: dict[str, list[str]], data: st.DataObject) -> None:
    """Every action is in exactly one branch, and the edges within and between branches are those of the graph."""
    options: dict[str, dict[str, Any]] = {}
    for name in graph:
        queue = data.draw(QUEUES)
        options[name] = {"queue": queue} if queue else {}
        if data.draw(st.booleans()):
            options[name]["for_each"] = [1, 2]
    plan = plan_of(graph, **options)
    inside = [name for names in names_of(plan) for name in names]
    assert sorted(inside) == sorted(graph)

    edges: Counter[tuple[str, str]] = Counter()
    for branch in plan.branches.values():
        names = [action.name for action in branch.actions]
        assert branch.name == names[0]
        assert len({action.queue for action in branch.actions} | {branch.queue}) == 1
        assert len(names) == 1 or all(action.items is None for action in branch.actions)
        edges.update(pairwise(names))
        edges.update((names[-1], successor.branch) for successor in branch.successors)
        for successor in branch.successors:
            following = plan.branches[successor.branch]
            assert (successor.predecessors, successor.queue) == (following.predecessors, following.queue)
    assert edges == Counter((need, name) for name, needs in graph.items() for need in needs)


@given(graphs())
def test_branches_are_as_long_as_they_can_be(graph: dict[str, list[str]]) -> None:
    plan = plan_of(graph)
    for branch in plan.branches.values():
        if len(branch.successors) == 1:
            assert branch.successors[0].predecessors > 1


@given(definitions())
def test_every_definition_without_mistakes_is_compiled(value: dict[str, Any]) -> None:
    plan = compile_plan(load_definition(value))
    assert set(plan.actions) == set(value["actions"])
    assert set(plan.roots) == {name for name in plan.branches if not value["actions"][name].get("needs")}


@pytest.mark.parametrize("width", [1, 100])
def test_twenty_thousand_actions_are_compiled_in_seconds(width: int) -> None:
    graph = {
        f"a{number}": [f"a{number - width + k}" for k in range(min(5, width))] if number >= width else []
        for number in range(20_000)
    }
    started = time.process_time()  # not what others do on this machine
    plan = plan_of(graph)
    assert len(plan.branches) == (1 if width == 1 else 20_000)
    # Loading and compiling take about 1 s on a quiet machine.
    assert time.process_time() - started < 10
