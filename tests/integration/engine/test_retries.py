"""A run that did not succeed is retried: another run takes over what succeeded, and runs the rest."""

from __future__ import annotations

import random
import tempfile
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestration.engine import retry as retries
from orchestration.engine.context import ProcessingContext
from orchestration.engine.control import Answer, Found
from orchestration.engine.finish import RunResult
from orchestration.engine.processor import Fork, RunRequest
from orchestration.errors import UnknownRun
from orchestration.store import recovery, sessions
from orchestration.store.retries import TakenOver, accept_retry
from orchestration.telemetry.tracing import session_trace
from orchestration.vocabulary import RunStatus, Verdict
from tests.support.graphs import Graph, definition_of, expected_of, graphs
from tests.support.journal import mend, read_journal
from tests.support.stepping import QUEUE, SteppingEngine

EXAMPLES = 40


class Interrupted(Exception):
    """Raised between two steps."""


@pytest.fixture(scope="module")
def shared_engine(redis_url: str, database_url: str) -> Iterator[SteppingEngine]:
    engine = SteppingEngine(redis_url, database_url, f"y{uuid.uuid4().hex[:12]}")
    yield engine
    engine.close()


def ask(engine: SteppingEngine, session: str, *, sends: bool = True) -> Answer:
    sent: list[tuple[str, str, Mapping[str, Any]]] = []

    def send(retry: str, task_id: str, call: Mapping[str, Any]) -> bool:
        sent.append((retry, task_id, call))
        return sends

    namespace = engine.settings.namespace
    answer = retries.retry_session(engine.database, engine.stream, namespace, send, session)
    if answer.found is Found.DONE:
        assert answer.retry is not None
        assert sent == [(answer.retry, answer.retry, {"namespace": namespace, "queue": QUEUE})]
    else:
        assert sent == []
    return answer


def retry(engine: SteppingEngine, session: str) -> RunResult:
    answer = ask(engine, session)
    assert answer.retry is not None, answer.message
    return engine.take_up(answer.retry)


def starts(journal: Path) -> Counter[str]:
    return Counter(task for kind, task, *_ in read_journal(journal) if kind == "start")


def record(journal: Path, *needs: str, outcome: str = "success", **more: Any) -> dict[str, Any]:
    inputs = {"journal": str(journal), "outcome": outcome}
    return {"uses": "test.mendable", "needs": list(needs), "with": inputs, **more}


def broken(journal: Path) -> dict[str, Any]:
    """`a`, then `b` which fails and `c` which does not, then `d`."""
    actions = {
        "a": record(journal), "b": record(journal, "a", outcome="fail"), "c": record(journal, "a"),
        "d": record(journal, "b", "c"),
    }  # fmt: skip
    return {"name": "broken", "actions": actions}


def rows(engine: SteppingEngine, session: str) -> dict[tuple[str, int], tuple[str, int]]:
    found = engine.database.fetch(
        "SELECT action, item, status, attempt FROM tasks WHERE flow_session_id = %s", (session,)
    )
    return {(action, item): (status, attempt) for action, item, status, attempt in found}


def row_of(engine: SteppingEngine, session: str) -> sessions.SessionRow:
    row = sessions.load_session(engine.database, session)
    assert row is not None
    return row


def test_what_failed_and_what_it_made_skip_runs_and_nothing_else(engine: SteppingEngine, journal: Path) -> None:
    """Results are there for those that read them, also a large one, and each of the two runs names the other."""
    workflow = broken(journal)
    workflow["actions"]["large"] = {"uses": "test.large", "with": {"size_bytes": 300_000}}
    workflow["output"] = {
        "a": "${{ tasks.a.result }}", "d": "${{ tasks.d.result }}", "size": "${{ size(tasks.large.result) }}",
        "n": "${{ payload.n }}",
    }  # fmt: skip
    failed = engine.run(workflow, {"n": 7})
    assert failed.status == "failed"
    mend(journal)
    result = retry(engine, failed.flow_session_id)
    assert (result.status, result.output) == ("succeeded", {"a": "a", "d": "d", "size": 300_000, "n": 7})
    assert dict(result.counts) == {"succeeded": 5}
    assert starts(journal) == {"a": 1, "b": 2, "c": 1, "d": 1}
    attempts = {action: attempt for (action, _), (_, attempt) in rows(engine, result.flow_session_id).items()}
    assert attempts == {"a": 0, "b": 1, "c": 0, "d": 1, "large": 0}
    old, new = row_of(engine, failed.flow_session_id), row_of(engine, result.flow_session_id)
    assert (old.status, old.retried_as, old.retry_of) == (RunStatus.FAILED, new.flow_session_id, None)
    assert (new.retry_of, new.retried_as, new.version_id) == (old.flow_session_id, None, old.version_id)


@pytest.mark.parametrize("before", [[], ["root", "other"]])
def test_a_branch_goes_on_at_the_step_that_failed(engine: SteppingEngine, journal: Path, before: list[str]) -> None:
    steps = {
        "s0": record(journal, *before), "s1": record(journal, "s0", outcome="fail"), "s2": record(journal, "s1"),
    }  # fmt: skip
    others = {name: record(journal) for name in before}
    failed = engine.run({"name": "steps", "actions": {**others, **steps}})
    mend(journal)
    assert retry(engine, failed.flow_session_id).status == "succeeded"
    assert starts(journal) == {**dict.fromkeys(before, 1), "s0": 1, "s1": 2, "s2": 1}


def test_of_a_for_each_only_items_that_failed_run_and_results_keep_their_order(
    engine: SteppingEngine, journal: Path
) -> None:
    items = [index in (0, 41, 99) for index in range(100)]
    each = record(journal, "a", for_each=items, outcome="${{ item ? 'fail' : 'success' }}")
    actions = {"a": record(journal), "each": each, "last": record(journal, "each")}
    failed = engine.run(
        {"name": "items", "actions": actions, "output": "${{ tasks.each.result }}"}, alone=0
    )  # fmt: skip
    assert dict(failed.counts) == {"succeeded": 98, "failed": 3, "upstream_failed": 1}
    mend(journal)
    answer = ask(engine, failed.flow_session_id)
    assert answer.message.endswith("98 of its tasks are taken over, all others run")
    assert answer.retry is not None

    # results of items are read from PostgreSQL
    def drain(_: ProcessingContext) -> None:
        engine.updater.drain_all()

    result = engine.take_up(answer.retry, check=drain)
    assert (result.status, result.output) == ("succeeded", [f"each:{index}" for index in range(100)])
    assert dict(result.counts) == {"succeeded": 102}
    again = {task for task, times in starts(journal).items() if times > 1}
    assert again == {"each:0", "each:41", "each:99"}


def test_what_comes_behind_something_that_runs_again_is_decided_anew(engine: SteppingEngine, journal: Path) -> None:
    """Cleaning up runs again behind what it cleans up for; what ran since something failed does not run now."""
    actions = {
        "a": record(journal, outcome="fail"),
        "clean": record(journal, "a", trigger_rule="all_done"),
        "alarm": record(journal, "a", trigger_rule="one_failed"),
        "next": record(journal, "a"),
    }
    failed = engine.run({"name": "anew", "actions": actions})
    mend(journal)
    result = retry(engine, failed.flow_session_id)
    found = {action: status for (action, _), (status, _) in rows(engine, result.flow_session_id).items()}
    assert found == {"a": "succeeded", "clean": "succeeded", "alarm": "skipped", "next": "succeeded"}
    assert starts(journal) == {"a": 2, "clean": 2, "alarm": 1, "next": 1}


def test_a_retry_that_fails_can_be_retried_and_has_done_more(engine: SteppingEngine, journal: Path) -> None:
    failed = engine.run(broken(journal))
    second = retry(engine, failed.flow_session_id)
    assert (second.status, starts(journal)) == ("failed", {"a": 1, "b": 2, "c": 1})
    refused = ask(engine, failed.flow_session_id)
    assert (refused.found, refused.retry) == (Found.REFUSED, second.flow_session_id)
    assert "has done more; retry that one" in refused.message
    mend(journal)
    third = retry(engine, second.flow_session_id)
    assert (third.status, starts(journal)) == ("succeeded", {"a": 1, "b": 3, "c": 1, "d": 1})
    refused = ask(engine, failed.flow_session_id)
    assert (refused.found, refused.retry) == (Found.REFUSED, third.flow_session_id)
    assert "which succeeded" in refused.message


def test_while_a_retry_is_open_another_is_refused_and_the_open_one_named(engine: SteppingEngine, journal: Path) -> None:
    failed = engine.run(broken(journal))
    first = ask(engine, failed.flow_session_id, sends=False)
    assert "begins some time after" in first.message, "it is accepted all the same, and found later"
    second = ask(engine, failed.flow_session_id)
    assert (second.found, second.retry) == (Found.REFUSED, first.retry)
    assert f"is being retried as {first.retry} (queued)" in second.message


def test_of_many_who_ask_at_once_one_retries(engine: SteppingEngine, journal: Path) -> None:
    """All of them have read that it was not retried when the first one retries it."""
    failed = engine.run(broken(journal))
    row = row_of(engine, failed.flow_session_id)

    def accept(_: int) -> int | None:
        return accept_retry(engine.database, row, str(uuid.uuid4()), TakenOver(["a"]), sequence=100_005, call="{}")

    with ThreadPoolExecutor(4) as pool:
        assert Counter(pool.map(accept, range(8))) == {1: 1, None: 7}
    found = engine.database.fetch(
        "SELECT flow_session_id FROM flow_sessions WHERE retry_of = %s", (row.flow_session_id,)
    )
    assert found == [(row_of(engine, row.flow_session_id).retried_as,)]


def test_a_run_that_succeeded_has_not_ended_or_is_not_known_is_not_retried(
    engine: SteppingEngine, journal: Path
) -> None:
    mend(journal)
    done = engine.run(broken(journal))
    answer = ask(engine, done.flow_session_id)
    assert (answer.found, answer.retry) == (Found.REFUSED, None)
    assert answer.message.endswith("succeeded, so there is nothing to retry; run the workflow again for another run")
    fork = engine.forking.process_workflow_parallel(RunRequest(str(uuid.uuid4()), broken(journal), None, QUEUE))
    assert isinstance(fork, Fork)
    answer = ask(engine, fork.request.flow_session_id)
    assert answer.found is Found.REFUSED
    assert "has not ended: running" in answer.message
    with pytest.raises(UnknownRun):
        ask(engine, str(uuid.uuid4()))


def test_of_a_cancelled_run_what_succeeded_before_is_not_run_again(engine: SteppingEngine, journal: Path) -> None:
    def cancel(context: ProcessingContext) -> None:
        engine.updater.drain_all()
        found = rows(engine, context.flow_session_id)
        if ("c", -1) in found and not context.cancellation.is_set:
            row = row_of(engine, context.flow_session_id)
            recovery.note_cancelled(engine.database, context.flow_session_id, row.session_day)
            engine.live.cancel_session(context.flow_session_id)

    mend(journal)
    cancelled = engine.run(broken(journal), choose=lambda claims: len(claims) - 1, check=cancel, alone=0)
    assert cancelled.status == "cancelled"
    before = starts(journal)
    result = retry(engine, cancelled.flow_session_id)
    assert (result.status, dict(result.counts)) == ("succeeded", {"succeeded": 4})
    after = starts(journal)
    assert (after["a"], after["c"]) == (1, before["c"])
    assert after["d"] == 1


def test_a_retry_waits_for_what_the_run_has_told_or_is_refused(
    engine: SteppingEngine, journal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end of a run is recorded before the tasks of its last moments are: without them they would run again."""
    failed = engine.run(broken(journal))
    monkeypatch.setattr(retries, "RECORD_SECONDS", 0.1)
    engine.stream.append([("x", "y")])
    answer = ask(engine, failed.flow_session_id)
    assert (answer.found, answer.retry) == (Found.REFUSED, None)
    assert "may be on its way to PostgreSQL still" in answer.message
    engine.updater.drain_all()
    assert ask(engine, failed.flow_session_id).found is Found.DONE


def test_a_retry_that_redis_loses_goes_on_with_what_was_taken_over(engine: SteppingEngine, journal: Path) -> None:
    failed = engine.run(broken(journal))
    mend(journal)
    answer = ask(engine, failed.flow_session_id)
    assert answer.retry is not None

    def lose(context: ProcessingContext) -> None:
        engine.updater.drain_all()
        if rows(engine, context.flow_session_id).get(("b", -1), ("", 0))[0] == "succeeded":
            raise Interrupted

    with pytest.raises(Interrupted):
        engine.take_up(answer.retry, check=lose)
    engine.lose_redis()
    assert engine.take_up(answer.retry).status == "succeeded"
    assert starts(journal) == {"a": 1, "b": 2, "c": 1, "d": 1}


def test_a_result_that_is_not_recorded_any_more_is_made_again(engine: SteppingEngine, journal: Path) -> None:
    workflow = broken(journal) | {"output": "${{ tasks.a.result }}"}
    failed = engine.run(workflow)
    engine.database.execute(
        "UPDATE tasks SET result = NULL WHERE flow_session_id = %s AND action = 'a' RETURNING 1",
        (failed.flow_session_id,),
    )
    mend(journal)
    result = retry(engine, failed.flow_session_id)
    assert (result.status, result.output) == ("succeeded", "a")
    assert (starts(journal)["a"], starts(journal)["c"]) == (2, 1)


def test_a_retry_is_turned_away_where_a_run_would_be(engine: SteppingEngine, journal: Path) -> None:
    limits = {"max_concurrent_sessions": 1, "when_full": "reject"}
    workflow = broken(journal) | {"name": f"one-{uuid.uuid4().hex[:8]}", "limits": limits}
    failed = engine.run(workflow, alone=0)
    other = engine.processor.process_workflow_parallel(RunRequest(str(uuid.uuid4()), workflow, None, QUEUE))
    assert isinstance(other, Fork)
    assert engine.processor.open_fork(other, "{}") is Verdict.GO
    answer = ask(engine, failed.flow_session_id)
    assert answer.retry is not None
    fork = engine.processor.take_up(RunRequest(answer.retry, "", None, QUEUE))
    assert isinstance(fork, Fork)
    assert engine.processor.open_fork(fork, "{}") is Verdict.REJECTED
    assert row_of(engine, answer.retry).status is RunStatus.FAILED
    engine.live.cancel_session(other.request.flow_session_id)
    engine.live.close_session(other.request.flow_session_id)
    mend(journal)
    assert retry(engine, answer.retry).status == "succeeded", "what it had taken over is taken over from it"
    assert starts(journal)["a"] == 1


def test_the_spans_of_a_retry_are_below_those_of_the_run(engine: SteppingEngine, journal: Path) -> None:
    failed = engine.run(broken(journal))
    session = failed.flow_session_id
    traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    engine.database.execute(
        "UPDATE flow_sessions SET traceparent = %s WHERE flow_session_id = %s RETURNING 1", (traceparent, session)
    )
    answer = ask(engine, session)
    assert answer.retry is not None
    old = session_trace(session, traceparent, 0)
    new = session_trace(answer.retry, row_of(engine, answer.retry).traceparent, 0)
    assert old is not None
    assert new is not None
    assert (new.trace_id, new.caller_span_id, new.is_sampled) == (old.trace_id, old.lifecycle_id, True)


@settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(graph=graphs(), limit=st.integers(1, 10), seed=st.integers(0, 2**32), alone=st.integers(0, 25))
def test_any_graph_that_is_retried_ends_as_if_nothing_had_failed(
    shared_engine: SteppingEngine, graph: Graph, limit: int, seed: int, alone: int
) -> None:
    chance, engine = random.Random(seed), shared_engine
    mended = {name: _mended(node) for name, node in graph.items()}
    with tempfile.TemporaryDirectory() as folder:
        journal = Path(folder) / "journal"
        definition = definition_of(graph, str(journal), limit, "test.mendable")
        failed = engine.run(definition, choose=lambda claims: chance.randrange(len(claims)), alone=alone)
        first = starts(journal)
        mend(journal)
        answer = ask(engine, failed.flow_session_id)
        if failed.status == "succeeded":
            assert answer.found is Found.REFUSED
            return
        assert answer.retry is not None
        result = engine.take_up(answer.retry, choose=lambda claims: chance.randrange(len(claims)))
        second = starts(journal) - first
    before, expected = expected_of(graph), expected_of(mended)
    found = rows(engine, result.flow_session_id)
    assert {key: status for key, (status, _) in found.items()} == expected.states
    assert result.status == expected.status
    taken = _taken_over(graph, before.states)
    assert {key for key, (_, attempt) in found.items() if attempt == 0} == taken
    names = {action if item < 0 else f"{action}:{item}" for action, item in taken}
    assert second == dict.fromkeys(expected.executions - names, 1), "nothing else runs, and all that runs once"
    assert sum(result.counts.values()) == sum(
        item >= 0 or not (graph[action].items is not None and (status == "succeeded" or (action, 0) in expected.states))
        for (action, item), status in expected.states.items()
    )


def _mended(node: Any) -> Any:
    items = None if node.items is None else tuple("success" if one == "fail" else one for one in node.items)
    return replace(node, outcome="success" if node.outcome == "fail" else node.outcome, items=items)


def _taken_over(graph: Graph, states: Mapping[tuple[str, int], str]) -> set[tuple[str, int]]:
    """By the documented rule: what succeeded or was skipped, with all before it."""
    taken: set[tuple[str, int]] = set()
    for name, node in graph.items():
        if all((need, -1) in taken for need in node.needs):
            own = {key for key, status in states.items() if key[0] == name and status in ("succeeded", "skipped")}
            taken |= own
    return taken
