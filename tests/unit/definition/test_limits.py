"""Limits in a definition: what is wrong is said before anything runs."""

from __future__ import annotations

from typing import Any

import pytest

from orchestration.definition import load_definition
from orchestration.definition.expressions import Scope, Template
from orchestration.engine.concurrency_key import MAX_KEY_BYTES, concurrency_key
from orchestration.errors import DefinitionError, PayloadError
from orchestration.registry import load_actions


def load(**limits: Any) -> None:
    load_actions(())
    load_definition(
        {"name": "w", "limits": limits, "actions": {"a": {"uses": "core.echo"}, "b": {"uses": "core.echo"}}}
    )


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ({"max_concurrent_branches_of_workflow": 0}, "greater than or equal to 1"),
        ({"max_concurrent_branches_of_workflow": -1}, "greater than or equal to 1"),
        ({"max_concurrent_branches_of_workflow": 1_000_001}, "less than or equal to 1000000"),
        ({"max_concurrent_branches_of_workflow": "three"}, "a whole number"),
        ({"max_concurrent_branches_per_key": 3}, "add concurrency_key"),
        ({"max_concurrent_sessions_per_key": 3}, "add concurrency_key"),
        ({"rate_limit_per_key": "10/s"}, "add concurrency_key"),
        ({"rate_limit_per_key": "10/d", "concurrency_key": "k"}, "must be like 10/s"),
        ({"rate_limit_per_key": 10, "concurrency_key": "k"}, "it is 10"),
        ({"max_concurrent_sessions": 0}, "greater than or equal to 1"),
        ({"when_full": "wait"}, "'queue', 'reject', 'cancel_running' or 'keep_newest'"),
        ({"concurrency_key": "${{ tasks.a.result }}"}, "payload and session only"),
        ({"concurrency_key": "${{ item }}"}, "item is known only"),
        ({"concurrency_key": "${{ paylod.customer }}"}, "did you mean payload"),
        ({"max_wait_seconds": 0}, "greater than 0"),
        ({"max_wait_seconds": -1}, "greater than 0"),
        ({"max_wait_seconds": "long"}, "must be a number"),
        ({"max_wait_seconds": 604_801}, "less than or equal to 604800"),
        ({"deadline_seconds": 60, "max_wait_seconds": 61}, "max_wait_seconds 61 is more than"),
        ({"deadline_seconds": 0}, "greater than 0"),
        ({"deadline_seconds": "soon"}, "must be a number"),
        ({"deadline_seconds": 604_801}, "less than or equal to 604800"),
        ({"deadline_seconds": 60, "branch_timeout_seconds": 60.5}, "branch_timeout_seconds 60.5 is more than"),
        ({"concurrency_key": ""}, "at least 1 character"),
        ({"concurrency_key": 3}, "must be a string"),
    ],
)
def test_a_wrong_limit_is_named_with_what_is_allowed(limits: dict[str, Any], said: str) -> None:
    with pytest.raises(DefinitionError) as refused:
        load(**limits)
    (problem,) = refused.value.problems
    assert said in str(problem)
    assert problem.field.startswith("limits.")


def test_a_timeout_of_an_action_beyond_the_deadline_is_a_mistake_with_its_place() -> None:
    load_actions(())
    actions = {"a": {"uses": "core.echo", "timeout_seconds": 61}, "b": {"uses": "core.echo", "timeout_seconds": 60}}
    with pytest.raises(DefinitionError) as refused:
        load_definition({"name": "w", "limits": {"deadline_seconds": 60}, "actions": actions})
    (problem,) = refused.value.problems
    assert problem.field == "actions.a.timeout_seconds"
    assert "timeout_seconds 61 is more than deadline_seconds 60" in str(problem)


@pytest.mark.parametrize("when_full", ["queue", "reject", "cancel_running", "keep_newest"])
def test_limits_of_workflow_and_key_are_accepted(when_full: str) -> None:
    load(
        max_concurrent_branches_of_workflow=20, concurrency_key="orders/${{ payload.customer }}",
        max_concurrent_branches_per_key=2, max_concurrent_sessions=3, max_concurrent_sessions_per_key=1,
        rate_limit_per_key="100/m burst 20", when_full=when_full, deadline_seconds=60, max_wait_seconds=60,
        branch_timeout_seconds=60,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("${{ payload.name }}", "Ada"), ("${{ payload.number }}", "7"), ("orders/${{ payload.number }}", "orders/7"),
        ("all", "all"), ("${{ session.id }}", "s1"),
    ],
)  # fmt: skip
def test_a_key_is_a_string_or_a_whole_number(text: str, key: str) -> None:
    scope = Scope(payload={"name": "Ada", "number": 7}, session={"id": "s1"})
    assert concurrency_key(Template(text), scope) == key


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "gives null"), (True, "gives a boolean"), (1.5, "gives a number"), ([], "gives a list"), ("", "empty"),
        ("a\nb", "not printable"), ("é" * (MAX_KEY_BYTES // 2 + 1), f"at most {MAX_KEY_BYTES} bytes"),
        ("\ud800", "not printable"),
    ],
)  # fmt: skip
def test_any_other_key_is_refused_in_words(value: object, said: str) -> None:
    with pytest.raises(PayloadError, match=said):
        concurrency_key(Template("${{ payload.key }}"), Scope(payload={"key": value}))


def test_a_key_that_can_not_be_evaluated_is_refused_in_words() -> None:
    with pytest.raises(PayloadError, match=r"concurrency_key can't be evaluated.*payload has no field"):
        concurrency_key(Template("${{ payload.key }}"), Scope(payload={}))
