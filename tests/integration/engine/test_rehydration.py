"""Redis loses everything: a session goes on by what PostgreSQL knows, and ends as if nothing had happened."""

from __future__ import annotations

import random
import tempfile
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestration.engine.context import ProcessingContext
from orchestration.engine.finish import RunResult
from tests.support.graphs import Graph, definition_of, expected_of, graphs
from tests.support.journal import read_journal
from tests.support.stepping import SteppingEngine

EXAMPLES = 300


class RedisLost(Exception):
    """Raised between two steps."""


class Losses:
    """Redis is lost at the given steps; the channel is drained some steps before each."""

    def __init__(self, engine: SteppingEngine, journal: Path, losses: list[tuple[int, int]]) -> None:
        self._engine = engine
        self._journal = journal
        self._losses = losses
        self._step = 0
        self.session = ""
        #: Tasks that had settled, by PostgreSQL, when Redis was lost, and how often they had run.
        self.settled: dict[str, int] = {}

    def __call__(self, context: ProcessingContext) -> None:
        self.session = context.flow_session_id
        if not self._losses:
            return
        steps, undrained = self._losses[0]
        if self._step == max(0, steps - undrained):
            self._engine.updater.drain_all()
        if self._step == steps:
            self._losses.pop(0)
            self._step = 0
            ran = starts_in(self._journal)
            for action, item in self._engine.database.fetch(
                "SELECT action, item FROM tasks WHERE flow_session_id = %s AND status IN ('succeeded', 'failed')",
                (self.session,),
            ):
                task = action if item < 0 else f"{action}:{item}"
                self.settled[task] = ran[task]
            raise RedisLost
        self._step += 1


def starts_in(journal: Path) -> Counter[str]:
    """How often each task was begun."""
    return Counter(task for kind, task, *_ in read_journal(journal) if kind == "start")


@pytest.fixture(scope="module")
def shared_engine(redis_url: str, database_url: str) -> Iterator[SteppingEngine]:
    engine = SteppingEngine(redis_url, database_url, f"r{uuid.uuid4().hex[:12]}")
    yield engine
    engine.close()


@settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    graph=graphs(), limit=st.integers(1, 10), seed=st.integers(0, 2**32), alone=st.integers(0, 6),
    losses=st.lists(st.tuples(st.integers(0, 12), st.integers(0, 3)), min_size=1, max_size=3),
)  # fmt: skip
def test_any_graph_ends_as_if_redis_had_lost_nothing(
    shared_engine: SteppingEngine, graph: Graph, limit: int, seed: int, alone: int, losses: list[tuple[int, int]]
) -> None:
    chance, engine = random.Random(seed), shared_engine
    with tempfile.TemporaryDirectory() as folder:
        journal = Path(folder) / "journal"
        lost = Losses(engine, journal, list(losses))
        result = _run(engine, definition_of(graph, str(journal), limit), lost, chance, alone)
        starts = starts_in(journal)
    expected = expected_of(graph)
    rows = engine.database.fetch(
        "SELECT action, item, status FROM tasks WHERE flow_session_id = %s", (result.flow_session_id,)
    )
    assert {(action, item): status for action, item, status in rows} == expected.states
    assert result.status == expected.status
    assert set(starts) == expected.executions
    again = {task for task, times in lost.settled.items() if starts[task] != times}
    assert again == set(), "what PostgreSQL knows is not run again"

    counts: dict[str, int] = {}
    for (action, item), status in expected.states.items():
        expanded = graph[action].items is not None and (status == "succeeded" or (action, 0) in expected.states)
        if item >= 0 or not expanded:
            counts[status] = counts.get(status, 0) + 1
    assert dict(result.counts) == counts

    keys = engine.live.client.scan_iter(f"*{result.flow_session_id}*")
    assert [key for key in keys if engine.live.client.ttl(key) < 0] == [], "nothing is left behind but what expires"


@settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    graph=graphs(), limit=st.integers(1, 10), seed=st.integers(0, 2**32), loss=st.integers(0, 12),
    kept=st.floats(0, 1),
)  # fmt: skip
def test_a_record_with_gaps_only_costs_time(
    shared_engine: SteppingEngine, graph: Graph, limit: int, seed: int, loss: int, kept: float
) -> None:
    """Several updaters write in any order: Redis and one of them may be lost when the others have written."""
    chance, engine = random.Random(seed), shared_engine
    with tempfile.TemporaryDirectory() as folder:
        journal = Path(folder) / "journal"
        lost = Losses(engine, journal, [(loss, 0)])

        def forget() -> None:
            key = (lost.session,)
            engine.database.execute("DELETE FROM branches WHERE flow_session_id = %s RETURNING 1", key)
            for row in engine.database.fetch("SELECT action, item FROM tasks WHERE flow_session_id = %s", key):
                if chance.random() > kept:
                    engine.database.execute(
                        "DELETE FROM tasks WHERE flow_session_id = %s AND action = %s AND item = %s RETURNING 1",
                        (*key, *row),
                    )

        result = _run(engine, definition_of(graph, str(journal), limit), lost, chance, 0, forget)
        starts = starts_in(journal)
    expected = expected_of(graph)
    rows = engine.database.fetch(
        "SELECT action, item, status FROM tasks WHERE flow_session_id = %s", (result.flow_session_id,)
    )
    ends = {action: status for (action, item), status in expected.states.items() if item < 0}
    assert {action: status for action, item, status in rows if item < 0} == ends
    assert result.status == expected.status
    assert set(starts) == expected.executions
    assert max(starts.values(), default=0) <= 2


def _run(
    engine: SteppingEngine,
    definition: dict[str, object],
    lost: Losses,
    chance: random.Random,
    alone: int,
    forget: Callable[[], None] = lambda: None,
) -> RunResult:
    def choose(claims: object) -> int:
        return chance.randrange(len(claims))  # type: ignore[arg-type]

    try:
        return engine.run(definition, choose=choose, alone=alone, check=lost)
    except RedisLost:
        engine.lose_redis()
        forget()
    while True:
        try:
            return engine.take_up(lost.session, choose, lost)
        except RedisLost:
            engine.lose_redis()
