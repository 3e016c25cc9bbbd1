"""Which spans are made of notes and rows."""

from __future__ import annotations

from typing import Any

import orjson
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from config.masking import Masker
from orchestration.channel.parse import parse_entry
from orchestration.state.rows import branch_row, sequence_of, task_row
from orchestration.telemetry.span import Span
from orchestration.telemetry.tracing import MOST_ITEMS, NOTE, SessionTrace, TracedRows
from orchestration.telemetry.tracing_spans import FailedSession, SpanMaker, failed_updates
from orchestration.vocabulary import TaskStatus

TRACE = SessionTrace("session", 7, None, is_sampled=True, accepted_us=1_000)
DAY = "2026-01-31"


def note(rows: list[list[object]], **told: object) -> list[object]:
    return [NOTE, TRACE.traceparent, TRACE.accepted_us, {"n": len(rows), **told}]


def made(*updates: TracedRows, failures: list[FailedSession] | None = None) -> list[ReadableSpan]:
    spans: list[Span] = []
    known = [] if failures is None else failures
    SpanMaker(spans.append, Masker(["canary-1"]), known.append).add(updates)
    return [span.readable(Resource.get_empty(), InstrumentationScope("parallelizer")) for span in spans]


def update(*rows: list[object]) -> TracedRows:
    return TracedRows("session", DAY, 10_000, "worker", rows)


def items(start: int, count: int, status: TaskStatus = TaskStatus.SUCCEEDED) -> list[list[object]]:
    return [
        task_row("each", status, 1, sequence_of(1, 0), "q", item=item, started_us=2_000, finished_us=3_000)
        for item in range(start, start + count)
    ]


def chunk(rows: list[list[object]], start: int, counts: dict[str, int], size: int = 100_000) -> TracedRows:
    return update(note(rows, b="each", c=[start, len(rows), size, 1, counts]), *rows)


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def test_a_chunk_behind_the_bound_is_one_span_at_most() -> None:
    spans = made(chunk(items(2000, 200), 2000, {"succeeded": 200}))
    assert [attributes(span)["parallelizer.items.count"] for span in spans] == [200]
    assert not made(chunk(items(2001, 50), 2001, {"succeeded": 50})), "spread evenly: each hundredth item has one"


def test_failed_items_have_spans_up_to_a_bound_for_each_session() -> None:
    rows = items(2000, 100) + items(2100, 156, TaskStatus.FAILED)
    told = chunk(rows, 2000, {"succeeded": 100, "failed": 156})
    spans = made(*[told] * 10)
    failed = [span for span in spans if "parallelizer.item" in attributes(span)]
    assert len(failed) == MOST_ITEMS
    assert all(not span.status.is_ok for span in failed)


def test_a_span_has_the_times_that_are_recorded() -> None:
    """Also where they are not what was told: nothing ends after its settlement."""
    task = task_row("x", TaskStatus.SUCCEEDED, 1, sequence_of(1, 0), "q", started_us=10_020, finished_us=10_050)
    branch = branch_row("b", TaskStatus.SUCCEEDED, 1, sequence_of(1, 0), "q", started_us=9_000, finished_us=10_060)
    told = [note([task, branch], b="b", i=0), task, branch]
    fields = {b"s": b"session", b"d": DAY.encode(), b"t": b"10000", b"w": b"worker", b"b": orjson.dumps(told)}
    entry = parse_entry("1-1", fields.items())
    (of_task,), (of_branch,) = entry.tasks, entry.branches
    assert (of_task.started_us, of_task.finished_us) == (10_000, 10_000)
    assert (of_branch.started_us, of_branch.finished_us) == (9_000, 10_000)
    assert [(span.start_time, span.end_time) for span in made(*entry.traced)] == [
        (10_000_000, 10_000_000), (9_000_000, 10_000_000)
    ]  # fmt: skip


def test_several_notes_of_one_entry_have_their_own_rows() -> None:
    parts: list[list[object]] = []
    for branch, before in (("a", []), ("b", ["a"])):
        rows = [
            task_row(branch, TaskStatus.SUCCEEDED, 1, 1, "q", started_us=2_000, finished_us=3_000),
            branch_row(branch, TaskStatus.SUCCEEDED, 1, 1, "q", started_us=2_000, finished_us=3_000),
        ]
        parts += [note(rows, b=branch, p=before, i=0), *rows]
    spans = made(update(*parts))
    assert [span.name for span in spans] == ["task_processing", "process_task_and_branches"] * 2
    assert [link.context.span_id for link in spans[-1].links] == [TRACE.branch_id("a")]
    assert spans[0].parent is not None
    assert spans[0].parent.span_id == TRACE.branch_id("a")


def test_what_can_not_be_understood_makes_no_span_and_keeps_no_other() -> None:
    row = branch_row("b", TaskStatus.SUCCEEDED, 1, 1, "q", started_us=1_000, finished_us=2_000)
    good = update(note([row], b="b"), row)
    strange = [
        update([NOTE]), update([NOTE, "no traceparent", 1, {"n": 0}]), update([NOTE, TRACE.traceparent, 1, {}]),
        update(note([row], b=1, d=[[1]])), update(note([["t"]], b="b"), ["t"]), update([1]),
    ]  # fmt: skip
    assert len(made(*strange, good)) == 1


def test_errors_leave_without_their_secrets() -> None:
    error = orjson.dumps({
        "type": "OperationalError", "message": "no canary-1 at postgresql://me:hidden-1@db", "attempt": 1,
        "traceback": "File x\n  connect(password='hidden-2')",
    })  # fmt: skip
    failed = task_row("b", TaskStatus.FAILED, 1, 1, "q", started_us=2_000, finished_us=3_000, error=error)
    rows = [failed, branch_row("b", TaskStatus.FAILED, 1, 1, "q", started_us=2_000, finished_us=3_000)]
    told = {
        "status": "failed", "finished_us": 9_000, "settled_us": 8_000, "workflow": "w", "version": 1, "priority": 0,
        "counts": {"failed": 1}, "error": orjson.loads(error),
    }  # fmt: skip
    spans = made(update(note(rows, b="b"), *rows), update(note([], s=told)))
    assert [span.name for span in spans] == [
        "task_processing", "process_task_and_branches", "workflow_lifecycle", "workflow_execution"
    ]  # fmt: skip
    sent = "".join(span.to_json() for span in spans)
    assert not [secret for secret in ("canary-1", "hidden-1", "hidden-2") if secret in sent]
    assert sent.count("no *** at postgresql://me:***@db") == 6, "as message of the status and of the exception, thrice"


def test_of_a_session_that_is_not_sampled_the_failure_is_told() -> None:
    unsampled = SessionTrace("session", 7, None, is_sampled=False, accepted_us=1_000)
    end = {
        "status": "failed", "finished_us": 9_000, "settled_us": 8_000, "workflow": "w", "version": 1, "priority": 0,
        "counts": {"failed": 1}, "error": None, "branches": {"x": "b"},
    }  # fmt: skip
    failures: list[FailedSession] = []
    spans = made(update([NOTE, unsampled.traceparent, 1_000, {"n": 0, "s": end}]), failures=failures)
    assert [span.name for span in spans] == ["workflow_lifecycle", "workflow_execution"]
    error = b'{"type":"E","message":"m"}'
    tasks = [
        [*task_row("x", TaskStatus.FAILED, 1, 1, "q", started_us=2_000, finished_us=3_000, error=error), "w1"],
        [*items(5000, 1, TaskStatus.FAILED)[0], "w2"],
    ]
    branches = [[*branch_row("b", TaskStatus.FAILED, 1, 1, "q", started_us=2_000, finished_us=3_000), "w1"]]
    told = made(*failed_updates(failures[0], tasks, branches))
    assert [(span.name, attributes(span)["parallelizer.worker"]) for span in told] == [
        ("task_processing", "w1"), ("task_processing", "w2"), ("process_task_and_branches", "w1")
    ]  # fmt: skip
    assert {span.context.trace_id for span in [*spans, *told] if span.context} == {7}
    succeeded = {**end, "status": "succeeded"}
    assert not made(update([NOTE, unsampled.traceparent, 1_000, {"n": 0, "s": succeeded}]))
