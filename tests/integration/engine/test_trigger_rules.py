"""Every conformance case of the trigger rules, through the real engine, in several orders of settling."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from orchestration.vocabulary import Claim
from tests.support.stepping import SteppingEngine

CASES: list[dict[str, Any]] = json.loads((Path(__file__).parents[2] / "data" / "trigger_rules.json").read_text())[
    "cases"
]
AIRFLOW_NAMES = {"succeeded": "success"}
ORDERS = 5


def definition_of(case: dict[str, Any]) -> dict[str, Any]:
    """A case as a definition: `skip` is a condition that is false, `fail` an action that raises."""
    actions: dict[str, Any] = {}
    for node, needs in case["graph"].items():
        outcome = case["outcomes"].get(node, "success")
        action: dict[str, Any] = {"uses": "core.fail" if outcome == "fail" else "core.noop", "needs": needs}
        if node in case["rules"]:
            action["trigger_rule"] = case["rules"][node]
        if outcome == "skip":
            action["if"] = "false"
        actions[node] = action
    return {"name": "conformance", "actions": actions}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_every_case_ends_as_airflow_says_in_every_order(engine: SteppingEngine, case: dict[str, Any]) -> None:
    for seed in range(ORDERS):
        chance = random.Random(seed)
        pick = partial(_any_of, chance)
        result = engine.run(definition_of(case), choose=pick, alone=(0, 1, 2, 4, 1000)[seed])
        states: dict[str, str] = dict(
            engine.database.fetch(
                "SELECT action, status FROM tasks WHERE flow_session_id = %s", (result.flow_session_id,)
            )
        )
        assert {node: AIRFLOW_NAMES.get(state, state) for node, state in states.items()} == case["expected"]
        needed = {need for needs in case["graph"].values() for need in needs}
        leaves = set(case["graph"]) - needed
        failed = any(case["expected"][leaf] in ("failed", "upstream_failed") for leaf in leaves)
        assert result.status == ("failed" if failed else "succeeded")
        assert sum(result.counts.values()) == len(case["graph"])


def _any_of(chance: random.Random, claims: Sequence[Claim]) -> int:
    return chance.randrange(len(claims))


def test_no_case_was_lost() -> None:
    assert len(CASES) == 128
