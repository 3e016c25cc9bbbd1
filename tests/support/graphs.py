"""Random workflows for property tests, and what must come out of them by the documented rules alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from orchestration.plan import decide
from orchestration.vocabulary import JoinCounts, Outcome, TriggerRule

OUTCOMES = ("success", "success", "success", "fail", "skip")


@dataclass(frozen=True)
class Node:
    """An action: what it needs, when it runs, what it then does; `items`: outcomes of a for_each's items, or None."""

    needs: tuple[str, ...]
    rule: TriggerRule
    outcome: str
    items: tuple[str, ...] | None
    continue_on_failure: bool
    max_concurrent: int | None


Graph = Mapping[str, Node]


@st.composite
def graphs(draw: st.DrawFn, most: int = 10, for_each: bool = True) -> Graph:
    """A graph of up to `most` actions; each may need any of those before it."""
    size = draw(st.integers(1, most))
    nodes: dict[str, Node] = {}
    for index in range(size):
        before = list(nodes)
        needs = tuple(draw(st.lists(st.sampled_from(before), unique=True, max_size=4))) if before else ()
        items = None
        if for_each and draw(st.integers(0, 4)) == 0:
            items = tuple(draw(st.lists(st.sampled_from(OUTCOMES), max_size=7)))
        nodes[f"n{index}"] = Node(
            needs, draw(st.sampled_from(list(TriggerRule))), draw(st.sampled_from(OUTCOMES)), items,
            draw(st.integers(0, 5)) == 0, draw(st.sampled_from([None, None, 1, 2])) if items is not None else None,
        )  # fmt: skip
    return nodes


def definition_of(graph: Graph, journal: str, limit: int = 10, uses: str = "test.record") -> dict[str, Any]:
    """The graph as a definition whose actions write to `journal`."""
    actions: dict[str, Any] = {}
    for name, node in graph.items():
        action: dict[str, Any] = {
            "uses": uses, "needs": list(node.needs), "trigger_rule": node.rule.value,
            "continue_on_failure": node.continue_on_failure,
        }  # fmt: skip
        if node.items is None:
            action["with"] = {"journal": journal, "outcome": node.outcome}
            if node.outcome == "skip":
                action["if"] = "false"
        else:
            action["for_each"] = list(node.items)
            action["with"] = {"journal": journal, "outcome": "${{ item }}"}
            action["if"] = 'item != "skip"'
            if node.max_concurrent:
                action["max_concurrent"] = node.max_concurrent
        actions[name] = action
    return {"name": "random", "limits": {"max_concurrent_branches": limit}, "actions": actions}


@dataclass(frozen=True)
class Expected:
    """What must be recorded."""

    #: Status by (action, item); item -1 is the action itself.
    states: Mapping[tuple[str, int], str]
    status: str
    #: Journal names of the executions, each once.
    executions: frozenset[str]


_STATUS = {"success": "succeeded", "fail": "failed", "skip": "skipped"}
_DECIDED = {Outcome.SKIPPED: "skipped", Outcome.UPSTREAM_FAILED: "upstream_failed"}
_OUTCOME = {"succeeded": "S", "failed": "F", "skipped": "K", "upstream_failed": "U"}


def expected_of(graph: Graph) -> Expected:
    """Evaluate a graph in its own order; shares with the engine only the table of rules, which has tests of its own."""
    states: dict[tuple[str, int], str] = {}
    seen: dict[str, str] = {}
    executions: set[str] = set()
    for name, node in graph.items():
        before = [seen[need] for need in node.needs]
        decision = decide(node.rule, JoinCounts(*(before.count(letter) for letter in "SFKU")))
        if decision is not None:
            status = _DECIDED[decision]
        elif node.items is None:
            status = _STATUS[node.outcome]
            if node.outcome != "skip":
                executions.add(name)
        else:
            for index, outcome in enumerate(node.items):
                states[name, index] = _STATUS[outcome]
                if outcome != "skip":
                    executions.add(f"{name}:{index}")
            if "fail" in node.items:
                status = "failed"
            else:
                status = "skipped" if node.items and set(node.items) == {"skip"} else "succeeded"
        states[name, -1] = status
        letter = _OUTCOME[status]
        seen[name] = "S" if letter == "F" and node.continue_on_failure else letter
    needed = {need for node in graph.values() for need in node.needs}
    failed = any(seen[name] in "FU" for name in graph if name not in needed)
    return Expected(states, "failed" if failed else "succeeded", frozenset(executions))
