"""The JSON Schema for editors is that of the model, and agrees with the loader about examples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given

from orchestration.definition.editor import SCHEMA_FILE, editor_schema, schema_text
from orchestration.definition.loader import read_document
from tests.unit.definition.graphs import definitions
from tests.unit.definition.mistakes import one_action

ROOT = Path(__file__).parents[3]
EDITOR = jsonschema_rs.validator_for(editor_schema())


def test_the_shipped_file_is_up_to_date() -> None:
    assert SCHEMA_FILE.read_text(encoding="utf-8") == schema_text(), (
        "write it anew with: python -m orchestration.definition.editor"
    )


@given(definitions())
def test_definitions_without_mistakes_fit_the_schema(value: dict[str, Any]) -> None:
    assert EDITOR.is_valid(value)


def test_the_examples_fit_the_schema() -> None:
    for path in sorted((ROOT / "examples").rglob("*.yaml")):
        assert EDITOR.is_valid(read_document(path).value), path


@pytest.mark.parametrize(
    "action", [{"useless": 1}, {"needs": 5}, {"trigger_rule": "x"}, {"retry": {}}, {"for_each": {"rnge": 1}}, {"if": 1}]
)
def test_mistakes_do_not_fit_the_schema(action: dict[str, object]) -> None:
    assert not EDITOR.is_valid(one_action(**action))
