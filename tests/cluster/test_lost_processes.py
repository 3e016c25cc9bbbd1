"""Workers lose processes while they work: every run ends as it should, and only what was in a crash runs again."""

from __future__ import annotations

import random
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import psycopg2
import pytest
import redis

from orchestration.state.keys import KeySpace
from orchestration.state.live import LiveState
from parallelizer.services.supervision import LoggedProgram
from tests.support.clients import Client, running_client
from tests.support.crashes import (
    Kill,
    check_runs,
    executions,
    kill,
    kill_worker,
    pool_processes,
    running_in,
    signal_worker,
)
from tests.support.fleet import Fleet
from tests.support.journal import read_journal
from tests.support.records import Records
from tests.support.waiting import wait_until
from tests.support.workflows import Definition, record

ACTION_MODULES = "tests.support.journal,tests.support.chord_faults"
#: Served by the workers that one test starts for itself; others of this module must not take their messages.
OWN = "own"
NOOP = {"uses": "core.noop"}
KILLS = 15
#: Work that begins between two kills: four processes take 50 ms for it.
STARTS_BETWEEN_KILLS = 12
#: Seconds, as short as a busy machine lets every living worker renew it.
LEASE = "3"


@pytest.fixture(scope="module")
def one(module_fleet: Fleet) -> LoggedProgram:
    """A worker of three processes, with the default settings."""
    (worker,) = module_fleet.start(1, concurrency=3, ACTION_MODULES=ACTION_MODULES)
    return worker


@pytest.fixture(scope="module")
def client(one: LoggedProgram, module_fleet: Fleet) -> Iterator[Client]:
    with running_client(module_fleet) as running:
        yield running


def begin(client: Client, workflow: Definition, queue: str = "branches") -> str:
    """Start a run on a queue; returns its flow session."""
    definition = {**workflow, "queue": queue}
    session: str = client.run("result = send(workflow).apply_async(queue=queue).id", workflow=definition, queue=queue)
    return session


def result_of(client: Client, session: str) -> dict[str, Any]:
    result: dict[str, Any] = client.run("result = AsyncResult(session).get(timeout=60)", session=session)
    return result


def chain_of(journal: Path, steps: int, seconds: float) -> Definition:
    """`s0` → `s1` → …"""
    step = record(journal, seconds=seconds)
    return {f"s{n}": {**step, "needs": [f"s{n - 1}"]} if n else step for n in range(steps)}


def wide(journal: Path, items: int, steps: int) -> Definition:
    """A fork into a `for_each` of 10 to 20 ms for each item, and a branch of some steps of 50 ms; and their join."""
    seconds = "${{ 0.01 + double(item % 11) / 1000.0 }}"
    chain = chain_of(journal, steps, 0.05)
    chain["s0"]["needs"] = ["start"]
    each = {**record(journal, seconds=seconds), "needs": ["start"], "for_each": {"range": items}}
    return {
        "name": "wide",
        "actions": {"start": NOOP, "each": each, **chain, "join": {**NOOP, "needs": ["each", f"s{steps - 1}"]}},
    }


def tasks_of(items: int, steps: int) -> set[str]:
    """What of `wide` writes to the journal."""
    return {f"each:{n}" for n in range(items)} | {f"s{n}" for n in range(steps)}


def started(journal: Path) -> int:
    return sum(kind == "start" for kind, *_ in read_journal(journal))


def check_all_succeeded(fleet: Fleet, result: dict[str, Any], items: int, steps: int) -> None:
    """The run of `wide` has succeeded with everything in it, in PostgreSQL too, and left nothing in Redis."""
    assert result["status"] == "succeeded"
    assert result["counts"] == {"succeeded": items + steps + 2}
    records = Records(fleet)
    statuses = "SELECT status, count(*) FROM tasks WHERE flow_session_id = %s GROUP BY status"
    expected = [("succeeded", items + steps + 3)]
    # what an upkeep process was at when it was killed is taken over after 30 s
    wait_until(lambda: records.rows(statuses, result["flow_session_id"]) == expected, "all rows are there", seconds=60)
    records.wait_nothing_live()


def check_slots(fleet: Fleet, workers: list[LoggedProgram], slots: int) -> None:
    """These workers are registered, with so many slots in all, and no other."""
    key = KeySpace(fleet.namespace).key

    def names(found: Any) -> list[str]:
        return sorted(name.partition(".")[0] for name in found)

    with closing(redis.Redis.from_url(fleet.redis_url, decode_responses=True)) as connection:
        expected = sorted(worker.name for worker in workers)
        wait_until(lambda: names(connection.zrange(key("workers"), 0, -1)) == expected, f"the workers are {expected}")
        assert names(connection.hkeys(key("slots", OWN))) == expected
        assert connection.get(key("slots_total", OWN)) == str(slots)
        assert not connection.zcard(key("inflight", OWN))
        owners = {
            name.partition("worker:")[2].partition(".")[0] for name in connection.scan_iter(key("worker_queues", "*"))
        }
        assert sorted(owners) == expected


def test_killed_children_lose_nothing_and_only_what_was_in_them_runs_again(fleet: Fleet, journal: Path) -> None:
    items, steps = 200, 10
    workers = fleet.start(2, concurrency=2, queues=(OWN,), ACTION_MODULES=ACTION_MODULES, MAX_BRANCH_CRASHES="100")
    chance, kills = random.Random(20), []
    with running_client(fleet) as client:
        session = begin(client, wide(journal, items, steps), OWN)
        for number in range(1, KILLS + 1):
            wait_until(lambda: started(journal) >= number * STARTS_BETWEEN_KILLS, "the run goes on")  # noqa: B023
            wait_until(lambda: any(map(pool_processes, workers)), "there is a process to kill")
            kills.append(kill(chance.choice([pid for worker in workers for pid in pool_processes(worker)])))
        result = result_of(client, session)
    check_runs(journal, tasks_of(items, steps), kills)
    check_all_succeeded(fleet, result, items, steps)
    wait_until(lambda: not Records(fleet).messages_of(session, OWN), "no message of the run is left")
    check_slots(fleet, workers, 4)


def test_the_last_worker_goes_on_when_the_others_are_killed(fleet: Fleet, journal: Path) -> None:
    """One is lost with all its processes, as with its host; of the other one only the main process is killed."""
    items, steps = 150, 20
    *lost, last = fleet.start(3, concurrency=2, queues=(OWN,), ACTION_MODULES=ACTION_MODULES, LEASE_SECONDS=LEASE)
    kills: list[Kill] = []
    with running_client(fleet) as client:
        session = begin(client, wide(journal, items, steps), OWN)
        for worker, main_only in zip(lost, (False, True), strict=True):
            pids = set(pool_processes(worker))
            wait_until(lambda: sum(run.pid in pids for run in executions(journal)) >= 10, "it has run some")  # noqa: B023
            wait_until(lambda: bool(running_in(journal, pids)), "it runs something")  # noqa: B023
            kills += kill_worker(worker, main_only=main_only)
        result = result_of(client, session)
    check_runs(journal, tasks_of(items, steps), kills)
    check_all_succeeded(fleet, result, items, steps)
    check_slots(fleet, [last], 2)


def test_a_worker_that_was_taken_for_lost_settles_nothing_when_it_is_back(fleet: Fleet, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    frozen, other = fleet.start(2, concurrency=2, queues=(OWN,), ACTION_MODULES=ACTION_MODULES, LEASE_SECONDS=LEASE)
    each = {
        "uses": "test.hold", "with": {"journal": str(journal), "folder": str(tmp_path)}, "needs": ["start"],
        "for_each": {"range": 4},
    }  # fmt: skip
    records, live = Records(fleet), LiveState(fleet.redis_url, fleet.namespace)
    with running_client(fleet) as client:
        session = begin(client, {"name": "held", "actions": {"start": NOOP, "each": each}}, OWN)
        wait_until(lambda: started(journal) == 4, "all four items run")
        runs = running_in(journal, pool_processes(frozen))
        assert len(runs) == 2, "each worker runs two"
        signal_worker(frozen, signal.SIGSTOP)
        try:
            for run in running_in(journal, pool_processes(other)):
                (tmp_path / f"{run.task}.1").touch()
            wait_until(lambda: started(journal) == 6, "the lease is over, and the other worker runs them again")
            for run in runs:
                (tmp_path / f"{run.task}.1").touch()
        finally:
            signal_worker(frozen, signal.SIGCONT)
        wait_until(lambda: not running_in(journal, pool_processes(frozen)), "the worker that is back has ended them")
        wait_until(lambda: records.messages_of(session, OWN) == 2, "its runners have left")
        snapshot = live.snapshot(session)
        assert snapshot is not None
        assert snapshot.items["each"].settled == 2, "what the worker that was away has ended does not count"
        for run in runs:
            (tmp_path / f"{run.task}.2").touch()
        result = result_of(client, session)
    assert result["counts"] == {"succeeded": 5}
    rows = records.tasks(session, 6)
    for run in runs:
        row = rows["each", int(run.task.partition(":")[2])]
        assert (row.status, row.attempt, row.result) == ("succeeded", 2, 2)
        assert row.worker.startswith(f"{other.name}.")
    assert set(Counter(run.task for run in executions(journal)).values()) == {1, 2}
    records.wait_nothing_live()
    check_slots(fleet, [frozen, other], 4)


def test_an_action_that_keeps_killing_its_process_fails_and_nothing_else_does(
    client: Client, module_fleet: Fleet, journal: Path
) -> None:
    items, deadly = 20, "each:7"
    die = {"uses": "test.die", "with": {"journal": str(journal), "times": 100}, "needs": ["start"]}
    each = {
        "uses": "test.die", "with": {"journal": str(journal), "times": "${{ item == 7 ? 100 : 0 }}"},
        "needs": ["start"], "for_each": {"range": items},
    }  # fmt: skip
    siblings = {
        "beside": {**record(journal, seconds=0.05), "needs": ["start"]},
        "behind": {**record(journal), "needs": ["beside"]},
    }
    after = {**record(journal), "needs": ["die", "each", "behind"], "trigger_rule": "all_done"}
    actions = {"start": NOOP, "die": die, "each": each, **siblings, "after": after}
    session = begin(client, {"name": "poison", "actions": actions})
    result = result_of(client, session)
    assert result["counts"] == {"failed": 2, "succeeded": items - 1 + 4}
    rows = Records(module_fleet).tasks(session, items + 6)
    poison = [rows["die", -1], rows["each", 7]]
    assert [row.status for row in poison] == ["failed", "failed"]
    assert all("died 3 times (MAX_BRANCH_CRASHES=3)" in row.error["message"] for row in poison)
    runs = executions(journal)
    deaths = [Kill(run.pid, run.started, run.started) for run in runs if run.task in ("die", deadly)]
    assert Counter(run.task for run in runs if run.task in ("die", deadly)) == {"die": 3, deadly: 3}
    others = {f"each:{n}" for n in range(items) if n != 7} | {"beside", "behind", "after"}
    check_runs(journal, others, deaths, besides={"die", deadly})
    Records(module_fleet).wait_nothing_live()


def test_steps_before_the_one_that_was_killed_do_not_run_again(
    client: Client, one: LoggedProgram, module_fleet: Fleet, tmp_path: Path, journal: Path
) -> None:
    """The first kill finds the session not open yet, the second one finds it in Redis."""
    actions = chain_of(journal, 5, 0.0)
    actions["s3"] |= {"uses": "test.hold", "with": {"journal": str(journal), "folder": str(tmp_path)}}
    session = begin(client, {"name": "linear", "actions": actions})
    records = Records(module_fleet)
    records.tasks(session, 3)
    kills = []
    for attempt in (1, 2):
        wait_until(lambda: started(journal) == 3 + attempt, "the step runs")  # noqa: B023
        kills.append(kill(executions(journal)[-1].pid))
    wait_until(lambda: started(journal) == 6, "the step runs again")
    (tmp_path / "s3.3").touch()
    result = result_of(client, session)
    assert result["counts"] == {"succeeded": 5}
    assert Counter(run.task for run in executions(journal)) == {"s0": 1, "s1": 1, "s2": 1, "s3": 3, "s4": 1}
    check_runs(journal, actions, kills)
    rows = records.tasks(session, 5)
    assert {name: row.attempt for (name, _), row in rows.items()} == {"s0": 1, "s1": 1, "s2": 1, "s3": 3, "s4": 3}
    records.wait_nothing_live()


def test_a_first_branch_that_keeps_killing_its_process_fails_too(
    client: Client, module_fleet: Fleet, journal: Path
) -> None:
    actions = chain_of(journal, 3, 0.0)
    actions["s1"] |= {"uses": "test.die", "with": {"journal": str(journal), "times": 100}}
    actions["s2"]["trigger_rule"] = "all_done"
    session = begin(client, {"name": "poison", "actions": actions})
    assert result_of(client, session)["counts"] == {"failed": 1, "succeeded": 2}
    assert Counter(run.task for run in executions(journal)) == {"s0": 1, "s1": 3, "s2": 1}
    Records(module_fleet).wait_nothing_live()


def test_a_kill_while_the_end_is_recorded_changes_nothing(
    client: Client, one: LoggedProgram, module_fleet: Fleet, journal: Path, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    held = {"uses": "test.wait_for_file", "with": {"journal": str(journal), "path": str(gate)}, "needs": ["start"]}
    actions = {"start": NOOP, "held": held, "beside": {**record(journal), "needs": ["start"]}}
    records = Records(module_fleet)
    with closing(psycopg2.connect(module_fleet.database_url)) as connection, connection.cursor() as cursor:
        session = begin(client, {"name": "ending", "actions": actions})
        wait_until(lambda: started(journal) == 2, "the session is open")
        cursor.execute("SELECT 1 FROM flow_sessions WHERE flow_session_id = %s FOR UPDATE", (session,))
        gate.touch()
        killed = kill(wait_blocked(records, one))
        again = wait_blocked(records, one, killed.pid)
        assert again != killed.pid
        connection.rollback()
    result = result_of(client, session)
    assert result["status"] == "succeeded"
    assert result["counts"] == {"succeeded": 3}
    assert Counter(run.task for run in executions(journal)) == {"held": 1, "beside": 1}
    assert records.rows("SELECT status FROM flow_sessions WHERE flow_session_id = %s", session) == [("succeeded",)]
    records.wait_nothing_live()


def test_runners_that_a_process_was_told_to_publish_are_published_when_it_died_before(
    fleet: Fleet, journal: Path, tmp_path: Path
) -> None:
    """The only permit is theirs, so nobody else can do the work, and it is theirs for a minute."""
    fleet.start(1, concurrency=2, queues=(OWN,), ACTION_MODULES=f"{ACTION_MODULES},tests.support.celery_actions")
    (tmp_path / "met").mkdir()
    arming: Definition = {"start": NOOP}
    for number in range(2):
        arming[f"meet{number}"] = {
            "uses": "test.message", "with": {"folder": str(tmp_path / "met"), "processes": 2}, "needs": ["start"],
        }  # fmt: skip
        arming[f"arm{number}"] = {
            "uses": "test.fail_to_publish", "needs": [f"meet{number}"],
            "with": {"marker": str(tmp_path / f"armed{number}"), "after": 0, "dies": True},
        }  # fmt: skip
    untold = {"name": "untold", "actions": {"a": record(journal), "b": record(journal)}}
    untold["limits"] = {"max_concurrent_branches_of_workflow": 1}
    with running_client(fleet) as client:
        assert result_of(client, begin(client, {"name": "arm", "actions": arming}, OWN))["status"] == "succeeded"
        before = set(pool_processes(fleet.workers[0]))
        session = begin(client, untold, OWN)
        result = client.run("result = AsyncResult(session).get(timeout=30)", session=session)
    assert result["counts"] == {"succeeded": 2}
    assert before - set(pool_processes(fleet.workers[0])), "one of them died"
    assert Counter(run.task for run in executions(journal)) == {"a": 1, "b": 1}
    Records(fleet).wait_nothing_live()


def wait_blocked(records: Records, worker: LoggedProgram, not_in: int = 0) -> int:
    """The process of the worker whose statement in PostgreSQL waits for a lock that the test holds."""
    blocked = (
        "SELECT client_port FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        " AND application_name = 'parallelizer-worker'"
    )
    found: list[int] = []

    def find() -> bool:
        ports = {port for (port,) in records.rows(blocked)}
        for pid in pool_processes(worker):
            if pid == not_in:
                continue
            if any(used.laddr.port in ports for used in psutil.Process(pid).net_connections() if used.laddr):
                found.append(pid)
        return bool(found)

    wait_until(find, "a process waits for the row of the session")
    return found[0]


def test_workers_replaced_one_by_one_under_load_run_every_task_once(fleet: Fleet, tmp_path: Path) -> None:
    replace_workers(fleet, tmp_path, rounds=3)


def replace_workers(fleet: Fleet, tmp_path: Path, rounds: int) -> None:
    """Replace the older of two workers so many times while runs go on: each ends in good order, each task runs once."""
    items, steps = 60, 8
    start = partial(fleet.start, concurrency=2, queues=(OWN,), ACTION_MODULES=ACTION_MODULES)
    workers, records = start(2), Records(fleet)
    runs: list[tuple[Path, str, set[str]]] = []
    with running_client(fleet) as client:
        for number in range(rounds):
            oldest = workers[number]
            wide_journal, linear_journal = tmp_path / f"wide{number}", tmp_path / f"linear{number}"
            linear = {"name": "linear", "actions": chain_of(linear_journal, steps, 0.05)}
            runs.append((linear_journal, begin(client, linear, OWN), {f"s{n}" for n in range(steps)}))
            runs.append((wide_journal, begin(client, wide(wide_journal, items, steps), OWN), tasks_of(items, steps)))
            wait_until(
                lambda: any(running_in(journal, pool_processes(oldest)) for journal, *_ in runs),  # noqa: B023
                "the worker runs something",
            )
            oldest.send(signal.SIGTERM)
            workers += start(1)
            wait_until(oldest.has_exited, "the worker has ended what it ran")
            assert oldest.describe_exit() == "ended with exit code 0"
        for journal, session, tasks in runs:
            assert result_of(client, session)["status"] == "succeeded"
            assert Counter(run.task for run in executions(journal)) == dict.fromkeys(tasks, 1)
            wait_until(lambda: not records.messages_of(session, OWN), "no message of the run is left")  # noqa: B023
    records.wait_nothing_live()
    check_slots(fleet, workers[-2:], 4)
