"""Judges the trace of a flow session by its structure, beside what PostgreSQL says of the session."""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime
from pathlib import Path
from typing import Any

from tests.support.clients import Client
from tests.support.fleet import Fleet
from tests.support.otlp import Receiver, Span
from tests.support.records import Records
from tests.support.waiting import wait_until
from tests.support.workflows import Definition, record

LIFECYCLE, EXECUTION = "workflow_lifecycle", "workflow_execution"
BRANCH, TASK = "process_task_and_branches", "task_processing"
#: What the workers of tests of traces need.
ACTION_MODULES = "tests.support.journal,tests.support.traced_actions"
NOOP: Definition = {"uses": "core.noop"}
#: Whose parent is of which kind.
PARENT = {EXECUTION: LIFECYCLE, BRANCH: EXECUTION, TASK: BRANCH}


class Trace:
    """The spans of one session, once all that is recorded of it has come."""

    def __init__(self, fleet: Fleet, receiver: Receiver, session: str, seconds: float = 30.0) -> None:
        self._records = Records(fleet)
        self._session = session
        row = self._records.rows(
            "SELECT traceparent, created_at, finished_at, status FROM flow_sessions WHERE flow_session_id = %s", session
        )[0]
        self.traceparent: str = row[0]
        self.accepted_us, self.ended_us, self.status = _us(row[1]), _us(row[2]), row[3]
        self.trace_id = self.traceparent.split("-")[1]
        try:
            wait_until(lambda: self._is_whole(receiver), f"the whole trace of {session}", seconds)
        except AssertionError as error:
            missing, orphans = self._missing(receiver), self._orphans(receiver)
            raise AssertionError(f"{error}: {missing} have not come; {orphans} have no parent") from error
        self.spans = receiver.spans(self.trace_id)
        #: What came a second time, beside what came first.
        self.repeated = receiver.repeated(self.trace_id)

    def _recorded(self) -> set[tuple[str, str, int, int]]:
        rows: set[tuple[str, str, int, int]] = {(LIFECYCLE, "", -1, 0)}
        rows |= {
            (BRANCH, branch, -1, 0)
            for (branch,) in self._records.rows(
                "SELECT branch FROM branches WHERE flow_session_id = %s AND started_at IS NOT NULL", self._session
            )
        }
        tasks = self._records.rows(
            "SELECT action, item, attempt FROM tasks"
            " WHERE flow_session_id = %s AND started_at IS NOT NULL AND item < 100",
            self._session,
        )
        return rows | {(TASK, *task) for task in tasks}

    def _missing(self, receiver: Receiver) -> set[tuple[str, str, int, int]]:
        found = {
            (TASK, span["action"], -1 if span["item"] is None else span["item"], span["attempt"])
            if span.name == TASK
            else (span.name, span["branch"] or "", -1, 0)
            for span in receiver.spans(self.trace_id)
        }
        return self._recorded() - found

    def _is_whole(self, receiver: Receiver) -> bool:
        return not self._missing(receiver) and not self._orphans(receiver)

    def _orphans(self, receiver: Receiver) -> list[Span]:
        """Spans whose parent has not come, from whichever worker: of two, either may be the first to send."""
        spans = receiver.spans(self.trace_id)
        ids = {span.span_id for span in spans}
        return [span for span in spans if span.parent_id not in ids and span.name != LIFECYCLE]

    def named(self, name: str) -> list[Span]:
        """Spans of a kind, in the order of their begin."""
        return sorted((span for span in self.spans if span.name == name), key=lambda span: span.started_us)

    def branch(self, name: str) -> Span:
        """The span of a branch."""
        (found,) = [span for span in self.named(BRANCH) if span["branch"] == name]
        return found

    def task(self, action: str, attempt: int = 1, item: int | None = None) -> Span:
        """The span of an attempt."""
        (found,) = [
            span
            for span in self.named(TASK)
            if (span["action"], span["attempt"], span["item"]) == (action, attempt, item)
        ]
        return found

    def check(self, caller: str = "", *, repeats: bool = False) -> None:
        """One trace, each parent and each end of a link in it, no child outside its parent, the times of the record.

        Args: repeats: spans may have come twice, but not with other values.
        """
        assert repeats or not self.repeated, f"came twice: {self.repeated}"
        assert all(first == second for first, second in self.repeated), f"came with other values: {self.repeated}"
        by_id = {span.span_id: span for span in self.spans}
        roots = [span for span in self.spans if span.parent_id not in by_id]
        assert [(span.name, span.parent_id) for span in roots] == [(LIFECYCLE, caller)], f"{roots}"
        for span in self.spans:
            parent = by_id.get(span.parent_id)
            if parent is not None and span.name in PARENT:  # an action's own spans have the time of its host
                assert parent.name == PARENT[span.name], f"{span} is below {parent}"
                assert parent.started_us <= span.started_us, f"{span} begins before {parent}"
                assert span.finished_us <= parent.finished_us, f"{span} ends after {parent}"
            assert span.started_us <= span.finished_us, f"{span}"
            assert set(span.links) <= set(by_id), f"a link of {span} leads nowhere"
        (root,), (execution,) = self.named(LIFECYCLE), self.named(EXECUTION)
        assert (root.started_us, root.finished_us, root["status"]) == (self.accepted_us, self.ended_us, self.status)
        assert execution.parent_id == root.span_id
        branches = [span["branch"] for span in self.named(BRANCH)]
        assert len(branches) == len(set(branches)), "one span for each branch"
        self._check_rows()

    def _check_rows(self) -> None:
        """Each task's last attempt has the times of its row."""
        rows = self._records.rows(
            "SELECT action, item, attempt, started_at, finished_at, status, worker FROM tasks"
            " WHERE flow_session_id = %s AND started_at IS NOT NULL AND finished_at IS NOT NULL AND item < 100",
            self._session,
        )
        known: dict[tuple[Any, ...], list[Span]] = defaultdict(list)
        for span in self.named(TASK):
            known[span["action"], -1 if span["item"] is None else span["item"], span["attempt"]].append(span)
        for action, item, attempt, started, finished, status, worker in rows:
            (span,) = known[action, item, attempt]
            times_us = _us(started), _us(finished)
            assert (span.started_us, span.finished_us) == times_us, f"{span} is recorded as {times_us}"
            assert (span["status"], span["worker"]) == (status, worker), f"{span} is recorded as {status}, {worker}"


def _us(moment: datetime) -> int:
    return round(moment.timestamp() * 1_000_000)


def run(client: Client, workflow: Definition) -> dict[str, Any]:
    """Run a workflow; returns its result."""
    result: dict[str, Any] = client.run("result = send(workflow).delay().get(timeout=60)", workflow=workflow)
    return result


def begin(client: Client, workflow: Definition, queue: str = "branches") -> str:
    """Begin a run; returns its flow session."""
    code = "result = send(workflow).apply_async(queue=queue).id"
    session: str = client.run(code, workflow={**workflow, "queue": queue}, queue=queue)
    return session


def result_of(client: Client, session: str) -> dict[str, Any]:
    """The result of a run that was begun."""
    result: dict[str, Any] = client.run("result = AsyncResult(session).get(timeout=60)", session=session)
    return result


def forked(journal: Path, **more: Definition) -> Definition:
    """A branch, a fork of two branches and of a `for_each`, and their join."""
    slow = record(journal, seconds=0.05)
    return {
        "name": "traced",
        "actions": {
            "start": NOOP,
            "left": {**slow, "needs": ["start"]},
            "left2": {**slow, "needs": ["left"]},
            "right": {**slow, "needs": ["start"]},
            "each": {**slow, "needs": ["start"], "for_each": {"range": 12}},
            "join": {**NOOP, "needs": ["left2", "right", "each"]},
            **more,
        },
    }
