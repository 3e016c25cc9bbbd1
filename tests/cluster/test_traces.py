"""The trace of a flow session, as a receiver of OTLP gets it from real workers: judged by its structure."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from parallelizer.services.supervision import LoggedProgram
from tests.support.clients import Client, running_client
from tests.support.crashes import kill_worker
from tests.support.fleet import Fleet
from tests.support.journal import read_journal
from tests.support.otlp import Receiver, Span, receiving
from tests.support.records import Records
from tests.support.traces import BRANCH, EXECUTION, LIFECYCLE, TASK, Trace
from tests.support.waiting import wait_until
from tests.support.workflows import Definition, record

NOOP: Definition = {"uses": "core.noop"}
ACTION_MODULES = "tests.support.journal,tests.support.traced_actions"
#: Of a caller that has begun the trace.
CALLER_TRACE, CALLER_SPAN = "5b8aa5a2d2c872e8321cf37308d69df2", "051581bf3cb55c13"


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with receiving() as running:
        yield running


@pytest.fixture(scope="module")
def two(module_fleet: Fleet, receiver: Receiver) -> Fleet:
    """Two workers of two processes that send their spans."""
    module_fleet.start(2, ACTION_MODULES=ACTION_MODULES, **receiver.environment)
    return module_fleet


@pytest.fixture(scope="module")
def client(two: Fleet) -> Iterator[Client]:
    with running_client(two) as running:
        yield running


def run(client: Client, workflow: Definition) -> dict[str, Any]:
    result: dict[str, Any] = client.run("result = send(workflow).delay().get(timeout=60)", workflow=workflow)
    return result


def begin(client: Client, workflow: Definition, queue: str = "branches") -> str:
    code = "result = send(workflow).apply_async(queue=queue).id"
    session: str = client.run(code, workflow={**workflow, "queue": queue}, queue=queue)
    return session


def result_of(client: Client, session: str) -> dict[str, Any]:
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
    assert receiver.repeated == 0


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


def test_the_trace_is_whole_after_the_loss_of_a_worker(fleet: Fleet, receiver: Receiver, journal: Path) -> None:
    """With all its processes, as with its host: the one that makes spans too."""
    lost, _ = fleet.start(2, ACTION_MODULES=ACTION_MODULES, LEASE_SECONDS="2", **receiver.environment)
    with running_client(fleet) as client:
        workflow = forked(journal)
        workflow["actions"]["each"]["for_each"] = {"range": 60}
        session = begin(client, workflow)
        wait_until(lambda: bool(pids_at_work(journal, lost)), "the worker has begun something")
        kill_worker(lost, main_only=False)
        assert result_of(client, session)["counts"] == {"succeeded": 65}
    trace = Trace(fleet, receiver, session)
    trace.check()
    assert [span for span in trace.named(TASK) if span["status"] == "lost"], "what it was at"


def pids_at_work(journal: Path, worker: LoggedProgram) -> set[int]:
    import psutil  # noqa: PLC0415

    assert worker.process is not None
    children = {child.pid for child in psutil.Process(worker.process.pid).children(recursive=True)}
    lines = read_journal(journal)
    ended = {(task, attempt) for kind, task, attempt, *_ in lines if kind == "end"}
    return {pid for kind, task, attempt, _, pid in lines if kind == "start" and (task, attempt) not in ended} & children


def test_of_many_items_a_bounded_number_has_spans(client: Client, two: Fleet, receiver: Receiver) -> None:
    items = 5000
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


def test_of_sessions_that_are_not_sampled_those_that_fail_have_spans(
    fleet: Fleet, receiver: Receiver, journal: Path
) -> None:
    fleet.start(1, ACTION_MODULES=ACTION_MODULES, OTEL_TRACES_SAMPLER="parentbased_always_off", **receiver.environment)
    bad = {**record(journal, outcome="fail"), "needs": ["start"]}
    actions = {"start": NOOP, "bad": bad, "beside": {**NOOP, "needs": ["start"]}}
    actions["each"] = {
        **record(journal, outcome="${{ item == 3 ? 'fail' : 'success' }}"), "needs": ["start"], "for_each": {"range": 5}
    }  # fmt: skip
    with running_client(fleet) as client:
        good = run(client, forked(journal))["flow_session_id"]
        failed = run(client, {"name": "failing", "actions": actions})["flow_session_id"]
    trace_ids = dict(Records(fleet).rows("SELECT flow_session_id, split_part(traceparent, '-', 2) FROM flow_sessions"))
    expected = [
        (LIFECYCLE, None), (EXECUTION, None), (BRANCH, "bad"), (BRANCH, "each"), (TASK, "bad"), (TASK, "each")
    ]  # fmt: skip
    wait_until(lambda: len(receiver.spans(trace_ids[failed])) == len(expected), "the spans of the failure")
    spans = receiver.spans(trace_ids[failed])
    assert sorted((span.name, span["branch"] or span["action"] or "") for span in spans) == sorted(
        (name, what or "") for name, what in expected
    )
    ids = {span.span_id for span in spans}
    assert [span.name for span in spans if span.parent_id not in ids] == [LIFECYCLE]
    assert all(span.failed for span in spans)
    assert not receiver.spans(trace_ids[good])


@pytest.mark.parametrize("pool", ["threads", "solo"])
def test_traces_of_other_pools(fleet: Fleet, receiver: Receiver, journal: Path, pool: str) -> None:
    fleet.start(1, pool=pool, ACTION_MODULES=ACTION_MODULES, **receiver.environment)
    inner = {"uses": "test.span", "with": {"name": "inner"}, "needs": ["join"]}
    with running_client(fleet) as client:
        session = run(client, forked(journal, inner=inner))["flow_session_id"]
    fleet.stop()  # what waits is sent at the end
    trace = Trace(fleet, receiver, session)
    trace.check()
    (own,) = trace.named("inner")
    assert own.parent_id == trace.task("inner").span_id


def test_without_a_receiver_there_is_nothing_of_traces(fleet: Fleet) -> None:
    fleet.start(1, ACTION_MODULES=ACTION_MODULES)
    actions = {"start": NOOP, **{name: {"uses": "test.threads", "needs": ["start"]} for name in ("one", "two")}}
    with running_client(fleet) as client:
        result = run(client, {"name": "off", "actions": actions})
    for found in result["output"].values():
        assert not found["sdk"], "the SDK is not even loaded"
        assert not [name for name in found["threads"] if "otel" in name.lower()]
    assert Records(fleet).rows("SELECT traceparent FROM flow_sessions") == [(None,)]
