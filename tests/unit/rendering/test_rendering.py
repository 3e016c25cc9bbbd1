"""Drawings show every action and edge, are well-formed whatever the names, and are quick for large graphs."""

from __future__ import annotations

import re
import time
import xml.etree.ElementTree as ET
from typing import Any

import pytest
from hypothesis import given

from orchestration.definition import load_definition
from orchestration.plan import Plan, compile_plan
from orchestration.registry import action
from parallelizer.rendering import RENDERERS, to_dot, to_mermaid, to_svg, to_text
from tests.unit.definition import sample_actions  # noqa: F401 - registers the actions
from tests.unit.definition.graphs import definitions

ODD = "sample.odd\"<&>'\\\n`#|]);--> é"
SVG = "{http://www.w3.org/2000/svg}"


@action(ODD)
def odd() -> None: ...


def plan_of(graph: dict[str, list[str]], **options: dict[str, Any]) -> Plan:
    actions = {name: {"uses": "sample.noop", "needs": needs, **options.get(name, {})} for name, needs in graph.items()}
    return compile_plan(load_definition({"name": "w", "actions": actions}))


def order_fulfilment() -> Plan:
    return plan_of(
        {"fetch": [], "parse": ["fetch"], "charge": ["parse"], "ship": ["parse"], "notify": ["charge", "ship"]},
        ship={"for_each": [1, 2], "max_concurrent": 50, "queue": "gpu"},
        charge={"retry": {"max_attempts": 5}, "if": "payload.paid == true"},
        notify={"trigger_rule": "all_done", "continue_on_failure": True},
    )


def test_text_is_a_tree_with_one_line_for_each_branch() -> None:
    plan = order_fulfilment()
    heading, *lines = to_text(plan).splitlines()
    assert heading == f"w: 5 actions in 4 branches, version {plan.version_id[:12]}"
    assert lines == [
        "fetch (sample.noop) → parse (sample.noop)",
        "├─ charge (sample.noop; if; 5 attempts)",
        "│  └─ notify (sample.noop; all_done; may fail)  [also after ship]",
        "└─ ship (sample.noop; for each, 50 at once; queue gpu)",
    ]


def test_a_long_branch_is_shortened() -> None:
    plan = plan_of({f"a{n}": [f"a{n - 1}"] if n else [] for n in range(1000)})
    assert to_text(plan).splitlines()[1].endswith("a5 (sample.noop) → … 993 more … → a999 (sample.noop)")


def test_mermaid_has_every_action_and_edge() -> None:
    text = to_mermaid(order_fulfilment())
    assert text.startswith("flowchart LR\n")
    assert 'n3[["<b>ship</b><br>sample.noop<br>for each, 50 at once<br>queue gpu"]]' in text
    assert len(re.findall(r"^    n\d+ --> n\d+$", text, re.MULTILINE)) == 5


def test_dot_frames_the_actions_of_a_branch() -> None:
    text = to_dot(order_fulfilment())
    assert text.startswith('digraph "w" {')
    assert "subgraph cluster_0 {" in text
    assert '"ship" [label="ship\\nsample.noop\\nfor each, 50 at once\\nqueue gpu", peripheries=2];' in text
    assert text.count(" -> ") == 5


def test_svg_has_a_box_for_every_action_and_a_line_for_every_edge() -> None:
    root = ET.fromstring(to_svg(order_fulfilment()))
    assert len(root.findall(f"{SVG}g")) == 5
    assert len(root.findall(f"{SVG}path")) == 5
    titles = [title.text or "" for title in root.iter(f"{SVG}title")]
    assert "ship: sample.noop (for each, 50 at once, queue gpu)" in titles


def test_odd_names_break_no_format() -> None:
    plan = plan_of({"a.b-c": [], "b": ["a.b-c"]}, b={"uses": ODD})
    ET.fromstring(to_svg(plan))
    assert to_dot(plan).count("\n") == 10
    assert to_mermaid(plan).count("\n") == 4
    assert '"<b>b</b><br>sample.odd#34;#60;#38;#62;' in to_mermaid(plan)


@given(definitions())
def test_every_plan_can_be_drawn(value: dict[str, Any]) -> None:
    plan = compile_plan(load_definition(value))
    for draw in RENDERERS.values():
        assert all(name in draw(plan) for name in plan.actions)
    ET.fromstring(to_svg(plan))
    assert len(to_text(plan).splitlines()) == 1 + len(plan.branches)


@pytest.mark.parametrize("width", [1, 100, 5_000])
def test_large_graphs_are_drawn_in_seconds(width: int) -> None:
    graph = {f"a{n}": [f"a{n - width + k}" for k in range(min(4, width))] if n >= width else [] for n in range(10_000)}
    plan = plan_of(graph)
    started = time.perf_counter()
    for draw in RENDERERS.values():
        assert draw(plan)
    # About 1 s on a quiet machine.
    assert time.perf_counter() - started < 20
