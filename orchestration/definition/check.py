"""Checks a whole definition and reports all of its mistakes at once.

Every check reads the raw values, not the model, so that a mistake of one kind does not hide those of another. Pure;
called by `loader.py` and, for definitions built in Python, by `compile_plan`.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from orchestration.definition.check_actions import find_action_mistakes
from orchestration.definition.check_expressions import find_expression_mistakes
from orchestration.definition.check_graph import Graph, find_graph_mistakes
from orchestration.definition.check_times import find_time_mistakes
from orchestration.definition.payload import find_schema_mistakes
from orchestration.definition.places import Document, DocumentPath, Finding, value_at
from orchestration.definition.schema import ActionDefinition, Definition, LimitsDefinition, RetryDefinition
from orchestration.definition.scope import kind_of
from orchestration.errors import DefinitionError

#: Most actions in one definition, unless the caller says otherwise.
MAX_ACTIONS = 20_000


def check_document(document: Document, max_actions: int = MAX_ACTIONS) -> Definition:
    """Return the definition if nothing is wrong with it.

    Raises: DefinitionError: with all mistakes.
    """
    value = document.value
    if not isinstance(value, Mapping):
        found = [Finding((), f"a definition is a mapping with name and actions, but this is {kind_of(value)}")]
        raise DefinitionError(document.problems(found))
    actions = value.get("actions")
    if isinstance(actions, Mapping) and len(actions) > max_actions:
        raise DefinitionError(document.problems([_too_many(len(actions), max_actions)]))
    definition, findings = _validate(value)
    findings += _find_mistakes(value)
    if findings or definition is None:
        raise DefinitionError(document.problems(findings))
    definition._checked = True  # noqa: SLF001 - the model's own mark, set here only
    return definition


def ensure_checked(definition: Definition, max_actions: int = MAX_ACTIONS) -> None:
    """Check a definition that was not loaded but built.

    Raises: DefinitionError: with all mistakes.
    """
    if definition._checked:  # noqa: SLF001 - see check_document
        if len(definition.actions) > max_actions:
            raise DefinitionError(Document({}).problems([_too_many(len(definition.actions), max_actions)]))
        return
    check_document(Document(definition.to_dict()), max_actions)
    definition._checked = True  # noqa: SLF001 - see check_document


def _too_many(count: int, max_actions: int) -> Finding:
    return Finding(("actions",), f"{count} actions; at most {max_actions} are allowed (MAX_ACTIONS)")


def _find_mistakes(value: Mapping[str, object]) -> list[Finding]:
    raw = value.get("actions")
    actions = {name: one for name, one in raw.items() if isinstance(one, Mapping)} if isinstance(raw, Mapping) else {}
    graph = Graph.of(actions)
    return [
        *find_graph_mistakes(graph),
        *find_action_mistakes(actions),
        *find_time_mistakes(value.get("limits"), actions),
        *find_expression_mistakes(value, actions, graph),
        *find_schema_mistakes(value.get("payload_schema")),
    ]


def _validate(value: Mapping[str, object]) -> tuple[Definition | None, list[Finding]]:
    try:
        return Definition.model_validate(value), []
    except ValidationError as error:
        return None, [_finding(one, value) for one in error.errors(include_url=False, include_context=True)]


def _finding(error: Any, document: object) -> Finding:
    """One of pydantic's errors in our words."""
    path: DocumentPath = error["loc"]
    kind: str = error["type"]
    if path and path[-1] == "[key]":
        return Finding(path[:-1], f"{_NAME_RULE}; {path[-2]!r} can't be a name", at_key=True)
    if kind == "extra_forbidden":
        known = _known_keys(path[:-1])
        near = difflib.get_close_matches(str(path[-1]), known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
        return Finding(path, f"unknown key {path[-1]!r}", hint, at_key=True)
    if kind == "missing":
        return Finding(path[:-1], f"{path[-1]} is missing")
    if kind == "string_pattern_mismatch":
        return Finding(path, f"{_NAME_RULE}; this is {error['input']!r}")
    message = str(error["msg"])
    if kind in _TYPES:
        message = f"must be {_TYPES[kind]}; it is {kind_of(value_at(document, path))}"
    elif message.startswith("Input should be "):
        shown = error["input"]
        message = f"must be {message.removeprefix('Input should be ')}; it is {shown!r}"[:300]
    return Finding(path, message)


_NAME_RULE = "a name has 1 to 128 of the characters A-Z a-z 0-9 _ . - and starts with a letter, a digit or _"
_TYPES = {
    "string_type": "a string",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "dict_type": "a mapping",
    "list_type": "a list",
    "tuple_type": "a list",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
}


def _known_keys(path: DocumentPath) -> list[str]:
    model: type[BaseModel] = Definition
    if path[:1] == ("limits",):
        model = LimitsDefinition
    elif path[:1] == ("actions",):
        model = RetryDefinition if path[2:3] == ("retry",) else ActionDefinition
    return [field.alias or name for name, field in model.model_fields.items()]
