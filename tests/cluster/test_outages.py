"""Redis or PostgreSQL is away while workers work: it costs time. Nothing is lost, and nothing runs twice."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from parallelizer.services.folder import log_tail
from parallelizer.services.postgres import EmbeddedPostgres
from parallelizer.services.valkey import EmbeddedValkey
from tests.support.clients import Client, running_client
from tests.support.crashes import check_runs, kill, pool_processes
from tests.support.fleet import Fleet
from tests.support.journal import read_journal
from tests.support.outages import away, fleet_on, frozen, own_servers, pass_seconds
from tests.support.records import Records
from tests.support.waiting import wait_until
from tests.support.workflows import Definition, record

ACTION_MODULES = "tests.support.journal"
BRANCHES, STEPS, RUNS = 4, 3, 3
#: Longer than a lease, and than what anybody but a worker at work waits for Redis.
LONG_SECONDS = 25.0


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[EmbeddedValkey, EmbeddedPostgres]]:
    with own_servers() as started:
        yield started


@pytest.fixture
def own(
    servers: tuple[EmbeddedValkey, EmbeddedPostgres], redis_url: str, namespace: str, tmp_path: Path
) -> Iterator[Fleet]:
    """Two workers on servers of their own, with the broker elsewhere: what messages do is another matter."""
    with fleet_on(servers, namespace, tmp_path / "fleet", broker_url=redis_url) as fleet:
        fleet.start(2, concurrency=2, ACTION_MODULES=ACTION_MODULES)
        yield fleet


def forked(journal: Path, run: int, seconds: float = 0.4) -> Definition:
    """A fork into branches of some steps, and their join."""
    actions: dict[str, Any] = {"start": {"uses": "core.noop"}}
    for branch in range(BRANCHES):
        for step in range(STEPS):
            before = f"r{run}b{branch}s{step - 1}" if step else "start"
            actions[f"r{run}b{branch}s{step}"] = {**record(journal, seconds=seconds), "needs": [before]}
    actions["join"] = {"uses": "core.noop", "needs": [f"r{run}b{branch}s{STEPS - 1}" for branch in range(BRANCHES)]}
    return {"name": f"outage{run}", "actions": actions}


def tasks_of(run: int) -> set[str]:
    return {f"r{run}b{branch}s{step}" for branch in range(BRANCHES) for step in range(STEPS)}


def begin(client: Client, journal: Path, runs: range) -> list[str]:
    sent = [client.run("result = send(workflow).apply_async().id", workflow=forked(journal, run)) for run in runs]
    return [str(session) for session in sent]


def started(journal: Path) -> int:
    return sum(kind == "start" for kind, *_ in read_journal(journal))


def wait_at_work(journal: Path, tasks: int = 3) -> None:
    wait_until(lambda: started(journal) >= tasks, "branches are at work", seconds=60)


def check_all_ran_once(fleet: Fleet, client: Client, journal: Path, sessions: list[str], runs: range) -> None:
    """All runs have succeeded, on record too, and no action ran twice."""
    for session in sessions:
        result = client.run("result = AsyncResult(session).get(timeout=90)", session=session)
        assert result["status"] == "succeeded"
    wanted = set().union(*(tasks_of(run) for run in runs))
    assert Counter(task for kind, task, *_ in read_journal(journal) if kind == "start") == dict.fromkeys(wanted, 1)
    records = Records(fleet)
    statuses = "SELECT status, attempt, count(*) FROM tasks WHERE flow_session_id = ANY (%s) GROUP BY 1, 2"
    expected = [("succeeded", 1, len(sessions) * (BRANCHES * STEPS + 2))]
    wait_until(lambda: records.rows(statuses, sessions) == expected, "all rows are on record", seconds=60)
    records.wait_nothing_live()
    for worker in fleet.workers:
        assert "did not renew its lease" not in log_tail(worker.log, 10_000)


def test_a_frozen_redis_costs_time_only(
    own: Fleet, servers: tuple[EmbeddedValkey, EmbeddedPostgres], journal: Path
) -> None:
    runs = range(RUNS)
    with running_client(own) as client:
        sessions = begin(client, journal, runs)
        wait_at_work(journal)
        with frozen(servers[0]):
            pass_seconds(LONG_SECONDS)
        check_all_ran_once(own, client, journal, sessions, runs)


def test_a_redis_that_is_killed_and_comes_back_costs_time_only(
    own: Fleet, servers: tuple[EmbeddedValkey, EmbeddedPostgres], journal: Path
) -> None:
    runs = range(RUNS)
    with running_client(own) as client:
        sessions = begin(client, journal, runs)
        wait_at_work(journal)
        with away(servers[0]):
            pass_seconds(LONG_SECONDS)
            # the record has what is finished and Redis has not taken
            ended = {task for kind, task, *_ in read_journal(journal) if kind == "end"}
            query = "SELECT action FROM tasks WHERE flow_session_id = ANY (%s) AND status = 'succeeded'"
            assert ended <= {row[0] for row in Records(own).rows(query, sessions)}
        check_all_ran_once(own, client, journal, sessions, runs)


def test_with_postgresql_away_too_what_is_finished_is_on_disk_and_later_on_record(
    own: Fleet, servers: tuple[EmbeddedValkey, EmbeddedPostgres], journal: Path
) -> None:
    runs, spool = range(RUNS), own.folder / "spool"
    with running_client(own) as client:
        sessions = begin(client, journal, runs)
        wait_at_work(journal)
        with away(servers[0]), away(servers[1], signal.SIGQUIT):
            wait_until(lambda: any(spool.glob("*.spool")), "what is finished is on disk", seconds=60)
        check_all_ran_once(own, client, journal, sessions, runs)
        wait_until(lambda: not any(spool.iterdir()), "the spool is empty again", seconds=30)


def test_a_worker_that_is_told_to_stop_while_redis_is_away_leaves_and_what_it_finished_is_on_record(
    own: Fleet, servers: tuple[EmbeddedValkey, EmbeddedPostgres], journal: Path
) -> None:
    with running_client(own) as client:
        (session,) = begin(client, journal, range(1))
        wait_at_work(journal)
        with away(servers[0]):
            own.stop(grace_seconds=60)
            assert [worker.process.returncode for worker in own.workers if worker.process] == [0, 0]
            ended = {task for kind, task, *_ in read_journal(journal) if kind == "end"}
            query = "SELECT action FROM tasks WHERE flow_session_id = %s AND status = 'succeeded'"
            assert ended <= {row[0] for row in Records(own).rows(query, session)}
        own.start(1, concurrency=2, ACTION_MODULES=ACTION_MODULES)
        result = client.run("result = AsyncResult(session).get(timeout=120)", session=session)
        assert result["status"] == "succeeded"


def test_a_process_that_dies_while_redis_is_away_is_given_up_when_it_is_back(
    own: Fleet, servers: tuple[EmbeddedValkey, EmbeddedPostgres], journal: Path
) -> None:
    with running_client(own) as client:
        (session,) = begin(client, journal, range(1))
        wait_at_work(journal)
        with away(servers[0]):
            began = time.time()
            kills = [kill(pid) for pid in pool_processes(own.workers[0])]
            pass_seconds(max(0.0, 5.0 - (time.time() - began)))
        result = client.run("result = AsyncResult(session).get(timeout=60)", session=session)
        assert result["status"] == "succeeded"
    check_runs(journal, tasks_of(0), kills)


def test_a_postgresql_that_is_stopped_at_once_and_comes_back_costs_time_only(
    own: Fleet, servers: tuple[EmbeddedValkey, EmbeddedPostgres], journal: Path
) -> None:
    runs = range(2 * RUNS)
    with running_client(own) as client:
        sessions = begin(client, journal, range(RUNS))
        wait_at_work(journal)
        with away(servers[1], signal.SIGQUIT):
            before = started(journal)
            wait_until(lambda: started(journal) > before + 4, "open sessions go on")
            sessions += begin(client, journal, range(RUNS, 2 * RUNS))
            pass_seconds(5)
        check_all_ran_once(own, client, journal, sessions, runs)


@pytest.mark.parametrize("ends", [False, True], ids=["frozen", "killed"])
def test_where_redis_is_the_broker_too_an_outage_costs_time_only(
    servers: tuple[EmbeddedValkey, EmbeddedPostgres], namespace: str, tmp_path: Path, journal: Path, ends: bool
) -> None:
    runs = range(RUNS)
    with fleet_on(servers, namespace, tmp_path / "fleet") as fleet:
        fleet.start(2, concurrency=2, ACTION_MODULES=ACTION_MODULES)
        with running_client(fleet) as client:
            sessions = begin(client, journal, runs)
            wait_at_work(journal)
            with away(servers[0]) if ends else frozen(servers[0]):
                pass_seconds(12.0)
            check_all_ran_once(fleet, client, journal, sessions, runs)
