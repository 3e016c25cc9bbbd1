"""Metrics of real workers: they say what PostgreSQL says, whatever was killed, and nothing is left of the dead."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from parallelizer.services.supervision import LoggedProgram
from tests.support.clients import running_client
from tests.support.crashes import kill, kill_worker, pool_processes, running_in
from tests.support.fleet import Fleet
from tests.support.records import Records
from tests.support.scrapes import Scrape, Series, counted, endpoint_of, recorded, scrape
from tests.support.waiting import wait_until
from tests.support.workflows import Definition, record

#: Of one worker; what there is after the last is compared with what there was after the first two.
RESTARTS, FIRST = 20, 2
NOOP: Definition = {"uses": "core.noop"}


def mixed(journal: Path) -> Definition:
    """Items, retries, a failure, what is skipped, and a branch that takes its process down once."""
    return {
        "name": "mixed",
        "actions": {
            "first": NOOP,
            "each": {**NOOP, "needs": ["first"], "for_each": {"range": 300}},
            "slow": {**record(journal, seconds=0.05), "needs": ["first"], "for_each": {"range": 20}},
            "again": {
                "uses": "test.fail_first", "needs": ["first"], "with": {"journal": str(journal), "times": 1},
                "retry": {"max_attempts": 3, "delay_seconds": 0.05},
            },
            "dies": {"uses": "test.die", "needs": ["first"], "with": {"journal": str(journal), "times": 1}},
            "fails": {"uses": "core.fail", "needs": ["first"]},
            "skipped": {**NOOP, "needs": ["first"], "if": "false"},
            "never": {**NOOP, "needs": ["fails"]},
        },
    }  # fmt: skip


def test_what_is_scraped_is_what_is_recorded_also_of_killed_children(fleet: Fleet, journal: Path) -> None:
    workers = fleet.start(2, concurrency=2, ACTION_MODULES="tests.support.journal", METRICS_PORT="0")
    records = Records(fleet)
    with running_client(fleet) as client:
        ids = client.run(
            "result = [send(workflow).delay().id for _ in range(6)] + [send(small).delay().id for _ in range(20)]",
            workflow=mixed(journal), small={"name": "small", "actions": {"a": NOOP, "b": {**NOOP, "needs": ["a"]}}},
        )  # fmt: skip
        wait_until(lambda: bool(running_in(journal, pool_processes(workers[0]))), "something runs in the first worker")
        for pid in pool_processes(workers[0]):
            kill(pid)
        client.run("result = [AsyncResult(id).get(timeout=90)['status'] for id in ids]", ids=ids)
    urls = [endpoint_of(worker.log) for worker in workers]
    wait_until(lambda: all(told.get("status_entries") == 0 for told in map(scrape, urls)), "all is recorded")
    told: list[Scrape] = []

    def is_read() -> bool:
        told[:] = map(scrape, urls)
        return all(counted(one) == recorded(records.rows) for one in told)

    wait_until(is_read, "each worker says what PostgreSQL says")
    ended = records.rows("SELECT flow_session_id FROM flow_sessions WHERE finished_at IS NOT NULL")
    assert set(ids) <= {name for (name,) in ended}
    (attempts,) = records.rows("SELECT sum(attempt - 1) FROM tasks")[0]
    durations = records.rows("SELECT count(*) FROM tasks WHERE finished_at IS NOT NULL AND started_at IS NOT NULL")
    for one in told:
        assert one.by("task_retries_total", []).total() == attempts > 0
        assert one.by("task_duration_seconds_count", []).total() == durations[0][0]
        assert one.get("branches_active") == 0
        assert one.get("workers") == 2
    # of each worker: its own
    assert sum(one.by("runner_slices_total", []).total() for one in told) > 0
    for one in told:
        busy, permits = one.get("busy_seconds_total"), one.get("permit_seconds_total")
        assert busy is not None
        assert permits is not None
        assert busy <= permits
    assert sum(one.get("versions_cache_misses_total") or 0 for one in told) >= 2
    assert sum(one.get("status_batch_rows_count") or 0 for one in told) > 0


@pytest.mark.parametrize("pool", ["threads"])
def test_other_pools_count_as_well(fleet: Fleet, journal: Path, pool: str) -> None:
    (worker,) = fleet.start(1, concurrency=3, pool=pool, ACTION_MODULES="tests.support.journal", METRICS_PORT="0")
    with running_client(fleet) as client:
        workflow = {"name": "shared", "actions": {"a": NOOP, "each": {
            **record(journal, seconds=0.02), "needs": ["a"], "for_each": {"range": 20}}}}  # fmt: skip
        client.run("send(workflow).delay().get(timeout=40)", workflow=workflow)
    url = endpoint_of(worker.log)

    def is_counted() -> bool:
        told = scrape(url)
        return counted(told) == recorded(Records(fleet).rows) and (told.get("busy_seconds_total") or 0) >= 0.4

    wait_until(is_counted, "all is counted")


@pytest.mark.timeout(600)
def test_nothing_grows_with_a_worker_that_is_killed_and_started_again(fleet: Fleet) -> None:
    temporary = fleet.folder / "temporary"
    temporary.mkdir(parents=True)
    (worker,) = fleet.start(
        1, concurrency=1, pool="solo", METRICS_PORT="0", LEASE_SECONDS="2", TMPDIR=str(temporary)
    )  # fmt: skip
    left: list[Left] = []
    for _ in range(RESTARTS):
        logged = worker.log.stat().st_size
        kill_worker(worker)
        worker.start()
        url = endpoint_of(worker.log, logged)
        if len(left) < FIRST:
            left.append(left_by(fleet, url))
    wait_until(lambda: scrape(url).get("workers") == 1, "dead workers are no longer told of", seconds=30)
    last = left_by(fleet, url)
    assert last.of_fleet ^ left[-1].of_fleet == frozenset()
    assert last == left[-1]
    assert open_files(worker) == []


@dataclass(frozen=True)
class Left:
    """What could grow: series of metrics, of the worker and of the fleet, and files."""

    of_worker: frozenset[Series]
    of_fleet: frozenset[Series]
    files: frozenset[Path]


def left_by(fleet: Fleet, url: str) -> Left:
    """What there is now; the fleet's metrics are those of a worker that both services answered."""
    told: list[Scrape] = []

    def is_answered() -> bool:
        told[:] = [scrape(f"{url}/{part}") for part in ("worker", "fleet")]
        return told[1].get("workers") is not None and told[1].get("dead_letters") is not None

    wait_until(is_answered, "both services have answered")
    return Left(frozenset(told[0].series), frozenset(told[1].series), files_of(fleet))


def files_of(fleet: Fleet) -> frozenset[Path]:
    """All files in the folder of the workers, temporary ones too."""
    return frozenset(path for path in fleet.folder.rglob("*") if path.is_file())


def open_files(worker: LoggedProgram) -> list[str]:
    """Files below the worker's folder, other than its log, that its processes have open."""
    assert worker.process is not None
    main = psutil.Process(worker.process.pid)
    return [
        file.path
        for process in (main, *main.children(recursive=True))
        for file in process.open_files()
        if file.path.startswith(str(worker.log.parent.parent)) and file.path != str(worker.log)
    ]
