"""What the builder adds to a dict: the words of Python, and one name for one action."""

from __future__ import annotations

import pytest

from orchestration.definition import Workflow
from orchestration.errors import DefinitionError
from tests.unit.definition import sample_actions  # noqa: F401 - registers the actions


def test_calls_can_be_chained() -> None:
    definition = Workflow("w").action("a", "sample.noop").action("b", "sample.noop", needs=("a",)).build()
    assert definition.actions["b"].needs == ("a",)


def test_two_actions_of_one_name_are_refused() -> None:
    with pytest.raises(DefinitionError, match="two actions called 'a'"):
        Workflow("w").action("a", "sample.noop").action("a", "sample.noop")


def test_building_reports_all_mistakes() -> None:
    workflow = Workflow("w", dispatch="direct").action("a", "sample.nop", needs="b")
    with pytest.raises(DefinitionError) as caught:
        workflow.build()
    assert {problem.field for problem in caught.value.problems} == {
        "dispatch", "actions.a.uses", "actions.a.needs[0]"
    }  # fmt: skip
