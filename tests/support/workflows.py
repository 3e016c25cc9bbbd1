"""Small definitions for tests with workers."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

from orchestration.definition import load_definition
from orchestration.plan import compile_plan
from orchestration.registry import load_actions
from orchestration.store import workflows
from orchestration.store.pool import Database
from tests.support.fleet import Fleet

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


def ends_by(fault: str, dispatch: str = "counted", queue: str = "branches", **inputs: object) -> Definition:
    """A fork, and behind its join the fault, as the last thing that the run does."""
    noop: Definition = {"uses": "core.noop"}
    forked = {name: {**noop, "needs": ["start"]} for name in ("a", "b", "c")}
    last = {"uses": fault, "with": inputs, "needs": list(forked)}
    actions = {"start": noop, **forked, "last": last}
    return {"name": "ends", "dispatch": dispatch, "queue": queue, "actions": actions}


def publish(fleet: Fleet, definition: Definition) -> None:
    """The definition can be run by its name, from now on."""
    load_actions(())
    loaded = load_definition(definition)
    with closing(Database(fleet.database_url)) as database:
        version_id = compile_plan(loaded).version_id
        workflows.register_version(database, loaded.name, version_id, loaded.to_dict(), publish=True)
