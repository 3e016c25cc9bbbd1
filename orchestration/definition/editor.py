"""The JSON Schema of the definition format, for editors. Generated from the model and shipped beside this file.

Write it anew with `python -m orchestration.definition.editor` after a change of `schema.py`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from orchestration.definition.schema import Definition

SCHEMA_FILE = Path(__file__).with_name("workflow.schema.json")


def editor_schema() -> dict[str, Any]:
    """The JSON Schema, generated now."""
    schema = Definition.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "Workflow definition"}


def schema_text() -> str:
    """What `workflow.schema.json` must hold."""
    return json.dumps(editor_schema(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    SCHEMA_FILE.write_text(schema_text(), encoding="utf-8")
