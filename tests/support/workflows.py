"""Small definitions for tests with workers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

Definition = dict[str, Any]


def record(journal: Path, **inputs: object) -> Definition:
    """An action that writes to the journal."""
    return {"uses": "test.record", "with": {"journal": str(journal), **inputs}}


def linear(name: str, journal: Path) -> Definition:
    """`first`, then `<name>`, which gives the payload."""
    last = {"needs": ["first"], "uses": "core.echo", "with": {"value": "${{ payload }}"}}
    return {"name": name, "actions": {"first": record(journal), name: last}}


def forked(name: str, journal: Path) -> Definition:
    """`first`, three branches, then `<name>`, which gives the payload."""
    branches = {branch: {**record(journal), "needs": ["first"]} for branch in ("one", "two", "three")}
    last = {"needs": list(branches), "uses": "core.echo", "with": {"value": "${{ payload }}"}}
    return {"name": name, "actions": {"first": record(journal), **branches, name: last}}
