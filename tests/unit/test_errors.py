"""Errors on their way through Celery, which keeps the names of their classes and their arguments."""

from __future__ import annotations

import pickle

from orchestration.errors import DefinitionError, Problem


def test_a_definition_error_keeps_its_message_when_it_is_rebuilt() -> None:
    error = DefinitionError(
        [Problem("unknown action 'x'", "actions.a.uses", hint="did you mean y?"), Problem("no name")]
    )
    assert str(DefinitionError(*error.args)) == str(error)
    assert len(DefinitionError(*error.args).problems) == 2


def test_a_pickled_definition_error_keeps_its_problems() -> None:
    error = DefinitionError([Problem("unknown action 'x'", "actions.a.uses", "file.yaml", 3, 7)])
    assert pickle.loads(pickle.dumps(error)).problems == error.problems
