"""Makes spans of the notes and rows of a status update, once they are in PostgreSQL (tracing.py says why there).

What can't be understood makes no span, and no noise: the rows themselves are judged elsewhere.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import orjson
from opentelemetry.trace import SpanKind

from config.masking import Masker
from orchestration.telemetry import tracing_catalogue as names
from orchestration.telemetry.span import Attributes, Span
from orchestration.telemetry.tracing import (
    MOST_ITEMS,
    NOTE,
    SessionTrace,
    TracedRows,
    chunk_has_span,
    has_own_span,
    session_trace,
)
from orchestration.vocabulary import NO_ITEM

_log = logging.getLogger(__name__)
_FAILED: Final = frozenset({"failed", "timed_out"})
#: Of a task: it failed, perhaps to be tried again.
_FAILED_ATTEMPT: Final = _FAILED | {"pending"}
#: Sessions of which it is remembered how many failed items have had a span.
_REMEMBERED: Final = 1000

_Event = tuple[str, int, Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class FailedSession:
    """A flow session that has failed and of which nothing was told, because it was not sampled."""

    trace: SessionTrace
    day: str
    #: Action → branch.
    branches: Mapping[str, str]


def failed_updates(
    failed: FailedSession, tasks: Sequence[Sequence[Any]], branches: Sequence[Sequence[Any]]
) -> list[TracedRows]:
    """What failed of such a session, as if it had been told.

    Args: tasks, branches: rows as in the status channel, and the worker.
    """
    trace = replace(failed.trace, is_sampled=True)
    wholes = {row[1]: row[:-1] for row in tasks if _is_for_each(row)}

    def update(worker: str | None, rows: Sequence[Sequence[Any]], **told: Any) -> TracedRows:
        note = [NOTE, trace.traceparent, trace.accepted_us, {"n": len(rows), **told}]
        return TracedRows(trace.flow_session_id, failed.day, 0, worker, [note, *rows])

    updates = []
    for *row, worker in tasks:
        action, item, attempt = row[1], row[2], row[4]
        if action not in wholes or item != NO_ITEM:
            chunk = {} if item == NO_ITEM else {"c": [item, 1, 0, attempt, {row[3]: 1}]}
            updates.append(update(worker, [row], b=failed.branches.get(action, action), **chunk))
    for *row, worker in branches:
        whole = wholes.get(row[1])
        updates.append(update(worker, [row] if whole is None else [whole, row], b=row[1], f=1))
    return updates


class SpanMaker:
    """The spans that one process makes.

    Args: emit: takes each span. masker: hides secrets in errors. on_unsampled_failure: told of a session
        that has failed and was not sampled; its root spans are made, and what failed of it is to be added as if it had
        been.
    """

    def __init__(
        self,
        emit: Callable[[Span], None],
        masker: Masker,
        on_unsampled_failure: Callable[[FailedSession], None] = lambda _: None,
    ) -> None:
        self._masker = masker
        self._emit = emit
        self._on_unsampled_failure = on_unsampled_failure
        self._failed_items: OrderedDict[str, int] = OrderedDict()

    def add(self, updates: Iterable[TracedRows]) -> None:
        """Make the spans of these; never raises."""
        for update in updates:
            try:
                for trace, told, rows in _parts(update):
                    self._make(_Part(self, trace, update, told), told, rows)
            except Exception:  # noqa: BLE001 - a span is not worth the record that is written here
                _log.debug("no span of %s", update.flow_session_id, exc_info=True)

    def _make(self, part: _Part, told: Mapping[str, Any], rows: Sequence[Sequence[Any]]) -> None:
        if "s" in told:
            failed = part.session(told["s"])
            if failed and not part.trace.is_sampled:
                self._on_unsampled_failure(FailedSession(part.trace, part.day, told["s"]["branches"]))
            return
        for lost in told.get("d", ()):
            part.lost(*lost)
        if "c" in told:
            part.chunk(rows, *told["c"])
            return
        place = int(told.get("i", 0))
        for row in rows:
            if row[0] == "t" and row[2] == NO_ITEM and not told.get("f"):
                part.task(row, place)
                place += 1
            elif row[0] == "b":
                part.branch(row, rows)

    def may_show_failed_item(self, flow_session_id: str) -> bool:
        """Whether one more failed item of the session may have a span beyond the first."""
        known = self._failed_items
        number = known[flow_session_id] = known.get(flow_session_id, 0) + 1
        known.move_to_end(flow_session_id)
        while len(known) > _REMEMBERED:
            known.popitem(last=False)
        return number <= MOST_ITEMS

    def span(  # noqa: PLR0913 - most by keyword, as a span has them
        self, trace: SessionTrace, name: str, span_id: int, parent_id: int | None, times_us: tuple[int, int],
        attributes: Attributes, *, error: Mapping[str, Any] | None = None, failed: bool = False,
        links: Sequence[int] = (), events: Sequence[_Event] = (), kind: SpanKind = SpanKind.INTERNAL,
    ) -> None:  # fmt: skip
        """Make one span; its times are those of the record."""
        started_us, finished_us = times_us[0], max(times_us)
        failure = None
        if failed:
            known = {} if error is None else error
            told = {name: self._masker.text(str(value)) for name, value in known.items() if value is not None}
            attributes[names.ERROR_TYPE] = told.get("type") or str(attributes[names.STATUS])
            failure = told.get("message") or str(attributes[names.STATUS])
            if error is not None:
                events = (*events, _exception(told, finished_us))
        attributes[names.SESSION] = trace.flow_session_id
        self._emit(
            Span(
                name, trace.trace_id, span_id, parent_id, kind, started_us, finished_us, attributes, links, events,
                failure,
            )
        )  # fmt: skip


class _Part:
    """What one note is about."""

    def __init__(self, maker: SpanMaker, trace: SessionTrace, update: TracedRows, told: Mapping[str, Any]) -> None:
        self._maker = maker
        self.trace = trace
        self.day = update.day
        self._update = update
        self._branch: str = told.get("b", "")
        self._began_us = int(told.get("a", 0))
        self._before: Sequence[str] = told.get("p", ())
        self._former: Mapping[str, int] = told.get("l", {})

    def session(self, told: Mapping[str, Any]) -> bool:
        """The whole of it, at its end; returns whether it failed."""
        trace, status = self.trace, told["status"]
        failed = status in _FAILED
        if not (trace.is_sampled or failed):
            return False
        times_us = trace.accepted_us, int(told["finished_us"])
        attributes: Attributes = {
            names.WORKFLOW: told["workflow"], names.VERSION: told["version"], names.PRIORITY: told["priority"],
            names.STATUS: status, **_counts(told["counts"]),
        }  # fmt: skip
        self._maker.span(
            trace, names.LIFECYCLE, trace.lifecycle_id, trace.caller_span_id, times_us, attributes,
            error=told["error"], failed=failed, kind=SpanKind.CONSUMER,
        )  # fmt: skip
        settled_us = min(int(told["settled_us"]) or times_us[1], times_us[1])
        self._maker.span(
            trace, names.EXECUTION, trace.execution_id, trace.lifecycle_id, (times_us[0], settled_us),
            {names.WORKFLOW: told["workflow"], names.STATUS: status}, failed=failed,
        )  # fmt: skip
        return failed

    def branch(self, row: Sequence[Any], rows: Sequence[Sequence[Any]]) -> None:
        """A branch that has settled, or a whole `for_each`."""
        trace = self.trace
        _, branch, status, attempt, _, queue, started_us, finished_us, waited_us = row
        failed = status in _FAILED
        ended_us = self._update.time_us if finished_us is None else finished_us
        began_us = self._began_us or (ended_us if started_us is None else started_us)
        whole = next((each for each in rows if each[0] == "t" and each[1] == branch and each[2] == NO_ITEM), None)
        attributes = self._of(queue, status, attempt)
        attributes[names.BRANCH_NAME] = branch
        if waited_us is not None:
            attributes[names.WAIT] = waited_us / 1e6
        if whole is not None and _is_for_each(whole):
            attributes |= _counts(_without_total(orjson.loads(whole[9])))
        error = next((_error_of(each) for each in reversed(rows) if each[0] == "t" and each[10] is not None), None)
        self._maker.span(
            trace, names.BRANCH, trace.branch_id(branch), trace.execution_id, (began_us, ended_us), attributes,
            error=error if failed else None, failed=failed, links=[trace.branch_id(name) for name in self._before],
        )  # fmt: skip

    def task(self, row: Sequence[Any], place: int) -> None:
        """One attempt of a task that is no item, or of an item, at its place among others."""
        trace = self.trace
        _, action, item, status, attempt, _, queue, started_us, finished_us, _, error = row
        if status == "running" or started_us is None:
            return
        is_retried = status == "pending"
        ended_us = self._update.time_us if finished_us is None else finished_us
        failed = is_retried or status in _FAILED
        if not has_own_span(place, ended_us - started_us, failed=failed):
            return
        attributes = self._of(queue, "retrying" if is_retried else status, attempt)
        attributes[names.ACTION] = action
        if item != NO_ITEM:
            attributes[names.ITEM] = item
        former = self._former.get(action)
        self._maker.span(
            trace, names.TASK, trace.task_id(action, item, attempt), trace.branch_id(self._branch),
            (started_us, ended_us), attributes, error=_error_of(row) if error is not None else None, failed=failed,
            links=() if former is None else [trace.task_id(action, item, former)],
        )  # fmt: skip

    def lost(
        self, action: str, item: int, attempt: int, since_us: int, until_us: int, worker: str, reason: str
    ) -> None:
        """An attempt whose process died."""
        trace = self.trace
        attributes: Attributes = {
            names.ACTION: action, names.ATTEMPT: attempt, names.STATUS: "lost", names.ERROR_TYPE: names.LOST,
        }  # fmt: skip
        if item != NO_ITEM:
            attributes[names.ITEM] = item
        if worker:
            attributes[names.WORKER] = worker
        about = {"reason": reason} if reason else {}
        self._maker.span(
            trace, names.TASK, trace.task_id(action, item, attempt), trace.branch_id(self._branch),
            (since_us, until_us), attributes, failed=True,
            error={"type": names.LOST, "message": f"its process died {reason}".strip()},
            events=[(names.LOST, until_us, about)],
        )  # fmt: skip

    def chunk(
        self, rows: Sequence[Sequence[Any]], start: int, count: int, size: int, attempt: int, counts: Mapping[str, int]
    ) -> None:
        """Items of a `for_each`: the first have spans, of the others a number has one together."""
        for row in rows[: max(0, MOST_ITEMS - start)]:
            self.task(row, row[2])
        beyond = rows[max(0, MOST_ITEMS - start) :]
        if beyond and (not _FAILED.isdisjoint(counts) or beyond[-1][3] == "pending"):
            for row in beyond:
                if row[3] in _FAILED_ATTEMPT and self._may_show_failed():
                    self.task(row, row[2])
        if size and counts and chunk_has_span(start, count, size):
            self._chunk(rows, start, count, attempt, counts)

    def _may_show_failed(self) -> bool:
        return self._maker.may_show_failed_item(self.trace.flow_session_id)

    def _chunk(
        self, items: Sequence[Sequence[Any]], start: int, count: int, attempt: int, counts: Mapping[str, int]
    ) -> None:
        trace, action = self.trace, self._branch
        first, last = items[0], items[-1]
        if first[7] is None:
            return
        attributes = self._of(first[6], "succeeded" if set(counts) == {"succeeded"} else "ended", attempt)
        attributes |= {names.ACTION: action, names.ITEMS_START: start, names.ITEMS_COUNT: count, **_counts(counts)}
        self._maker.span(
            trace, names.TASK, trace.chunk_id(action, start, attempt), trace.branch_id(action),
            (first[7], last[8] or self._update.time_us), attributes,
        )  # fmt: skip

    def _of(self, queue: str | None, status: str, attempt: int) -> Attributes:
        attributes: Attributes = {names.STATUS: status, names.ATTEMPT: attempt, names.MESSAGING: "celery"}
        if queue:
            attributes[names.QUEUE] = queue
        if self._update.worker:
            attributes[names.WORKER] = self._update.worker
        return attributes


def _parts(update: TracedRows) -> Iterator[tuple[SessionTrace, Mapping[str, Any], Sequence[Sequence[Any]]]]:
    """Each note with its rows, which follow it."""
    at = 0
    while at < len(update.rows):
        kind, traceparent, accepted_us, told = update.rows[at]
        after = at + 1 + int(told["n"])
        trace = session_trace(update.flow_session_id, traceparent, int(accepted_us))
        if trace is not None and kind == NOTE:
            yield trace, told, update.rows[at + 1 : after]
        at = after


def _is_for_each(row: Sequence[Any]) -> bool:
    """Whether it is the row of a whole `for_each` that had items: its result has their counts."""
    return row[2] == NO_ITEM and isinstance(row[9], str) and row[9].startswith('{"total":')


def _without_total(counts: Mapping[str, int]) -> dict[str, int]:
    return {status: number for status, number in counts.items() if status != "total"}


def _counts(counts: Mapping[str, int]) -> Attributes:
    return {f"{names.COUNTS}{status}": number for status, number in counts.items() if number}


def _error_of(row: Sequence[Any]) -> Mapping[str, Any] | None:
    error = orjson.loads(row[10]) if row[10] is not None else None
    return error if isinstance(error, dict) else None


def _exception(error: Mapping[str, str], at_us: int) -> _Event:
    about = {"exception.type": error.get("type", ""), "exception.message": error.get("message", "")}
    if "traceback" in error:
        about["exception.stacktrace"] = error["traceback"]
    return names.EXCEPTION, at_us, about
