"""A hundred killed processes, in the middle of chunks, chains and short forks: nothing is lost, little runs twice."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.clients import Client, running_client
from tests.support.crashes import Kill, check_runs, executions, kill, pool_processes, running_in
from tests.support.fleet import Fleet
from tests.support.records import Records
from tests.support.waiting import wait_until
from tests.support.workflows import Definition, publish

KILLS = 100
#: Runs of each kind that are sent before each kill, which hits a process that is at one of this kind.
BURST = {"chunks": 2, "chain": 3, "fork": 12}
ITEMS, STEPS, SIDES = 60, 30, 3
#: A fork of five actions is expected to take 20 ms, and is run where it began.
INLINE_FORK_MS = "100"
FORK_SECONDS, STEP_SECONDS = 0.004, 0.002


def step(needs: list[str], seconds: float = STEP_SECONDS, **more: object) -> Definition:
    inputs = {"journal": "${{ payload.journal }}", "seconds": seconds}
    return {"uses": "test.record", "needs": needs, "with": inputs, **more}


WORKFLOWS: dict[str, Definition] = {
    "chunks": {"each": step([], for_each={"range": ITEMS})},
    "chain": {f"s{n}": step([f"s{n - 1}"] if n else []) for n in range(STEPS)},
    "fork": {
        "first": step([], FORK_SECONDS),
        **{f"side{n}": step(["first"], FORK_SECONDS) for n in range(SIDES)},
        "last": step([f"side{n}" for n in range(SIDES)], FORK_SECONDS),
    },
}
TASKS = {
    "chunks": {f"each:{n}" for n in range(ITEMS)},
    "chain": set(WORKFLOWS["chain"]),
    "fork": set(WORKFLOWS["fork"]),
}


@pytest.fixture
def workers(fleet: Fleet) -> Fleet:
    fleet.start(
        2,
        concurrency=2,
        ACTION_MODULES="tests.support.journal",
        MAX_BRANCH_CRASHES="100",
        INLINE_FORK_MS=INLINE_FORK_MS,
    )
    for name, actions in WORKFLOWS.items():
        publish(fleet, {"name": name, "actions": actions})
    return fleet


@pytest.fixture
def client(workers: Fleet) -> Iterator[Client]:
    with running_client(workers) as running:
        yield running


@pytest.mark.timeout(240)
def test_a_hundred_killed_processes_lose_nothing(workers: Fleet, client: Client, tmp_path: Path) -> None:
    chance = random.Random(7)
    kills: list[Kill] = []
    sent: dict[str, tuple[str, Path]] = {}
    while len(kills) < KILLS:
        kind = chance.choice(list(BURST))
        journals = send_burst(client, kind, sent, tmp_path)
        kills.append(kill(process_at(workers, journals, chance)))
    code = "result = {session: AsyncResult(session).get(timeout=120) for session in sessions}"
    results: dict[str, Any] = client.run(code, sessions=list(sent))
    check_results(workers, results, sent)
    cut: Counter[str] = Counter()
    for kind, journal in sent.values():
        check_runs(journal, TASKS[kind], kills)
        cut[kind] += sum(execution.ended is None for execution in executions(journal))
    assert min(cut[kind] for kind in WORKFLOWS) >= 5, f"processes are to be killed in the middle of each kind: {cut}"
    Records(workers).wait_idle()
    Records(workers).wait_nothing_live()


def send_burst(client: Client, kind: str, sent: dict[str, tuple[str, Path]], folder: Path) -> list[Path]:
    """Send some runs of a kind; returns their journals."""
    journals = [folder / f"{kind}-{len(sent) + n}" for n in range(BURST[kind])]
    code = "result = [send(kind, {'journal': journal}).delay().id for journal in journals]"
    sessions = client.run(code, kind=kind, journals=[str(journal) for journal in journals])
    sent.update((session, (kind, journal)) for session, journal in zip(sessions, journals, strict=True))
    return journals


def process_at(workers: Fleet, journals: list[Path], chance: random.Random) -> int:
    """Wait until a process is in the middle of one of these runs; returns its id."""
    found: list[int] = []

    def is_busy() -> bool:
        children = [pid for worker in workers.workers for pid in pool_processes(worker)]
        found[:] = [run.pid for journal in journals for run in running_in(journal, children)]
        return bool(found) or all(executions(journal) for journal in journals)

    wait_until(is_busy, "a process runs one of them, or all have been begun")
    return chance.choice(found or [pid for worker in workers.workers for pid in pool_processes(worker)])


def check_results(fleet: Fleet, results: dict[str, Any], sent: dict[str, tuple[str, Path]]) -> None:
    """Every run has succeeded, and PostgreSQL has each of its tasks as succeeded."""
    records = Records(fleet)
    for session, (kind, _) in sent.items():
        number = len(TASKS[kind])
        assert (results[session]["status"], results[session]["counts"]) == ("succeeded", {"succeeded": number}), kind
        rows = records.tasks(session, number + (kind == "chunks"))
        assert {row.status for row in rows.values()} == {"succeeded"}
