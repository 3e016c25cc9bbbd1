"""From YAML, JSON and Python to a checked `Definition`. Pure: no I/O but reading the named file."""

from orchestration.definition.builder import Workflow
from orchestration.definition.loader import load_definition
from orchestration.definition.schema import ActionDefinition, Definition, LimitsDefinition, RetryDefinition

__all__ = [
    "ActionDefinition",
    "Definition",
    "LimitsDefinition",
    "RetryDefinition",
    "Workflow",
    "load_definition",
]
