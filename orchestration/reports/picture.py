"""One run as a picture: its graph with places, how far each action is, and every task as columns. Read-only.

The page of a run draws it; nothing of it is for scripts. Times in columns are whole units of `unit_us` µs from the
origin, which is when the run was accepted. Statuses are places in `STATUSES`. A picture has a `mark`; `changes` gives
what has changed since, exactly, so that whoever has a picture and all changes since has the present.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from orchestration.errors import UnknownRun
from orchestration.plan.layout import lay_out
from orchestration.reports import runs
from orchestration.reports.explain import explain_run, waits_of
from orchestration.reports.lanes import lanes_of
from orchestration.state.records import LiveSnapshot
from orchestration.store import json_text, pictures, sessions, task_logs, tasks, workflows
from orchestration.store.pictures import STATUSES, ChangedTask, Choice, TaskColumns
from orchestration.store.pool import Database
from orchestration.store.sessions import SessionRow
from orchestration.telemetry.tracing import parse_traceparent
from orchestration.vocabulary import NO_ITEM, TaskStatus

#: Above so many tasks a picture has no columns; it is drawn from `density`, and its tasks come in pages.
MOST_COLUMNS: Final = 100_000
#: Above so many changes are not told.
MOST_CHANGES: Final = 500
#: Runs that took less are told in µs, since in ms they would be a few strokes.
SHORT_RUN_US: Final = 20_000_000
MOST_BINS: Final = 2_000
#: Lines of a task's log that are shown.
MOST_LOG_LINES: Final = 500
#: Characters of a payload or result that are shown.
MOST_TEXT: Final = 65_536

_CODES: Final = {status: code for code, status in enumerate(STATUSES)}
_PENDING: Final = _CODES[TaskStatus.PENDING]
_NO_WORKER: Final = -1


@dataclass(frozen=True, slots=True)
class Graph:
    """The graph of a version with places; the same for all its runs."""

    actions: tuple[Mapping[str, Any], ...]
    #: Place of each action in `actions`, by name.
    places: Mapping[str, int]
    #: From, to, and the (level, row) of what a long edge passes.
    edges: tuple[tuple[int, int, Sequence[tuple[int, float]]], ...]
    levels: int
    rows: int

    def to_json(self) -> dict[str, Any]:
        return {"actions": self.actions, "edges": self.edges, "levels": self.levels, "rows": self.rows}


def graph_of(definition: Mapping[str, Any]) -> Graph:
    """The graph of a definition as it was stored."""
    actions: Mapping[str, Mapping[str, Any]] = definition["actions"]
    successors: dict[str, list[str]] = {name: [] for name in actions}
    for name, action in actions.items():
        for need in action.get("needs") or ():
            successors[need].append(name)
    layout = lay_out(successors)
    places = {name: place for place, name in enumerate(actions)}
    return Graph(
        tuple(
            {
                "name": name, "uses": action.get("uses", ""), "for_each": action.get("for_each") is not None,
                "level": layout.positions[name][0], "row": round(layout.positions[name][1], 3),
                "needs": [places[need] for need in action.get("needs") or ()],
            }
            for name, action in actions.items()
        ),
        places,
        tuple(
            (places[start], places[end],
             [(level, round(row, 3)) for level, row in layout.passages.get((start, end), ())])
            for start, after in successors.items() for end in after
        ),
        layout.levels,
        layout.rows,
    )  # fmt: skip


def picture(database: Database, live: runs.Live, flow_session_id: str) -> dict[str, Any]:
    """All that the page of a run draws, as JSON; 50,000 tasks take some 0.2 s.

    Raises: UnknownRun: there is no such run. ServiceUnreachable.
    """
    row = _found(sessions.load_session(database, flow_session_id), flow_session_id)
    mark = pictures.mark_now(database)
    moment = standing(database, live, row)
    waits = [] if row.status.is_final else list(waits_of(database, live, flow_session_id))
    graph = _graph(database, row.version_id)
    total = pictures.count_tasks(database, flow_session_id, row.session_day, MOST_COLUMNS + 1)
    found = {
        "run": moment["run"] | _once(row) | {"waits_for": waits, "retried_as": row.retried_as},
        "progress": moment["progress"],
        "graph": graph.to_json(), "mark": mark, "now": moment["now"], "origin": _ms(row.created_at), "unit_us": 1,
        "total": total, "most": MOST_COLUMNS, "workers": [], "lanes": [], "columns": None,
        "ready_us": _ready(database, row, graph),
    }  # fmt: skip
    if total <= MOST_COLUMNS:
        found |= columns(pictures.columns_of(database, flow_session_id, row.session_day, row.created_at), graph)
    return found


def columns(found: Mapping[str, TaskColumns], graph: Graph) -> dict[str, Any]:
    """The tasks of a run as columns, by action in the order of the definition and item, each with its lane. Pure.

    Actions of which nothing is recorded are pending.
    """
    action: list[int] = []
    item: list[int] = []
    status: list[int] = []
    attempt: list[int] = []
    names: list[str | None] = []
    start: list[int | None] = []
    end: list[int | None] = []
    whole = []
    for place, described in enumerate(graph.actions):
        own = found.get(described["name"]) or TaskColumns([], [], [], [], [], [])
        if NO_ITEM not in own.item[:1]:
            own = TaskColumns(
                [NO_ITEM, *own.item], [_PENDING, *own.status], [0, *own.attempt], [None, *own.worker],
                [None, *own.start_us], [None, *own.end_us],
            )  # fmt: skip
        if described["for_each"]:
            # It lasts as long as its items do, and is no work of its own.
            whole.append(len(item))
        action += [place] * len(own.item)
        item += own.item
        status += own.status
        attempt += own.attempt
        names += own.worker
        start += own.start_us
        end += own.end_us
    workers = sorted({name for name in names if name is not None})
    number: dict[str | None, int] = {name: place for place, name in enumerate(workers)}
    worker = [number.get(name, _NO_WORKER) for name in names]
    lanes = lanes_of(worker, start, end, whole)
    unit = 1 if max((moment for moment in (*start, *end) if moment is not None), default=0) < SHORT_RUN_US else 1000
    return {
        "unit_us": unit, "workers": workers, "lanes": lanes.workers,
        "columns": {
            "action": action, "item": item, "status": status, "attempt": attempt, "worker": worker,
            "start": _in_units(start, unit), "end": _in_units(end, unit), "slot": lanes.of,
        },
    }  # fmt: skip


def standing(database: Database, live: runs.Live, row: SessionRow) -> dict[str, Any]:
    """How the run and its actions stand just now; its cost grows with the actions, not with the items."""
    snapshot = None if row.status.is_final else live.snapshot(row.flow_session_id)
    progress = runs.progress(database, _Moment(live, snapshot), row.flow_session_id)
    assert progress is not None
    origin = row.created_at
    counts = runs.live_counts(snapshot) if snapshot is not None else dict(row.counts) or _counts(progress)
    return {
        "now": _ms(datetime.now(UTC)),
        "run": {
            "status": progress.status.value, "counts": counts, "started_at": _ms(row.started_at),
            "finished_at": _ms(row.finished_at), "recorded": progress.recorded,
            "limit": None if snapshot is None else snapshot.limit,
            "in_use": None if snapshot is None else snapshot.in_use,
            "ready": None if snapshot is None else snapshot.ready,
            "deferred": None if snapshot is None else snapshot.deferred,
        },
        "progress": [
            [_CODES[one.status], one.size, one.succeeded, one.failed, one.skipped, one.running,
             _since(origin, one.started_at), _since(origin, one.finished_at)]
            for one in progress.actions
        ],
    }  # fmt: skip


def why(
    database: Database, live: runs.Live, flow_session_id: str, action: str | None, item: int | None
) -> dict[str, Any]:
    """Why the run, or one task of it, is not running, failed, or took so long.

    Raises: UnknownRun, UnknownTask.
    """
    return explain_run(database, live, flow_session_id, action, item).to_json()


def changes(
    database: Database, live: runs.Live, flow_session_id: str, mark: str, most: int = MOST_CHANGES
) -> dict[str, Any]:
    """What has changed since a mark.

    Args: most: above so many changed tasks none are told.
    Returns: how the run stands, a new mark, and `rows`: tasks as lists like `ChangedTask`, or None when there are too
        many to tell (or too many tasks in all for a picture to have them).
    Raises: UnknownRun. ValueError: the mark is none. ServiceUnreachable.
    """
    row = _found(sessions.find_session(database, flow_session_id), flow_session_id)
    new_mark = pictures.mark_now(database)
    found = pictures.changed_since(
        database, flow_session_id, row.session_day, mark, row.created_at, most + 1
    )  # fmt: skip
    graph = _graph(database, row.version_id)
    moment = standing(database, live, row)
    rows = None if len(found) > most else _numbered(found, graph)
    return moment | {"mark": new_mark, "rows": rows}


def density(database: Database, flow_session_id: str, from_us: int, to_us: int, bins: int) -> dict[str, Any]:
    """How many tasks of each action ran in each part of a window of time, and how many failed.

    Returns: by place of the action, `running`: how many at once in each bin, in the mean, `failed`: numbers by bin.
    Raises: UnknownRun. ValueError: the window is none.
    """
    if not (0 < bins <= MOST_BINS and from_us < to_us):
        raise ValueError(f"expected from < to, and 1 to {MOST_BINS} bins")
    row = _found(sessions.find_session(database, flow_session_id), flow_session_id)
    graph = _graph(database, row.version_id)
    each = [action["name"] for action in graph.actions if action["for_each"]]
    buckets = pictures.buckets_of(
        database, flow_session_id, row.session_day, row.created_at, (from_us, to_us), bins, each
    )  # fmt: skip
    return {"from": from_us, "to": to_us, "bins": bins, "actions": density_of(buckets, graph, (from_us, to_us), bins)}


def density_of(
    buckets: Sequence[pictures.Bucket], graph: Graph, window_us: tuple[int, int], bins: int
) -> dict[str, dict[str, list[float]]]:
    """What `density` gives for these buckets. Pure."""
    length = (window_us[1] - window_us[0]) / bins
    # by action: how many more run from a bin on, and the part of that bin in which they already do
    change: dict[int, list[int]] = {}
    part: dict[int, list[float]] = {}
    failed: dict[int, list[float]] = {}
    bad = {_CODES[TaskStatus.FAILED], _CODES[TaskStatus.TIMED_OUT]}
    for bucket in buckets:
        place = graph.places.get(bucket.action)
        if place is None or bucket.bin > bins:
            continue
        sign = 1 if bucket.ended is None else -1
        change.setdefault(place, [0] * (bins + 1))[bucket.bin] += sign * bucket.tasks
        until = window_us[0] + bucket.bin * length
        part.setdefault(place, [0.0] * (bins + 1))[bucket.bin] += sign * (bucket.tasks * until - bucket.sum_us) / length
        if bucket.ended in bad and bucket.bin:
            failed.setdefault(place, [0] * bins)[bucket.bin - 1] += bucket.tasks
    found = {}
    for place, changes_ in change.items():
        running, at_work = [], changes_[0]
        for one in range(1, bins + 1):
            running.append(round(max(0.0, at_work + part[place][one]), 2))
            at_work += changes_[one]
        found[str(place)] = {"running": running, "failed": failed.get(place, [])}
    return found


def page(
    database: Database, flow_session_id: str, choice: Choice, after: Sequence[Any] | None = None, limit: int = 200
) -> dict[str, Any]:
    """A page of tasks as lists like `ChangedTask`, and where the next one begins.

    Raises: UnknownRun. ServiceUnreachable.
    """
    row = _found(sessions.find_session(database, flow_session_id), flow_session_id)
    found, following = pictures.page_of(
        database, flow_session_id, row.session_day, row.created_at, choice, after, limit
    )  # fmt: skip
    return {"rows": _numbered(found, _graph(database, row.version_id)), "next": following}


def task(database: Database, flow_session_id: str, action: str, item: int) -> dict[str, Any]:
    """All that is known of one task, and what the definition says of its action.

    Raises: UnknownRun: there is no such run, or its workflow has no such action.
    """
    row = _found(sessions.find_session(database, flow_session_id), flow_session_id)
    definition = workflows.load_version(database, row.version_id).definition["actions"].get(action)
    if definition is None:
        raise UnknownRun(f"{row.workflow}@{row.version} has no action {action!r}")
    stored = pictures.load_task(database, flow_session_id, row.session_day, action, item, MOST_TEXT)
    found: dict[str, Any] = {
        "action": action, "item": None if item == NO_ITEM else item, "definition": definition,
        "status": TaskStatus.PENDING.value, "attempt": 0,
    }  # fmt: skip
    if stored is None:
        return found
    branch = next(
        (one for one in tasks.branches_of(database, flow_session_id, row.session_day) if one.branch == action), None
    )
    return found | {
        "status": stored.status.value, "attempt": stored.attempt, "queue": stored.queue, "worker": stored.worker,
        "started_at": _ms(stored.started_at), "finished_at": _ms(stored.finished_at), "error": stored.error,
        "ran_us": _since(stored.started_at, stored.finished_at),
        "waited_us": branch.waited_us if branch is not None and item == NO_ITEM else None,
        "result": stored.result, "result_bytes": stored.result_bytes,
    } | _logs(database, row, action, item)  # fmt: skip


class _Moment:
    """Live state of which the snapshot was read before, for more than one question."""

    def __init__(self, live: runs.Live, value: LiveSnapshot | None) -> None:
        self.situation = live.situation
        self.rate_places = live.rate_places
        self._value = value

    def snapshot(self, flow_session_id: str) -> LiveSnapshot | None:
        del flow_session_id
        return self._value


def _counts(progress: runs.RunProgress) -> dict[str, int]:
    """Of a run without live state that has not ended: what is recorded of its actions."""
    counts: dict[str, int] = {}
    for one in progress.actions:
        if one.status.is_final:
            counts[one.status.value] = counts.get(one.status.value, 0) + 1
    return counts


def _numbered(found: Sequence[ChangedTask], graph: Graph) -> list[list[Any]]:
    return [[graph.places[one.action], *one[1:]] for one in found if one.action in graph.places]


def _logs(database: Database, row: SessionRow, action: str, item: int) -> dict[str, Any]:
    """What a task logged, by time, and whether there is more of it."""
    lines = task_logs.lines_by_time(
        database, row.flow_session_id, row.session_day, action=action, item=item, limit=MOST_LOG_LINES + 1
    )
    return {
        "logs": [
            {"at": _ms(line.logged_at), "attempt": line.attempt, "level": line.level, "message": line.message,
             "fields": line.fields}
            for line in lines[:MOST_LOG_LINES]
        ],
        "more_logs": len(lines) > MOST_LOG_LINES,
    }  # fmt: skip


def _once(row: SessionRow) -> dict[str, Any]:
    """What never changes of a run."""
    payload, trace = row.payload, parse_traceparent(row.traceparent)
    return {
        "id": row.flow_session_id, "workflow": row.workflow, "version": row.version, "priority": row.priority,
        "created_at": _ms(row.created_at), "trace_id": None if trace is None else f"{trace[0]:032x}",
        "retry_of": row.retry_of,
        "payload": None if payload is None else payload[:MOST_TEXT],
        "payload_size": 0 if payload is None else len(payload),
        "output": None if row.output is None else row.output[:MOST_TEXT],
        "error": None if row.error is None else json_text.load(row.error),
    }  # fmt: skip


def _ready(database: Database, row: SessionRow, graph: Graph) -> dict[str, int]:
    """When each branch that has begun was ready, µs from the origin, by the place of its first action."""
    found = {}
    for branch in tasks.branches_of(database, row.flow_session_id, row.session_day):
        place, start = graph.places.get(branch.branch), _since(row.created_at, branch.started_at)
        if place is not None and start is not None and branch.waited_us is not None:
            found[str(place)] = max(0, start - branch.waited_us)
    return found


def _in_units(moments: list[int | None], unit_us: int) -> list[int | None]:
    if unit_us == 1:
        return moments
    return [None if moment is None else moment // unit_us for moment in moments]


def _found(row: SessionRow | None, flow_session_id: str) -> SessionRow:
    if row is None:
        raise UnknownRun(f"no run has the id {flow_session_id}; it may not have begun, or be older than RETENTION_DAYS")
    return row


def _since(origin: datetime | None, moment: datetime | None) -> int | None:
    if origin is None or moment is None:
        return None
    passed = moment - origin
    return (passed.days * 86_400 + passed.seconds) * 1_000_000 + passed.microseconds


def _ms(moment: datetime | None) -> int | None:
    return None if moment is None else round(moment.timestamp() * 1000)


def _graph(database: Database, version_id: str) -> Graph:
    graph = _graphs.get(version_id)
    if graph is None:
        if len(_graphs) >= _KEPT_GRAPHS:
            _graphs.clear()
        graph = _graphs[version_id] = graph_of(workflows.load_version(database, version_id).definition)
    return graph


#: By version id; a version never changes.
_graphs: dict[str, Graph] = {}
_KEPT_GRAPHS = 32
