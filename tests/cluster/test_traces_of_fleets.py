"""Traces of fleets that differ: one that loses a worker, one that samples, other pools, and none that is told to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from parallelizer.services.supervision import LoggedProgram
from tests.support.clients import running_client
from tests.support.crashes import kill_worker
from tests.support.fleet import Fleet
from tests.support.journal import read_journal
from tests.support.otlp import Receiver, receiving
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


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as running:
        yield running


def test_the_trace_is_whole_after_the_loss_of_a_worker(
    receiver: Receiver, fleet: Fleet, journal: Path, tmp_path: Path
) -> None:
    """With all its processes, as with its host; also with the one that makes spans."""
    lost, _ = fleet.start(
        2, ACTION_MODULES=ACTION_MODULES, LEASE_SECONDS="3", OTEL_EXPORTER_OTLP_ENDPOINT=receiver.endpoint
    )
    hold = {"uses": "test.hold", "with": {"journal": str(journal), "folder": str(tmp_path)}, "needs": ["left2"]}
    with running_client(fleet) as client:
        session = begin(client, forked(journal, held={**hold, "for_each": {"range": 4}}))
        wait_until(lambda: sum(task.startswith("held") for task in running(journal)) == 4, "each worker holds two")
        theirs = [task for task, pid in running(journal).items() if pid in processes_of(lost)]
        assert len(theirs) == 2
        for task in set(running(journal)) - set(theirs):
            (tmp_path / f"{task}.1").touch()
        kill_worker(lost)
        for task in theirs:
            (tmp_path / f"{task}.2").touch()
        assert result_of(client, session)["counts"] == {"succeeded": 21}
    # an upkeep process may have been killed at what it had just read, which is taken over when its lease is over
    trace = Trace(fleet, receiver, session)
    trace.check(repeats=True)
    lost_items = [span for span in trace.named(TASK) if span["status"] == "lost"]
    assert sorted(f"held:{span['item']}" for span in lost_items) == sorted(theirs)
    again = {span["item"]: span for span in trace.named(TASK) if span["attempt"] == 2}
    assert [list(again[span["item"]].links) for span in lost_items] == [[span.span_id] for span in lost_items]


def running(journal: Path) -> dict[str, int]:
    """Tasks that have begun and not ended, and their processes."""
    lines = read_journal(journal)
    ended = {(task, attempt) for kind, task, attempt, *_ in lines if kind == "end"}
    return {task: pid for kind, task, attempt, _, pid in lines if kind == "start" and (task, attempt) not in ended}


def processes_of(worker: LoggedProgram) -> set[int]:
    assert worker.process is not None
    return {child.pid for child in psutil.Process(worker.process.pid).children(recursive=True)}


def test_of_sessions_that_are_not_sampled_those_that_fail_have_spans(
    receiver: Receiver, fleet: Fleet, journal: Path
) -> None:
    fleet.start(
        1,
        ACTION_MODULES=ACTION_MODULES,
        OTEL_TRACES_SAMPLER="parentbased_always_off",
        OTEL_EXPORTER_OTLP_ENDPOINT=receiver.endpoint,
    )
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
    wait_until(lambda: len(receiver.spans(trace_ids[failed])) >= len(expected), "the spans of the failure")
    spans = receiver.spans(trace_ids[failed])
    assert sorted((span.name, span["branch"] or span["action"] or "") for span in spans) == sorted(
        (name, what or "") for name, what in expected
    )
    ids = {span.span_id for span in spans}
    assert [span.name for span in spans if span.parent_id not in ids] == [LIFECYCLE]
    assert all(span.failed for span in spans)
    assert not receiver.spans(trace_ids[good])


@pytest.mark.parametrize("pool", ["threads", "solo", "gevent"])
def test_traces_of_other_pools(receiver: Receiver, fleet: Fleet, journal: Path, pool: str) -> None:
    fleet.start(1, pool=pool, ACTION_MODULES=ACTION_MODULES, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.endpoint)
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
    of_it = "SELECT traceparent FROM flow_sessions WHERE flow_session_id = %s"
    assert Records(fleet).rows(of_it, result["flow_session_id"]) == [(None,)]
