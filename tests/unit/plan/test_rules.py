"""Trigger rules decide as Airflow does, whatever the order in which predecessors settle."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration.definition import load_definition
from orchestration.plan import Plan, compile_plan, decide
from orchestration.vocabulary import JoinCounts, Outcome, TriggerRule
from tests.unit.definition import sample_actions  # noqa: F401 - registers the actions

CASES = json.loads((Path(__file__).parents[2] / "data" / "trigger_rules.json").read_text())["cases"]
NAMES = {
    Outcome.SUCCESS: "success",
    Outcome.FAILED: "failed",
    Outcome.SKIPPED: "skipped",
    Outcome.UPSTREAM_FAILED: "upstream_failed",
}
IF_IT_STARTS = {"success": Outcome.SUCCESS, "fail": Outcome.FAILED, "skip": Outcome.SKIPPED}


def plan_of(case: dict[str, Any]) -> Plan:
    actions = {
        name: {
            "uses": "sample.noop",
            "needs": needs,
            "trigger_rule": case["rules"].get(name, "all_success"),
            "if": case["outcomes"].get(name) != "skip",
        }
        for name, needs in case["graph"].items()
    }
    return compile_plan(load_definition({"name": "w", "actions": actions}))


def settle_all(plan: Plan, outcomes: dict[str, str], order: random.Random) -> dict[str, str]:
    """Settle the actions of a plan in a random order that the graph allows."""
    settled: dict[str, Outcome] = {}
    left = list(plan.actions)
    while left:
        ready = [name for name in left if all(need in settled for need in plan.actions[name].needs)]
        name = order.choice(ready)
        before = [settled[need] for need in plan.actions[name].needs]
        counts = JoinCounts(*(before.count(outcome) for outcome in (Outcome.SUCCESS, Outcome.FAILED, Outcome.SKIPPED,
                                                                    Outcome.UPSTREAM_FAILED)))  # fmt: skip
        refused = decide(plan.actions[name].rule, counts)
        settled[name] = IF_IT_STARTS[outcomes.get(name, "success")] if refused is None else refused
        left.remove(name)
    return {name: NAMES[outcome] for name, outcome in settled.items()}


def test_all_cases_are_there() -> None:
    assert len(CASES) == 128
    assert {rule for case in CASES for rule in case["rules"].values()} >= {
        rule.value for rule in TriggerRule if rule is not TriggerRule.ALL_SUCCESS
    }


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_every_case_ends_as_expected_in_any_order(case: dict[str, Any]) -> None:
    plan = plan_of(case)
    for seed in range(5):
        assert settle_all(plan, case["outcomes"], random.Random(seed)) == case["expected"]


@given(
    st.sampled_from(TriggerRule),
    st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3), st.integers(0, 3)),
)
def test_the_answer_follows_the_table(rule: TriggerRule, ended: tuple[int, int, int, int]) -> None:
    """The table of the rules, written once more and differently."""
    succeeded, failed, skipped, upstream = (count > 0 for count in ended)
    bad = failed or upstream
    only_skipped = skipped and not (succeeded or bad)
    skip, stop = Outcome.SKIPPED, Outcome.UPSTREAM_FAILED
    expected = {
        TriggerRule.ALL_DONE: None,
        TriggerRule.ALWAYS: None,
        TriggerRule.ALL_SUCCESS: stop if bad else skip if skipped else None,
        TriggerRule.ONE_SUCCESS: None if succeeded else skip if only_skipped else stop,
        TriggerRule.NONE_FAILED: stop if bad else None,
        TriggerRule.NONE_FAILED_MIN_ONE_SUCCESS: stop if bad else None if succeeded else skip,
        TriggerRule.ALL_FAILED: skip if succeeded or skipped else None,
        TriggerRule.ONE_FAILED: None if bad else skip,
        TriggerRule.ONE_DONE: None if succeeded or failed else skip,
        TriggerRule.ALL_SKIPPED: None if only_skipped else skip,
        TriggerRule.NONE_SKIPPED: skip if skipped else None,
    }
    counts = JoinCounts(*ended)
    assert decide(rule, counts) == (expected[rule] if counts.total else None)
