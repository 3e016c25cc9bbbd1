"""The trace of a flow session, as a receiver of OTLP gets it from real workers: judged by its structure."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.support.clients import Client, running_client
from tests.support.fleet import Fleet
from tests.support.journal import read_journal
from tests.support.otlp import Receiver, Span, receiving
from tests.support.records import Records
from tests.support.traces import (
    ACTION_MODULES,
    BRANCH,
    EXECUTION,
    LIFECYCLE,
    NOOP,
    TASK,
    Trace,
    begin,
    forked,
    result_of,
    run,
)
from tests.support.waiting import wait_until
from tests.support.workflows import record

#: Of a caller that has begun the trace.
CALLER_TRACE, CALLER_SPAN = "5b8aa5a2d2c872e8321cf37308d69df2", "051581bf3cb55c13"


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with receiving() as running:
        yield running


@pytest.fixture(scope="module")
def two(receiver: Receiver, module_fleet: Fleet) -> Fleet:
    """Two workers of two processes that send their spans."""
    module_fleet.start(
        2, ACTION_MODULES=ACTION_MODULES, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.endpoint,
        LOG_LEVEL="info,processor=debug",
    )  # fmt: skip
    return module_fleet


@pytest.fixture(scope="module")
def client(two: Fleet) -> Iterator[Client]:
    with running_client(two) as running:
        yield running


def links_of(trace: Trace, span: Span) -> set[str]:
    """Names of the branches that a branch links to."""
    return {other["branch"] for other in trace.named(BRANCH) if other.span_id in span.links}


def test_a_session_over_two_workers_is_one_connected_trace(
    client: Client, two: Fleet, receiver: Receiver, journal: Path
) -> None:
    session = run(client, forked(journal))["flow_session_id"]
    trace = Trace(two, receiver, session)
    trace.check()
    assert {span["branch"] for span in trace.named(BRANCH)} == {"start", "left", "right", "each", "join"}
    assert len({span["worker"] for span in trace.named(TASK)}) == 2, "both workers took part"
    assert links_of(trace, trace.branch("join")) == {"left", "right", "each"}
    assert links_of(trace, trace.branch("left")) == {"start"}
    each, left = trace.branch("each"), trace.branch("left")
    assert each["tasks.succeeded"] == 12
    assert len([span for span in trace.named(TASK) if span.parent_id == each.span_id]) == 12
    assert {span["action"] for span in trace.named(TASK) if span.parent_id == left.span_id} == {"left", "left2"}
    assert left["semaphore.wait_seconds"] >= 0
    assert left.attributes["messaging.destination.name"] == "branches"
    (root,) = trace.named(LIFECYCLE)
    assert (root["workflow.name"], root["tasks.succeeded"], root.service) == ("traced", 17, "parallelizer")
    assert {span["flow_session.id"] for span in trace.spans} == {session}
    assert not any(span.failed for span in trace.spans)


def test_a_chord_of_celery_is_one_connected_trace(
    client: Client, two: Fleet, receiver: Receiver, journal: Path
) -> None:
    session = run(client, {**forked(journal), "dispatch": "chord"})["flow_session_id"]
    trace = Trace(two, receiver, session)
    trace.check()
    assert {span["branch"] for span in trace.named(BRANCH)} == {"start", "left", "right", "each", "join"}
    assert links_of(trace, trace.branch("join")) == {"left", "right", "each"}


def test_a_trace_that_the_caller_began_goes_on(client: Client, two: Fleet, receiver: Receiver, journal: Path) -> None:
    code = """
    from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, use_span
    context = SpanContext(int(trace_id, 16), int(span_id, 16), False, TraceFlags(1))
    with use_span(NonRecordingSpan(context)):
        sent = send(workflow).delay()
    result = sent.get(timeout=60)
    """
    result = client.run(code, workflow=forked(journal), trace_id=CALLER_TRACE, span_id=CALLER_SPAN)
    trace = Trace(two, receiver, result["flow_session_id"])
    assert trace.trace_id == CALLER_TRACE
    trace.check(caller=CALLER_SPAN)


def test_spans_that_actions_make_are_below_their_task(client: Client, two: Fleet, receiver: Receiver) -> None:
    inner = {"uses": "test.span", "with": {"name": "inner"}}
    actions = {"start": inner, **{name: {**inner, "needs": ["start"]} for name in ("one", "two", "three")}}
    result = run(client, {"name": "inner", "actions": actions})
    trace_id = result["output"]["one"]
    wait_until(lambda: sum(span.name == "inner" for span in receiver.spans(trace_id)) == 4, "the actions' own spans")
    trace = Trace(two, receiver, result["flow_session_id"])
    trace.check()
    tasks = {span.span_id: span["action"] for span in trace.named(TASK)}
    assert sorted(tasks[span.parent_id] for span in trace.named("inner")) == ["one", "start", "three", "two"]


def test_log_lines_name_the_trace_of_their_run(client: Client, two: Fleet) -> None:
    start, after = {"uses": "test.span", "with": {"name": "x"}}, {"uses": "test.span", "needs": ["start"]}
    actions = {"start": start, **{name: {**start, **after} for name in ("one", "two", "three")}}
    result = run(client, {"name": "logged", "actions": actions})

    def told_by(logger: str) -> set[str]:
        lines = [line for worker in two.workers for line in worker.log.read_text().splitlines() if logger in line]
        found = [line for line in map(json.loads, lines) if line.get("flow_session_id") == result["flow_session_id"]]
        return {line["trace_id"] for line in found}

    # the one within the call of an action, the other where no span is current
    for logger in ('"logger": "tests.traced"', '"logger": "orchestration.engine.processor"'):
        wait_until(lambda told=told_by, by=logger: bool(told(by)), "it is logged")  # type: ignore[misc]
        assert told_by(logger) == {result["output"]["one"]}


def test_a_retry_is_a_span_of_its_own_that_links_to_the_attempt_before(
    client: Client, two: Fleet, receiver: Receiver, journal: Path
) -> None:
    retry = {"max_attempts": 3, "delay_seconds": 0.05}
    flaky = {"uses": "test.fail_first", "with": {"journal": str(journal), "times": 2}, "retry": retry}
    actions = {"flaky": flaky, "before": NOOP, "after": {**flaky, "needs": ["before"]}}
    trace = Trace(two, receiver, run(client, {"name": "flaky", "actions": actions})["flow_session_id"])
    trace.check()
    for action, branch in (("flaky", "flaky"), ("after", "before")):
        attempts = [trace.task(action, number) for number in (1, 2, 3)]
        assert [span["status"] for span in attempts] == ["retrying", "retrying", "succeeded"]
        assert [list(span.links) for span in attempts] == [[], [attempts[0].span_id], [attempts[1].span_id]]
        assert [span.failed for span in attempts] == [True, True, False]
        (raised,) = attempts[0].events
        assert (raised.name, raised.attributes["exception.type"]) == ("exception", "ConnectionError")
        assert trace.branch(branch).started_us <= attempts[0].started_us, "one span for all attempts of the branch"


def test_a_failure_is_told_where_it_happened(client: Client, two: Fleet, receiver: Receiver, journal: Path) -> None:
    actions = {"start": NOOP, "bad": {**record(journal, outcome="fail"), "needs": ["start"]}}
    actions |= {"beside": {**NOOP, "needs": ["start"]}, "behind": {**NOOP, "needs": ["bad", "beside"]}}
    trace = Trace(two, receiver, run(client, {"name": "failing", "actions": actions})["flow_session_id"])
    trace.check()
    assert {(span.name, span["branch"] or span["action"]) for span in trace.spans if span.failed} == {
        (LIFECYCLE, None), (EXECUTION, None), (BRANCH, "bad"), (TASK, "bad")
    }  # fmt: skip
    bad = trace.task("bad")
    assert bad.attributes["error.type"] == "RuntimeError"
    assert bad.message == "bad fails as it was told to"
    assert "told to" in bad.events[0].attributes["exception.stacktrace"]
    assert trace.branch("behind")["status"] == "upstream_failed"


@pytest.mark.parametrize("is_open", [False, True], ids=["in its first branch", "open"])
def test_spans_of_a_child_that_was_killed_are_there(
    client: Client, two: Fleet, receiver: Receiver, journal: Path, tmp_path: Path, is_open: bool
) -> None:
    hold = {"uses": "test.hold", "with": {"journal": str(journal), "folder": str(tmp_path)}}
    actions: dict[str, Any] = {"first": record(journal), "held": {**hold, "needs": ["first"]}}
    actions["last"] = {**NOOP, "needs": ["held"]}
    if is_open:
        actions = {"start": NOOP, "beside": {**NOOP, "needs": ["start"]}, **actions}
        actions["first"]["needs"] = ["start"]
    session = begin(client, {"name": "killed", "actions": actions})
    wait_until(lambda: [line[1] for line in read_journal(journal)][-1:] == ["held"], "the step has begun")
    pid = read_journal(journal)[-1][-1]
    os.kill(pid, signal.SIGKILL)
    (tmp_path / "held.2").touch()
    assert result_of(client, session)["status"] == "succeeded"
    trace = Trace(two, receiver, session)
    trace.check()
    lost, again = trace.task("held", 1), trace.task("held", 2)
    assert (lost["status"], lost.failed, again.failed) == ("lost", True, False)
    assert list(again.links) == [lost.span_id]
    assert lost.finished_us <= again.started_us
    assert [event.name for event in lost.events][:1] == ["process_lost"]
    if is_open:
        assert "SIGKILL" in lost.message
        assert lost["worker"]
    assert trace.task("first").parent_id == lost.parent_id, "one branch, whoever ran it"


def test_what_had_begun_of_a_cancelled_session_is_told(
    client: Client, two: Fleet, receiver: Receiver, journal: Path
) -> None:
    retry = {"max_attempts": 3, "delay_seconds": 60}
    flaky = {"uses": "test.fail_first", "with": {"journal": str(journal), "times": 5}, "retry": retry}
    actions = {
        "start": NOOP,
        "flaky": {**flaky, "needs": ["start"]},
        "never": {**NOOP, "needs": ["flaky"]},
        "each": {**record(journal, seconds=0.05), "needs": ["start"], "for_each": {"range": 500}, "max_concurrent": 2},
    }
    session = begin(client, {"name": "cancelled", "actions": actions})
    tasks = {"flaky", "each:3"}
    wait_until(lambda: tasks <= {line[1] for line in read_journal(journal)}, "both branches have begun")
    client.run("from tasks import cancel_session; cancel_session(session)", session=session)
    assert result_of(client, session)["status"] == "cancelled"
    trace = Trace(two, receiver, session)
    trace.check()
    assert {span["branch"]: span["status"] for span in trace.named(BRANCH)} == {
        "start": "succeeded", "flaky": "cancelled", "each": "cancelled"
    }  # fmt: skip
    assert trace.task("flaky")["status"] == "retrying"


def test_of_many_items_a_bounded_number_has_spans(client: Client, two: Fleet, receiver: Receiver) -> None:
    items = 100_000
    actions = {"start": NOOP, "each": {**NOOP, "needs": ["start"], "for_each": {"range": items}}}
    trace = Trace(two, receiver, run(client, {"name": "many", "actions": actions})["flow_session_id"])
    trace.check()
    assert trace.branch("each")["tasks.succeeded"] == items
    shown = {span["item"] for span in trace.named(TASK) if span["item"] is not None}
    assert set(range(100)) <= shown
    assert len(trace.spans) < 100 + 1000 + 1000
    chunks = [span for span in trace.named(TASK) if span["items.count"] is not None]
    assert chunks
    assert all(span["tasks.succeeded"] == span["items.count"] for span in chunks)


def test_the_trace_goes_on_after_redis_has_lost_everything(
    client: Client, two: Fleet, receiver: Receiver, journal: Path, tmp_path: Path
) -> None:
    hold = {"uses": "test.hold", "with": {"journal": str(journal), "folder": str(tmp_path)}, "needs": ["left2"]}
    session = begin(client, forked(journal, held=hold, last={**NOOP, "needs": ["held", "join"]}))
    records = Records(two)
    done = "SELECT count(*) FROM tasks WHERE flow_session_id = %s AND status = 'succeeded'"
    wait_until(lambda: records.rows(done, session) == [(18,)], "all but what is held is recorded")
    with redis.Redis.from_url(two.redis_url) as server:
        server.flushdb()
    for attempt in (1, 2):
        (tmp_path / f"held.{attempt}").touch()
    assert result_of(client, session)["status"] == "succeeded"
    trace = Trace(two, receiver, session)
    trace.check()
    assert links_of(trace, trace.branch("last")) == {"held", "join"}
