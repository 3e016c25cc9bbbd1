"""Retry of a run that did not succeed: another flow session, which takes over what succeeded and runs the rest.

    the run has ended → its updates are recorded → the retry is accepted (one transaction) → its message is sent

The retry is recorded as if Redis had lost it: accepted, with rows of the tasks that were done. So what takes up lost
sessions (rebuild.py) takes it up and opens it; nothing else knows of retries.

What if it dies here: before the transaction commits, nothing has happened. Behind it the retry is accepted; without its
message it is found like any other that nobody holds (tasks/rehydration.py).
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping
from graphlib import TopologicalSorter
from typing import Any, Final

import orjson

from orchestration.definition.schema import DEFAULT_QUEUE
from orchestration.engine.control import Answer, Found, known_run
from orchestration.engine.traced import trace_of_retry
from orchestration.reports.shape import Shape, load_shape
from orchestration.state.rows import sequence_of
from orchestration.state.stream import StatusStream
from orchestration.store import retries, sessions, tasks
from orchestration.store.pool import Database
from orchestration.store.retries import RETRIABLE, TAKEN_STATUSES, TakenOver
from orchestration.store.sessions import SessionRow
from orchestration.vocabulary import RunStatus, TaskStatus

#: For so long a retry waits until what the run told is recorded.
RECORD_SECONDS: Final = 10.0
_LOOK_SECONDS: Final = 0.02
#: Sends the message that takes up a session: its id, its task id, its call. Says whether it was sent.
Send = Callable[[str, str, Mapping[str, Any]], bool]


def retry_session(
    database: Database, stream: StatusStream, namespace: str, send: Send, flow_session_id: str
) -> Answer:  # fmt: skip
    """A run that failed, was cancelled or timed out is run once more, but for what succeeded in it.

    Args: stream: of the same namespace. send: should the message not be sent, the retry is found without one.
    Returns: `retry` is the id of the new run; or why there is none, with the retry that there is already.
    Raises: UnknownRun. ServiceUnreachable: it is not known whether it is retried; ask again.
    """
    row = known_run(database, flow_session_id, sessions.load_session)
    if row.status not in RETRIABLE:
        return _refused(row, _not_to_retry(row))
    if row.retried_as is not None:
        return _retried_before(database, row, row.retried_as)
    found = retries.message_of(database, row)
    if found[0] not in (None, namespace):
        return _refused(row, f"{flow_session_id} is of the namespace {found[0]}; retry it with NAMESPACE={found[0]}")
    if not _is_recorded(stream):
        age = stream.oldest_age_seconds()
        said = f"what {flow_session_id} did may be on its way to PostgreSQL still (updates wait for {age:.0f} s)"
        return _refused(row, f"{said}; retry it when they have come: parallelizer doctor")
    return _accept(database, row, {"namespace": namespace, "queue": found[1] or DEFAULT_QUEUE}, send)


def _accept(database: Database, row: SessionRow, call: Mapping[str, str], send: Send) -> Answer:
    shape = load_shape(database, row.version_id)
    ended = tasks.tasks_of(database, row.flow_session_id, row.session_day, items=False)
    taken = taken_over(shape, {task.action: task.status for task in ended})
    retry = str(uuid.uuid4())
    number = retries.accept_retry(
        database, row, retry, taken, sequence=sequence_of(1, 0), call=orjson.dumps(call).decode(),
        traceparent=trace_of_retry(row, retry),
    )  # fmt: skip
    if number is None:  # somebody else was faster
        retried_as = known_run(database, row.flow_session_id, sessions.load_session).retried_as
        return _retried_before(database, row, retried_as or retry)
    number -= len(shape.for_each.intersection(taken.actions))  # their items are the tasks
    said = f"{row.flow_session_id} is retried as {retry}: {number:,} of its tasks are taken over, all others run"
    if not send(retry, retry, call):
        said += "; the broker does not answer, so it begins some time after that is back"
    return Answer(row.flow_session_id, Found.DONE, row.status, said, retry=retry)


def taken_over(shape: Shape, statuses: Mapping[str, TaskStatus]) -> TakenOver:
    """What of a run is not run again: what succeeded, or was skipped, with all before it. Pure.

    What comes behind something that runs again is decided anew, whatever had become of it.

    Args: statuses: of the actions that are recorded.
    """
    taken: set[str] = set()
    in_part: list[str] = []
    for action in TopologicalSorter(shape.needs).static_order():
        if not taken.issuperset(shape.needs[action]):
            continue
        if statuses.get(action) in TAKEN_STATUSES:
            taken.add(action)
        elif action in shape.for_each:
            in_part.append(action)
    firsts = dict.fromkeys(shape.branch_of.values())
    branches = [first for first in firsts if taken.issuperset(shape.following_of(first))]
    return TakenOver([name for name in shape.actions if name in taken], in_part, branches)


def _is_recorded(stream: StatusStream) -> bool:
    """Whether all that was told before this call is in PostgreSQL: the end of a run goes there faster."""
    newest = stream.newest()
    if newest is None:
        return True
    end = time.monotonic() + RECORD_SECONDS
    while not (is_recorded := stream.is_recorded(newest)) and time.monotonic() < end:
        time.sleep(_LOOK_SECONDS)
    return is_recorded


def _not_to_retry(row: SessionRow) -> str:
    session = row.flow_session_id
    if row.status is RunStatus.SUCCEEDED:
        return f"{session} succeeded, so there is nothing to retry; run the workflow again for another run"
    return f"{session} has not ended: {row.status}; wait for its end, or cancel it, before it is retried"


def _retried_before(database: Database, row: SessionRow, retry: str) -> Answer:
    """Why a run that has a retry gets no other one: the last retry has all that there is."""
    session, last = row.flow_session_id, retry
    while True:
        found = sessions.load_session(database, last)
        if found is None:
            return _refused(row, f"{session} was retried as {last}, which is not recorded any more", last)
        if found.retried_as is None:
            break
        last = found.retried_as
    if not found.status.is_final:
        said = f"{session} is being retried as {last} ({found.status}); wait for its end, or cancel it"
    elif found.status is RunStatus.SUCCEEDED:
        said = f"{session} was retried as {last}, which succeeded, so there is nothing to retry"
    else:
        ended = "was cancelled" if found.status is RunStatus.CANCELLED else found.status.replace("_", " ")
        said = f"{session} was retried as {last}, which {ended} as well and has done more; retry that one"
    return _refused(row, said, last)


def _refused(row: SessionRow, said: str, retry: str | None = None) -> Answer:
    return Answer(row.flow_session_id, Found.REFUSED, row.status, said, retry=retry)
