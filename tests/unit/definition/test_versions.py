"""The same content is the same version, in whatever it was written and in whatever order."""

from __future__ import annotations

import json
import random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from orchestration.definition import Workflow, load_definition
from tests.unit.definition import sample_actions  # noqa: F401 - registers the actions
from tests.unit.definition.graphs import definitions

TEXT = """\
name: order-fulfilment
description: Ships an order.
payload_schema: {type: object, required: [order_id]}
limits: {max_concurrent_branches: 10, branch_timeout_seconds: 300}
actions:
  fetch:
    uses: sample.anything
    with: {url: "https://api.example/orders/${{ payload.order_id }}"}
    retry: {max_attempts: 5}
  ship:
    needs: fetch
    uses: sample.ship
    for_each: ${{ tasks.fetch.result.items }}
    with: {sku: "${{ item.sku }}"}
    max_concurrent: 50
  notify: {needs: [ship], trigger_rule: all_done, if: payload.notify == true, uses: sample.noop}
  off: {uses: sample.noop, if: false}
output: ${{ tasks.ship.counts }}
"""


def built() -> Workflow:
    workflow = Workflow(
        "order-fulfilment",
        description="Ships an order.",
        payload_schema={"type": "object", "required": ["order_id"]},
        limits={"max_concurrent_branches": 10, "branch_timeout_seconds": 300},
        output="${{ tasks.ship.counts }}",
    )
    workflow.action(
        "fetch",
        "sample.anything",
        with_={"url": "https://api.example/orders/${{ payload.order_id }}"},
        retry={"max_attempts": 5},
    )
    workflow.action(
        "ship",
        "sample.ship",
        needs=["fetch"],
        for_each="${{ tasks.fetch.result.items }}",
        with_={"sku": "${{ item.sku }}"},
        max_concurrent=50,
    )
    workflow.action("notify", "sample.noop", needs="ship", trigger_rule="all_done", if_="payload.notify == true")
    return workflow.action("off", "sample.noop", if_=False)


def run_python(code: str) -> Any:
    names: dict[str, Any] = {}
    exec(compile(code, "printed", "exec"), names)
    return names["definition"]


def shuffled(value: Any, order: random.Random) -> Any:
    if isinstance(value, dict):
        items = [(key, shuffled(element, order)) for key, element in value.items()]
        order.shuffle(items)
        return dict(items)
    return [shuffled(element, order) for element in value] if isinstance(value, list) else value


def test_yaml_json_and_python_give_the_same_definition() -> None:
    definition = load_definition(TEXT)
    assert built().build() == definition
    assert load_definition(json.dumps(built().to_dict())) == definition
    assert run_python(definition.to_python()) == definition
    assert load_definition(definition.to_yaml()) == definition
    assert len(definition.version_id) == 64


def test_defaults_that_are_written_out_change_nothing() -> None:
    written = TEXT.replace("uses: sample.noop", "uses: sample.noop, durability: normal, continue_on_failure: false")
    assert load_definition(written).version_id == load_definition(TEXT).version_id


def test_another_content_is_another_version() -> None:
    for old, new in (("300", "301"), ("fetch:", "fetched:"), ("all_done", "always"), ("an order", "a parcel")):
        changed = load_definition(TEXT.replace("needs: fetch", "needs: []").replace("tasks.fetch.", "payload."))
        text = TEXT.replace("needs: fetch", "needs: []").replace("tasks.fetch.", "payload.").replace(old, new)
        assert load_definition(text).version_id != changed.version_id


@given(definitions())
def test_a_printed_definition_is_read_back_as_the_same_version(value: dict[str, Any]) -> None:
    definition = load_definition(value)
    for again in (
        load_definition(definition.to_dict()),
        load_definition(json.dumps(definition.to_dict())),
        load_definition(definition.to_yaml()),
        run_python(definition.to_python()),
    ):
        assert again.version_id == definition.version_id
        assert again == definition


@given(definitions(), st.randoms(use_true_random=False))
def test_the_order_of_keys_does_not_change_the_version(value: dict[str, Any], order: random.Random) -> None:
    assert load_definition(shuffled(value, order)).version_id == load_definition(value).version_id
