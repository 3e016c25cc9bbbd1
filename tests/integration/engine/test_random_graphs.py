"""Whatever the graph, the outcomes and the order of settling: the session ends by the rules, each task run once."""

from __future__ import annotations

import random
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.graphs import Graph, definition_of, expected_of, graphs
from tests.support.journal import read_journal
from tests.support.stepping import SteppingEngine

EXAMPLES = 300


@pytest.fixture(scope="module")
def shared_engine(redis_url: str, database_url: str) -> Iterator[SteppingEngine]:
    engine = SteppingEngine(redis_url, database_url, f"g{uuid.uuid4().hex[:12]}")
    yield engine
    engine.close()


@settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(graph=graphs(), limit=st.integers(1, 10), seed=st.integers(0, 2**32), alone=st.integers(0, 25))
def test_any_graph_ends_as_the_rules_say(
    shared_engine: SteppingEngine, graph: Graph, limit: int, seed: int, alone: int
) -> None:
    chance = random.Random(seed)
    engine = shared_engine
    with tempfile.TemporaryDirectory() as folder:
        journal = Path(folder) / "journal"
        result = engine.run(
            definition_of(graph, str(journal), limit),
            choose=lambda claims: chance.randrange(len(claims)),
            alone=alone,
        )
        lines = read_journal(journal)
    expected = expected_of(graph)
    rows = engine.database.fetch(
        "SELECT action, item, status, started_at, finished_at FROM tasks WHERE flow_session_id = %s",
        (result.flow_session_id,),
    )
    assert {(action, item): status for action, item, status, _, _ in rows} == expected.states
    assert result.status == expected.status

    started = [task for kind, task, *_ in lines if kind == "start"]
    assert sorted(started) == sorted(expected.executions), "every task that runs, runs exactly once"

    ended_at = {action: finished for action, item, _, _, finished in rows if item == -1}
    for action, _, _, began, _ in rows:
        if began is not None:
            for need in graph[action].needs:
                assert ended_at[need] <= began, f"{action} began before {need} had ended"

    counts: dict[str, int] = {}
    for (action, item), status in expected.states.items():
        expanded = graph[action].items is not None and (status == "succeeded" or (action, 0) in expected.states)
        if item >= 0 or not expanded:
            counts[status] = counts.get(status, 0) + 1
    assert dict(result.counts) == counts

    keys = engine.live.client.scan_iter(f"*{result.flow_session_id}*")
    left = [key for key in keys if engine.live.client.ttl(key) < 0]
    assert left == [], "an ended session leaves nothing behind but what expires"
