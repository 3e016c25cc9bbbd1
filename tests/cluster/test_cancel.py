"""Runs that are cancelled: nothing more begins, what runs is told, the run ends cancelled, everywhere."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestration.engine import control
from orchestration.engine.control import Found
from orchestration.state.live import LiveState
from orchestration.store.pool import Database
from orchestration.vocabulary import Dispatch, Publication
from parallelizer.services.supervision import LoggedProgram
from tests.support.clients import Client, running_client
from tests.support.commands import parallelizer
from tests.support.fleet import Fleet
from tests.support.journal import read_journal
from tests.support.records import Records
from tests.support.waiting import wait_until
from tests.support.workflows import Definition, record

ACTION_MODULES = "tests.support.journal,tests.support.cancelled_actions"
GRACE_SECONDS = 1.0
NOOP = {"uses": "core.noop"}


@pytest.fixture(scope="module")
def worker(module_fleet: Fleet) -> LoggedProgram:
    """Two processes, which may hold five hundred async branches each."""
    (worker,) = module_fleet.start(
        1, concurrency=2, ACTION_MODULES=ACTION_MODULES, RUNNER_ASYNC_BRANCHES="500",
        BRANCH_GRACE_SECONDS=str(GRACE_SECONDS), INLINE_FORK_MS="0",
    )  # fmt: skip
    return worker


@pytest.fixture(scope="module")
def client(worker: LoggedProgram, module_fleet: Fleet) -> Iterator[Client]:
    with running_client(module_fleet) as running:
        running.run("from tasks import cancel_session")
        yield running


def begin(client: Client, actions: Definition, *, queue: str = "branches", **more: Any) -> str:
    """Start a run; returns its flow session."""
    workflow = {"name": "to-be-cancelled", "queue": queue, "actions": actions, **more}
    session: str = client.run("result = send(workflow).apply_async(queue=queue).id", workflow=workflow, queue=queue)
    return session


def cancel(client: Client, session: str) -> dict[str, Any]:
    answer: dict[str, Any] = client.run("result = cancel_session(session).to_json()", session=session)
    return answer


def result_of(client: Client, session: str, seconds: float = 20) -> dict[str, Any]:
    code = "result = AsyncResult(session).get(timeout=seconds, interval=0.01)"
    result: dict[str, Any] = client.run(code, session=session, seconds=seconds)
    return result


def kinds(journal: Path, kind: str) -> list[str]:
    return [task for found, task, *_ in read_journal(journal) if found == kind]


def started(journal: Path) -> int:
    return len(kinds(journal, "start"))


def status_of(fleet: Fleet, session: str) -> str:
    rows = Records(fleet).rows("SELECT status FROM flow_sessions WHERE flow_session_id = %s", session)
    return str(rows[0][0])


def test_a_thousand_running_and_a_hundred_thousand_waiting_end_within_two_seconds(
    client: Client, module_fleet: Fleet, journal: Path
) -> None:
    running, waiting = 1000, 100_000
    each = {
        "uses": "test.record_async", "with": {"journal": str(journal), "seconds": 600},
        "for_each": {"range": running + waiting},
    }  # fmt: skip
    after = {"after": {**record(journal), "needs": ["each"], "trigger_rule": "all_done"}}
    session = begin(client, {"each": each, **after}, limits={"max_concurrent_branches": running})
    wait_until(lambda: started(journal) == running, "a thousand run", seconds=60)
    answer = cancel(client, session)
    assert (answer["found"], answer["running"]) == ("done", running)
    result = result_of(client, session, seconds=2)
    assert result["status"] == "cancelled"
    assert result["output"] is None
    assert result["counts"] == {"cancelled": running + waiting + 1}
    assert started(journal) == running, "nothing begins after the call has returned"
    assert status_of(module_fleet, session) == "cancelled"
    records = Records(module_fleet)
    statuses = "SELECT action, item >= 0, status, count(*) FROM tasks WHERE flow_session_id = %s GROUP BY 1, 2, 3"
    expected = {
        ("each", True, "cancelled", running), ("each", False, "cancelled", 1), ("after", False, "cancelled", 1),
    }  # fmt: skip
    wait_until(lambda: set(records.rows(statuses, session)) == expected, "what had begun has rows, the rest a number")
    (counts,) = records.rows(
        "SELECT result FROM tasks WHERE flow_session_id = %s AND action = 'each' AND item = -1", session
    )
    assert counts[0]["cancelled"] == counts[0]["total"] == running + waiting
    records.wait_nothing_live()


def test_after_the_call_has_returned_neither_the_next_item_nor_the_next_step_begins(
    client: Client, module_fleet: Fleet, journal: Path
) -> None:
    """A chunk of many short items is claimed, and a branch of many short steps."""
    short = record(journal, seconds=0.003)
    steps = {f"s{n}": {**short, "needs": [f"s{n - 1}" if n else "start"]} for n in range(300)}
    session = begin(
        client, {"start": NOOP, "each": {**short, "needs": ["start"], "for_each": {"range": 5000}}, **steps}
    )
    wait_until(lambda: {"each:100", "s20"} <= set(kinds(journal, "start")), "both run")
    code = "import time; answer = cancel_session(session).to_json(); result = [answer, time.time()]"
    answer, returned = client.run(code, session=session)
    assert answer["found"] == "done"
    assert "do not answer" not in answer["message"]
    assert result_of(client, session)["status"] == "cancelled"
    starts = [(task, when) for kind, task, _, when, _ in read_journal(journal) if kind == "start"]
    assert not [(task, when - returned) for task, when in starts if when > returned]
    Records(module_fleet).wait_nothing_live()


@pytest.mark.parametrize("dispatch", Dispatch)
def test_actions_get_cancelled_and_those_that_look_end_by_themselves(
    client: Client, module_fleet: Fleet, journal: Path, dispatch: Dispatch
) -> None:
    inputs = {"journal": str(journal)}
    actions = {
        "start": NOOP,
        "plain": {"needs": ["start"], "uses": "test.note_cancelled", "with": inputs},
        "beside": {"needs": ["start"], "uses": "test.look_for_cancelled", "with": inputs},
        "next": {**record(journal), "needs": ["plain"], "trigger_rule": "all_done"},
        "join": {**record(journal), "needs": ["next", "beside"], "trigger_rule": "all_done"},
    }
    session = begin(client, actions, dispatch=dispatch)
    wait_until(lambda: started(journal) == 2, "both run")
    assert cancel(client, session)["found"] == "done"
    result = result_of(client, session)
    assert (result["status"], result["counts"]) == ("cancelled", {"succeeded": 2, "cancelled": 3})
    assert sorted(kinds(journal, "end")) == ["beside", "plain"]
    rows = Records(module_fleet).tasks(session, 5)
    assert rows["plain", -1].status == "cancelled"
    assert rows["plain", -1].error["type"] == "orchestration.errors.Cancelled"
    assert rows["beside", -1].status == "succeeded"
    assert {rows[name, -1].status for name in ("next", "join")} == {"cancelled"}
    Records(module_fleet).wait_nothing_live()


def test_a_first_branch_is_ended_in_the_middle(client: Client, module_fleet: Fleet, journal: Path) -> None:
    actions = {
        "one": record(journal),
        "two": {**record(journal, seconds=60), "needs": ["one"]},
        "three": {**record(journal), "needs": ["two"], "trigger_rule": "all_done"},
    }
    session = begin(client, actions)
    wait_until(lambda: kinds(journal, "start") == ["one", "two"], "the second step runs")
    assert cancel(client, session)["found"] == "done"
    result = result_of(client, session)
    assert (result["status"], result["counts"]) == ("cancelled", {"succeeded": 1, "cancelled": 2})
    assert kinds(journal, "start") == ["one", "two"]
    rows = Records(module_fleet).tasks(session, 3)
    assert [rows[name, -1].status for name in actions] == ["succeeded", "cancelled", "cancelled"]
    Records(module_fleet).wait_nothing_live()


@pytest.mark.parametrize("needs", [[], ["start"]], ids=["first-branch", "open"])
@pytest.mark.parametrize("dispatch", Dispatch)
def test_what_does_not_end_in_its_grace_is_ended_with_its_process(
    client: Client, module_fleet: Fleet, journal: Path, needs: list[str], dispatch: Dispatch
) -> None:
    stubborn = {"uses": "test.ignore_cancelled", "with": {"journal": str(journal)}, "needs": needs}
    others = {"start": NOOP, "other": {**NOOP, "needs": ["start"]}} if needs else {}
    session = begin(client, {**others, "stubborn": stubborn}, dispatch=dispatch)
    wait_until(lambda: started(journal) == 1, "it runs")
    cancel(client, session)
    result = result_of(client, session, seconds=GRACE_SECONDS + 10)
    assert result["status"] == "cancelled"
    assert result["counts"]["cancelled"] == 1
    assert started(journal) == 1
    Records(module_fleet).wait_nothing_live()


def test_what_waits_for_a_retry_or_for_a_queue_without_worker_ends_at_once(
    client: Client, module_fleet: Fleet, journal: Path
) -> None:
    failing = {
        "uses": "test.record", "with": {"journal": str(journal), "outcome": "fail"}, "needs": ["start"],
        "retry": {"max_attempts": 2, "delay_seconds": 600},
    }  # fmt: skip
    actions = {
        "start": NOOP, "once": failing, "each": {**failing, "for_each": {"range": 3}},
        "elsewhere": {**NOOP, "needs": ["start"], "queue": "nobody"},
    }  # fmt: skip
    session = begin(client, actions)
    live = LiveState(module_fleet.redis_url, module_fleet.namespace)

    def waits() -> bool:
        snapshot = live.snapshot(session)
        return snapshot is not None and snapshot.deferred == 4 and not snapshot.in_use

    wait_until(waits, "all that can run waits for its retry")
    assert cancel(client, session)["running"] == 0
    result = result_of(client, session, seconds=5)
    assert (result["status"], result["counts"]) == ("cancelled", {"succeeded": 1, "cancelled": 5})
    rows = Records(module_fleet).tasks(session, 7)
    assert {row.status for (name, _), row in rows.items() if name != "start"} == {"cancelled"}
    Records(module_fleet).wait_nothing_live()


def test_items_that_wait_for_a_rate_limit_have_not_begun(client: Client, module_fleet: Fleet) -> None:
    each = {**NOOP, "needs": ["start"], "rate_limit": "1/h", "for_each": {"range": 5}}
    session = begin(client, {"start": NOOP, "each": each})
    live = LiveState(module_fleet.redis_url, module_fleet.namespace)

    def waits() -> bool:
        snapshot = live.snapshot(session)
        return snapshot is not None and snapshot.deferred == 4 and not snapshot.in_use

    wait_until(waits, "one has begun, the others are in the line")
    assert cancel(client, session)["running"] == 0
    result = result_of(client, session, seconds=5)
    assert (result["status"], result["counts"]) == ("cancelled", {"succeeded": 2, "cancelled": 4})
    records = Records(module_fleet)
    statuses = "SELECT action, item >= 0, status FROM tasks WHERE flow_session_id = %s ORDER BY 1, 2"
    expected = [("each", False, "cancelled"), ("each", True, "succeeded"), ("start", False, "succeeded")]
    wait_until(lambda: records.rows(statuses, session) == expected, "only the one that began has a row")
    records.wait_nothing_live()


def test_the_command_line_and_celerys_remote_control_answer_clearly(
    client: Client, module_fleet: Fleet, journal: Path
) -> None:
    environment = module_fleet.settings
    each = {"uses": "test.record_async", "with": {"journal": str(journal), "seconds": 600}, "for_each": {"range": 3}}
    session = begin(client, {"each": each})
    wait_until(lambda: started(journal) == 3, "all run")
    now = parallelizer("cancel", session, folder=None, **environment)
    assert now.returncode == 0, now.stderr
    assert now.stdout == f"{session} is cancelled; 3 branches or chunks at work are told to end\n"
    result_of(client, session)
    ended = parallelizer("cancel", session, "no-such-run", folder=None, **environment)
    assert ended.returncode == 2
    assert ended.stderr.splitlines() == [
        f"{session} has ended before: cancelled",
        "no run has the id no-such-run; `parallelizer list` shows those there are",
    ]
    other = begin(client, {"each": each})
    wait_until(lambda: started(journal) == 6, "all of the second run")
    command = [sys.executable, "-m", "celery", "-A", "tasks", "control", "-t", "10", "cancel_session", other]
    told = subprocess.run(command, env=module_fleet.environment, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stdout + told.stderr
    assert f"{other} is cancelled" in told.stdout
    assert result_of(client, other)["status"] == "cancelled"


def test_a_queued_run_ends_at_once_and_twice_is_said_so(fleet: Fleet, journal: Path, tmp_path: Path) -> None:
    fleet.start(1, concurrency=2, queues=("one",), ACTION_MODULES=ACTION_MODULES, MAX_CONCURRENT_WORKFLOWS="1")
    database, live = Database(fleet.database_url), LiveState(fleet.redis_url, fleet.namespace)
    kept: list[Publication] = []
    try:
        with running_client(fleet) as client:
            client.run("from tasks import cancel_session")
            held = {"uses": "test.wait_for_file", "with": {"journal": str(journal), "path": str(tmp_path / "gate")}}
            first = begin(client, {"held": held, "other": NOOP}, queue="one")
            wait_until(lambda: started(journal) == 1, "the first runs")
            second = begin(client, {"a": record(journal), "b": record(journal)}, queue="one")
            wait_until(lambda: live.is_open(second), "the second waits")
            # as if the one that cancels it died before it published the end
            assert control.cancel_session(database, live, kept.extend, second).found is Found.DONE
            again = control.cancel_session(database, live, kept.extend, second)
            assert again.found is Found.BEFORE
            assert kept[0] == kept[1]
            cancel(client, second)
            assert result_of(client, second)["status"] == "cancelled"
            assert started(journal) == 1
            (tmp_path / "gate").touch()
            assert result_of(client, first)["status"] == "succeeded"
    finally:
        database.close()
    Records(fleet).wait_nothing_live()
