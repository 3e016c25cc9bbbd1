"""Workflows and their immutable versions, content-addressed: the same content is the same version and number."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from orchestration.errors import UnknownWorkflow, WorkflowExecutionError
from orchestration.store import json_text
from orchestration.store.pool import Database, Row
from orchestration.telemetry.probes import probed

_COLUMNS = "version_id, workflow, number, published_at, created_at"

#: A version in use must not look old to retention; once a day is often enough.
_FIND = f"""
UPDATE workflow_versions SET last_used_at = clock_timestamp()
WHERE version_id = %s AND last_used_at < clock_timestamp() - interval '1 day';
SELECT {_COLUMNS} FROM workflow_versions WHERE version_id = %s
"""

_CURRENT = f"""
SELECT {_COLUMNS} FROM workflow_versions WHERE workflow = %s AND published_at IS NOT NULL
ORDER BY published_at DESC, number DESC LIMIT 1
"""


@dataclass(frozen=True, slots=True)
class WorkflowVersion:
    """One version of a workflow, without its definition."""

    version_id: str
    workflow: str
    #: 1 for the first of this name.
    number: int
    published_at: datetime | None
    created_at: datetime

    @property
    def published(self) -> bool:
        return self.published_at is not None


@dataclass(frozen=True, slots=True)
class LoadedVersion(WorkflowVersion):
    """One version of a workflow with its definition."""

    definition: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class WorkflowSummary:
    """A workflow in a list: the version that its name runs, and how many there are."""

    current: WorkflowVersion
    versions: int


@probed("sql.register_version")
def register_version(
    database: Database, name: str, version_id: str, definition: Mapping[str, Any], publish: bool
) -> WorkflowVersion:
    """The version is stored; when `publish`, it is also what the workflow's name now runs.

    Args: version_id: hash of the definition's content, its name included.
    Returns: the version, the same for every caller with this content.
    Raises: WorkflowExecutionError: `version_id` belongs to a workflow of another name.
    """
    rows = database.execute(_FIND, (version_id, version_id))
    if rows and not publish:
        return _checked(rows[0], name)
    text = json_text.dump(definition)
    with database.transaction() as cursor:
        cursor.execute("INSERT INTO workflows (name) VALUES (%s) ON CONFLICT DO NOTHING", (name,))
        # One registration of a name at a time: numbers have no gaps and the last published one is the newest.
        cursor.execute("SELECT 1 FROM workflows WHERE name = %s FOR UPDATE", (name,))
        cursor.execute(
            "INSERT INTO workflow_versions (version_id, workflow, number, definition)"
            " SELECT %s, %s, COALESCE(max(number), 0) + 1, %s::json FROM workflow_versions WHERE workflow = %s"
            " ON CONFLICT (version_id) DO NOTHING",
            (version_id, name, text, name),
        )
        cursor.execute(_CURRENT, (name,))
        current = cursor.fetchone()
        if publish and (current is None or current[0] != version_id):
            cursor.execute(
                "UPDATE workflow_versions SET published_at = clock_timestamp(), last_used_at = clock_timestamp()"
                " WHERE version_id = %s AND workflow = %s",
                (version_id, name),
            )
        cursor.execute(f"SELECT {_COLUMNS} FROM workflow_versions WHERE version_id = %s", (version_id,))
        row = cursor.fetchone()
        assert row is not None
        return _checked(row, name)


def load_version(database: Database, version_id: str) -> LoadedVersion:
    """A version with its definition; worth caching, it never changes.

    Raises: UnknownWorkflow: there is no such version.
    """
    rows = database.fetch(f"SELECT {_COLUMNS}, definition FROM workflow_versions WHERE version_id = %s", (version_id,))
    if not rows:
        raise UnknownWorkflow(f"no workflow version has the id {version_id}")
    return LoadedVersion(*rows[0])


def find_version(database: Database, name: str, number: int | None = None) -> WorkflowVersion:
    """The version that a name runs: the last published one, or the one with this number, published or not.

    Raises: UnknownWorkflow: there is none; the message offers the nearest names, or the numbers there are.
    """
    if number is None:
        rows = database.fetch(_CURRENT, (name,))
    else:
        rows = database.fetch(
            f"SELECT {_COLUMNS} FROM workflow_versions WHERE workflow = %s AND number = %s", (name, number)
        )
    if rows:
        return WorkflowVersion(*rows[0])
    raise UnknownWorkflow(_why_unknown(database, name, number))


def list_workflows(database: Database) -> list[WorkflowSummary]:
    """All workflows with a published version, by name."""
    rows = database.fetch(
        f"SELECT DISTINCT ON (workflow) {_COLUMNS},"
        " (SELECT count(*) FROM workflow_versions AS every WHERE every.workflow = version.workflow)"
        " FROM workflow_versions AS version WHERE published_at IS NOT NULL"
        " ORDER BY workflow, published_at DESC, number DESC"
    )
    return [WorkflowSummary(WorkflowVersion(*row[:-1]), row[-1]) for row in rows]


def list_versions(database: Database, name: str) -> list[WorkflowVersion]:
    """All versions of a workflow, the newest number first."""
    rows = database.fetch(f"SELECT {_COLUMNS} FROM workflow_versions WHERE workflow = %s ORDER BY number DESC", (name,))
    return [WorkflowVersion(*row) for row in rows]


def _checked(row: Row, name: str) -> WorkflowVersion:
    version = WorkflowVersion(*row)
    if version.workflow != name:
        raise WorkflowExecutionError(
            f"workflow version {version.version_id} belongs to workflow {version.workflow!r}, not to {name!r}"
        )
    return version


def _why_unknown(database: Database, name: str, number: int | None) -> str:
    numbers = [version.number for version in list_versions(database, name)]
    if numbers and number is not None:
        nearest = sorted(sorted(numbers, key=lambda known: abs(known - number))[:5])
        return f"workflow {name!r} has no version {number}; there are: {', '.join(map(str, nearest))}"
    if numbers:
        return f"workflow {name!r} has no published version; publish one, or name a version: {name}@{numbers[0]}"
    known = [row[0] for row in database.fetch("SELECT DISTINCT workflow FROM workflow_versions"
                                              " WHERE published_at IS NOT NULL ORDER BY workflow")]  # fmt: skip
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if near:
        return f"no workflow is called {name!r}; did you mean {' or '.join(repr(other) for other in near)}?"
    return f"no workflow is called {name!r}; " + (
        f"published are: {', '.join(known[:10])}" if known else "none is published yet"
    )
