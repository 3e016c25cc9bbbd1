"""The same graphs under each dispatcher: the same tasks run, and the same is recorded, whatever fails."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, given, settings

from tests.support.clients import Client, running_client
from tests.support.fleet import Fleet
from tests.support.graphs import Graph, definition_of, expected_of, graphs
from tests.support.journal import read_journal
from tests.support.records import Records

GRAPHS = 40
#: Dispatcher, and the queue whose workers it is run by: in one of them each branch is a message of its own.
WAYS = {"counted": ("counted", "turns"), "chord": ("chord", "turns"), "each": ("chord", "each")}


@pytest.fixture(scope="module")
def workers(module_fleet: Fleet) -> Fleet:
    """Two workers for each way to give turns; no fork is too short to be shared."""
    common = {"ACTION_MODULES": "tests.support.journal", "INLINE_FORK_MS": "0"}
    module_fleet.start(2, concurrency=2, queues=("turns",), **common)
    module_fleet.start(2, concurrency=2, queues=("each",), RUNNER_SLICE_SECONDS="0", **common)
    return module_fleet


@pytest.fixture(scope="module")
def client(workers: Fleet) -> Iterator[Client]:
    with running_client(workers) as running:
        yield running


def random_graphs(number: int) -> list[Graph]:
    """So many graphs of up to ten actions, other ones each time."""
    found: list[Graph] = []

    @settings(max_examples=number, phases=[Phase.generate], database=None)
    @given(graph=graphs())
    def collect(graph: Graph) -> None:
        found.append(graph)

    collect()
    return found


def test_random_graphs_end_alike_under_both_dispatchers(client: Client, workers: Fleet, tmp_path: Path) -> None:
    drawn = random_graphs(GRAPHS)
    assert len(drawn) >= 30
    orders: list[tuple[str, dict[str, Any]]] = []
    for number, graph in enumerate(drawn):
        limit = random.choice([1, 2, 3, 10])
        for way, (dispatch, queue) in WAYS.items():
            definition = definition_of(graph, str(tmp_path / f"{number}-{way}"), limit)
            orders.append((queue, {**definition, "dispatch": dispatch, "queue": queue}))
    code = """
        runs = [send(workflow).apply_async(queue=queue) for queue, workflow in orders]
        result = [run.get(timeout=120) for run in runs]
    """
    results = iter(client.run(code, orders=orders))
    records = Records(workers)
    for number, graph in enumerate(drawn):
        expected = expected_of(graph)
        counts = []
        for way in WAYS:
            result = next(results)
            rows = records.tasks(result["flow_session_id"], len(expected.states))
            states = {name: row.status for name, row in rows.items()}
            assert states == expected.states, f"{way}: {graph}"
            assert result["status"] == expected.status, f"{way}: {graph}"
            journal = read_journal(tmp_path / f"{number}-{way}")
            executions = Counter(task for kind, task, *_ in journal if kind == "start")
            assert executions == dict.fromkeys(expected.executions, 1), f"{way}: {graph}"
            counts.append(result["counts"])
        assert counts == [counts[0]] * len(WAYS), graph
    records.wait_idle(("turns", "each"))
    records.wait_nothing_live()
