"""Prints a definition as YAML or Python; `load_definition` and the builder read it back to the same version. Pure."""

from __future__ import annotations

import pprint
from collections.abc import Mapping
from typing import Any

import yaml

from orchestration.definition.yaml_reader import plain_scalar

LINE_WIDTH = 110


class _Dumper(yaml.SafeDumper):
    """Without aliases, and with quotes where our reader (YAML 1.2) would read a string as something else."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002 - the base class asks for it
        return True


def _string(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = None if _reads_as_string(text) else "'"
    if not text.replace("\n", "").isprintable():
        # PyYAML would fold U+0085, U+2028 and U+2029 into spaces in the other styles.
        style = '"'
    elif "\n" in text:
        style = "|"
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


def _reads_as_string(text: str) -> bool:
    try:
        return isinstance(plain_scalar(text), str)
    except ValueError:
        return False


_Dumper.add_representer(str, _string)


def to_yaml(definition: Mapping[str, Any]) -> str:
    """Print a definition (`Definition.to_dict()`) as YAML."""
    return yaml.dump(dict(definition), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=LINE_WIDTH)


def to_python(definition: Mapping[str, Any]) -> str:
    """Print a definition (`Definition.to_dict()`) as a Python module that builds it."""
    options = {key: value for key, value in definition.items() if key not in ("name", "actions")}
    lines = ["from orchestration.definition import Workflow", ""]
    lines += _call("workflow = Workflow", definition["name"], options)
    for name, action in definition["actions"].items():
        lines += _call("workflow.action", name, {_KEYWORDS.get(key, key): value for key, value in action.items()})
    lines += ["definition = workflow.build()", ""]
    return "\n".join(lines)


#: Keys of an action that Python keeps for itself.
_KEYWORDS = {"with": "with_", "if": "if_"}


def _call(function: str, name: str, options: Mapping[str, Any]) -> list[str]:
    arguments = [repr(name), *(f"{key}={_literal(value)}" for key, value in options.items())]
    line = f"{function}({', '.join(arguments)})"
    if len(line) <= LINE_WIDTH and "\n" not in line:
        return [line]
    return [f"{function}(", *(f"    {argument.replace(chr(10), chr(10) + '    ')}," for argument in arguments), ")"]


def _literal(value: object) -> str:
    return pprint.pformat(value, width=LINE_WIDTH - 30, sort_dicts=False)
