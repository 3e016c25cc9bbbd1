"""What the tests of bad input share."""

from __future__ import annotations

import pytest

from orchestration.definition import load_definition
from orchestration.errors import DefinitionError, Problem
from tests.unit.definition import sample_actions  # noqa: F401 - registers the actions


def problems_of(source: object, **options: object) -> list[Problem]:
    """The problems of a definition that must have some."""
    with pytest.raises(DefinitionError) as caught:
        load_definition(source, **options)  # type: ignore[arg-type]
    return list(caught.value.problems)


def only_problem_of(source: object, **options: object) -> Problem:
    """The problem of a definition that must have exactly one."""
    problems = problems_of(source, **options)
    assert len(problems) == 1, problems
    return problems[0]


def one_action(**action: object) -> dict[str, object]:
    """A definition with an action `a`; `sample.noop` unless another one is named."""
    return {"name": "w", "actions": {"a": {"uses": "sample.noop", **action}}}
