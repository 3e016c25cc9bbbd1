"""Many flow sessions at once, for people who look for some: by page, counted, and by their ids.

Pages begin after a row, never at a number, so the last page of millions costs what the first does. Counts stop at a
bound. What is asked of statuses is asked of each alone, since then an index has it in order (migrations 0001, 0006).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from orchestration.store.pool import Database
from orchestration.store.sessions import LIGHT_COLUMNS, SessionRow, session_of
from orchestration.vocabulary import RunStatus

#: Most ids that begin alike and are looked at.
MOST_IDS = 1000
#: Above any character of an id, in any order of characters.
_LAST = "zzzz"


@dataclass(frozen=True, slots=True)
class RunFilter:
    """Which flow sessions are asked for; what is empty asks for nothing."""

    statuses: frozenset[RunStatus] = frozenset()
    workflow: str = ""
    #: Accepted at or after, and before.
    since: datetime | None = None
    until: datetime | None = None
    #: How its id begins.
    id_prefix: str = ""
    #: Or it is one of these.
    ids: tuple[str, ...] = ()


#: A place in the order of pages: when a session was accepted, and its id.
Place = tuple[datetime, str]


def find_runs(database: Database, wanted: RunFilter, limit: int, before: Place | None = None) -> list[SessionRow]:
    """Flow sessions, the newest first, without payload, output and error.

    Args: before: the place of the last row of the page before.
    """
    conditions, values = _conditions(database, wanted)
    if before is not None:
        # The day leaves out the partitions of later days; one more, as the two clocks are read apart.
        conditions.append("session_day <= (%(before_at)s AT TIME ZONE 'UTC')::date + 1")
        conditions.append("(created_at, flow_session_id) < (%(before_at)s, %(before_id)s)")
        values |= {"before_at": before[0], "before_id": before[1]}
    order = "ORDER BY created_at DESC, flow_session_id DESC LIMIT %(limit)s"
    select = f"SELECT {LIGHT_COLUMNS} FROM flow_sessions WHERE {' AND '.join(conditions)}"
    if wanted.statuses:
        each = [f"({select} AND status = '{status.value}' {order})" for status in sorted(wanted.statuses)]
        select = f"SELECT * FROM ({' UNION ALL '.join(each)}) AS found"
    return [session_of(row) for row in database.fetch(f"{select} {order}", values | {"limit": limit})]


def count_runs(database: Database, wanted: RunFilter, most: int) -> dict[RunStatus, int]:
    """How many flow sessions have each status, whatever `wanted` says of statuses; `most` stands for that and more."""
    conditions, values = _conditions(database, wanted)
    where = " AND ".join(conditions)
    each = [
        f"SELECT '{status.value}', (SELECT count(*) FROM (SELECT 1 FROM flow_sessions WHERE {where}"
        f" AND status = '{status.value}' LIMIT %(most)s) AS counted)"
        for status in RunStatus
    ]
    rows = database.fetch(" UNION ALL ".join(each), values | {"most": most})
    return {RunStatus(status): count for status, count in rows}


def count_newer(database: Database, wanted: RunFilter, than: Place, most: int) -> int:
    """How many flow sessions were accepted after one; at most `most`."""
    conditions, values = _conditions(database, wanted)
    conditions.append("session_day >= (%(than_at)s AT TIME ZONE 'UTC')::date - 1")
    conditions.append("(created_at, flow_session_id) > (%(than_at)s, %(than_id)s)")
    if wanted.statuses:
        conditions.append("status = ANY (%(statuses)s)")
    values |= {
        "than_at": than[0], "than_id": than[1], "most": most, "statuses": [one.value for one in wanted.statuses],
    }  # fmt: skip
    where = " AND ".join(conditions)
    rows = database.fetch(
        f"SELECT count(*) FROM (SELECT 1 FROM flow_sessions WHERE {where} LIMIT %(most)s) AS counted", values
    )
    return int(rows[0][0])


def runs_of(database: Database, ids: Sequence[str]) -> dict[str, SessionRow]:
    """Flow sessions by their ids; those that are not known are left out."""
    days = database.fetch(
        "SELECT DISTINCT session_day FROM session_days WHERE flow_session_id = ANY (%s)", (list(ids),)
    )
    if not days:
        return {}
    rows = database.fetch(
        f"SELECT {LIGHT_COLUMNS} FROM flow_sessions WHERE session_day = ANY (%s) AND flow_session_id = ANY (%s)",
        ([day for (day,) in days], list(ids)),
    )
    return {row[0]: session_of(row) for row in rows}


def workflow_names(database: Database, limit: int) -> list[str]:
    """Names of workflows, in their order."""
    return [name for (name,) in database.fetch("SELECT name FROM workflows ORDER BY name LIMIT %s", (limit,))]


def _conditions(database: Database, wanted: RunFilter) -> tuple[list[str], dict[str, Any]]:
    conditions, values = ["true"], dict[str, Any]()
    if wanted.workflow:
        conditions.append("workflow = %(workflow)s")
        values["workflow"] = wanted.workflow
    if wanted.since is not None:
        conditions.append("session_day >= (%(since)s AT TIME ZONE 'UTC')::date - 1 AND created_at >= %(since)s")
        values["since"] = wanted.since
    if wanted.until is not None:
        conditions.append("session_day <= (%(until)s AT TIME ZONE 'UTC')::date + 1 AND created_at < %(until)s")
        values["until"] = wanted.until
    if wanted.id_prefix or wanted.ids:
        found = _ids_of(database, wanted)
        conditions.append("session_day = ANY (%(days)s) AND flow_session_id = ANY (%(ids)s)")
        values |= {"days": sorted(set(found.values())), "ids": list(found)}
    return conditions, values


def _ids_of(database: Database, wanted: RunFilter) -> dict[str, Any]:
    """The ids that are meant, with their days."""
    # A range of the key, in whatever order the database has texts, and of that what begins so.
    rows = database.fetch(
        "SELECT flow_session_id, session_day FROM session_days WHERE flow_session_id = ANY (%(ids)s)"
        " UNION (SELECT flow_session_id, session_day FROM session_days WHERE %(prefix)s <> ''"
        " AND flow_session_id >= %(prefix)s AND flow_session_id < %(prefix)s || %(last)s"
        " AND starts_with(flow_session_id, %(prefix)s) LIMIT %(most)s)",
        {"ids": list(wanted.ids), "prefix": wanted.id_prefix, "last": _LAST, "most": MOST_IDS},
    )
    return dict(rows)
