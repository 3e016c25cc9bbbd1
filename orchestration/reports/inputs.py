"""What a task was called with, computed anew: nobody keeps it.

From the definition, the payload and the results before it, all as they are recorded; so it is what the task got, but
for results that were recorded anew since. Secrets are masked as in logs, and its size is bounded. For the pages.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from config.masking import Masker
from orchestration.definition.expressions import ItemSource, Scope, Template
from orchestration.errors import ExpressionError, UnknownRun, UnknownTask, WorkflowExecutionError
from orchestration.store import json_text, sessions, task_views, workflows
from orchestration.store.pool import Database
from orchestration.store.sessions import SessionRow
from orchestration.store.task_views import TooLarge
from orchestration.vocabulary import NO_ITEM, TaskStatus

#: Characters that are shown.
MOST_TEXT: Final = 16_384
#: Of these nothing was called.
_NEVER_CALLED: Final = (TaskStatus.SKIPPED, TaskStatus.UPSTREAM_FAILED)


def inputs_of(database: Database, flow_session_id: str, action: str, item: int, masker: Masker) -> dict[str, Any]:
    """The inputs of a task.

    Args: item: NO_ITEM for a task that is none.
    Returns: `text`: the beginning of them as JSON, None when they are not to be had; `bytes`: how long they are in all;
        `why`: why there are none, empty when there are, or when the task has none.
    Raises: UnknownRun, UnknownTask: there is no such run or action. ServiceUnreachable.
    """
    row = sessions.load_session(database, flow_session_id)
    if row is None:
        raise UnknownRun(f"no run has the id {flow_session_id}")
    actions: Mapping[str, Any] = workflows.load_version(database, row.version_id).definition["actions"]
    definition = actions.get(action)
    if definition is None:
        raise UnknownTask(f"{row.workflow}@{row.version} has no action {action!r}")
    given = definition.get("with")
    if not given:
        return _without("")
    if definition.get("for_each") is not None and item == NO_ITEM:
        return _without("each item has its own")
    tasks = _Tasks(database, row, actions)
    try:
        if item == NO_ITEM and tasks.was_never_called(action):
            return _without("it was not called")
        value = Template(given).render(_scope(row, tasks, definition, item))
    except _NotYet as missing:
        return _without(f"{missing} has not ended")
    except (TooLarge, ExpressionError, WorkflowExecutionError) as error:
        return _without(str(error))
    text = json.dumps(masker.value(value), indent=2, ensure_ascii=False)
    return {"text": text[:MOST_TEXT], "bytes": len(text.encode(errors="replace")), "why": ""}


def _without(why: str) -> dict[str, Any]:
    return {"text": None, "bytes": 0, "why": why}


def _scope(row: SessionRow, tasks: _Tasks, definition: Mapping[str, Any], item: int) -> Scope:
    payload = "{}" if row.payload is None else row.payload
    if len(payload) > task_views.MOST_BYTES:
        raise TooLarge(f"the payload has {len(payload):,} characters")
    session = {"id": row.flow_session_id, "workflow": row.workflow, "version_id": row.version_id}
    scope = Scope(payload=json_text.load(payload), tasks=tasks, session=session)
    if item != NO_ITEM:
        items = ItemSource(definition["for_each"]).resolve(scope)
        if item >= len(items):
            raise ExpressionError(f"there are {len(items):,} items, and none has the number {item}")
        scope.item, scope.item_index = items[item], item
    return scope


class _NotYet(Exception):
    """A task whose result is asked for has not settled."""


class _Tasks(Mapping[str, object]):
    """`tasks` in expressions: what is asked for is read from the record."""

    def __init__(self, database: Database, row: SessionRow, actions: Mapping[str, Any]) -> None:
        self._database, self._actions = database, actions
        self._run = (row.flow_session_id, row.session_day)

    def was_never_called(self, action: str) -> bool:
        return task_views.status_of(self._database, *self._run, action) in _NEVER_CALLED

    def __getitem__(self, name: str) -> Mapping[str, object]:
        found = task_views.settled_task(self._database, *self._run, name)
        if found is None:
            raise _NotYet(name)
        is_whole = isinstance(found.result, dict) and "for_each" in self._actions[name]
        if not is_whole:
            result = found.result if found.status is TaskStatus.SUCCEEDED else None
            return {"status": found.status.value, "result": result, "error": found.error}
        return _Items(self, name, found.status.value, found.result)

    def results_of(self, action: str, size: int) -> list[object]:
        return task_views.item_results(self._database, *self._run, action, size)

    def __iter__(self) -> Iterator[str]:
        return iter(self._actions)

    def __len__(self) -> int:
        return len(self._actions)


class _Items(Mapping[str, object]):
    """A `for_each` in expressions; its results are read when they are asked for."""

    def __init__(self, tasks: _Tasks, name: str, status: str, counts: Mapping[str, int]) -> None:
        self._tasks, self._name = tasks, name
        self._plain: dict[str, object] = {"status": status, "error": None, "counts": counts}
        self._size = counts["total"]

    def __getitem__(self, name: str) -> object:
        if name == "result":
            return self._tasks.results_of(self._name, self._size)
        return self._plain[name]

    def __iter__(self) -> Iterator[str]:
        return iter(("status", "result", "error", "counts"))

    def __len__(self) -> int:
        return 4
