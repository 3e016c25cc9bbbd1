"""RabbitMQ as the broker, with a server of its own that is stopped, killed, frozen and cut off while work is done.

Needs the program `rabbitmq-server` on this machine. `make test-rabbitmq` runs the rest of the suite against RabbitMQ.
"""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from orchestration.errors import ServiceUnreachable
from parallelizer.services.supervision import LoggedProgram
from tests.support.clients import Client, running_client
from tests.support.fleet import Fleet, running_fleet
from tests.support.journal import read_journal
from tests.support.rabbitmq import Messages, OwnRabbit, remove_queues, running_rabbitmq
from tests.support.records import Records
from tests.support.waiting import wait_until
from tests.support.workflows import Definition, record

#: Seconds; as short as a busy machine lets every living worker renew it.
LEASE = 3
JOURNAL = "tests.support.journal"
#: Five minutes; `make test-rabbitmq` runs them.
pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def rabbit() -> Iterator[OwnRabbit]:
    """A server that tests may break; it is there again behind each."""
    with running_rabbitmq() as server:
        yield server


@pytest.fixture
def workers(rabbit: OwnRabbit, redis_url: str, database_url: str, namespace: str, tmp_path: Path) -> Iterator[Fleet]:
    """An empty fleet on that server."""
    remove_queues(rabbit.url)
    with running_fleet(redis_url, database_url, namespace, tmp_path / "fleet") as fleet:
        fleet.broker_url = rabbit.url
        yield fleet


def start(fleet: Fleet, count: int = 1, **options: Any) -> list[LoggedProgram]:
    return fleet.start(count, LEASE_SECONDS=str(LEASE), ACTION_MODULES=JOURNAL, **options)


def chain_and_fork(journal: Path, seconds: float) -> list[Definition]:
    """A run that is all first branch, and one whose branches are runners'."""
    long = record(journal, seconds=seconds)
    sides = {side: {**long, "needs": ["begin"]} for side in ("left", "right")}
    return [
        {"name": "linear", "actions": {"alone": long}},
        {
            "name": "forked",
            "actions": {"begin": record(journal), **sides, "end": {**record(journal), "needs": [*sides]}},
        },
    ]


def send_all(client: Client, definitions: list[Definition]) -> list[str]:
    sessions: list[str] = client.run(
        "result = [send(definition).apply_async().id for definition in definitions]", definitions=definitions
    )
    return sessions


def check_all_succeed(client: Client, sessions: list[str], seconds: float = 60.0) -> None:
    code = "result = [AsyncResult(session).get(timeout=seconds)['status'] for session in sessions]"
    assert set(client.run(code, sessions=sessions, seconds=seconds)) == {"succeeded"}


def begun(journal: Path) -> Counter[str]:
    return Counter(task for kind, task, *_ in read_journal(journal) if kind == "start")


def check_each_once(journal: Path, *tasks: str) -> None:
    assert begun(journal) == Counter(dict.fromkeys(tasks, 1))


@pytest.mark.parametrize(("right", "wrong"), [("guest:guest@", "guest:forgotten@"), ("//", "/nowhere")])
def test_a_worker_that_rabbitmq_refuses_ends_with_a_sentence(
    workers: Fleet, rabbit: OwnRabbit, right: str, wrong: str
) -> None:
    before, _, behind = rabbit.url.rpartition(right)
    workers.broker_url = f"{before}{wrong}{behind}"
    with pytest.raises(ServiceUnreachable, match=r"BROKER_URL: RabbitMQ at .* refuses us") as raised:
        start(workers)
    assert "ended with exit code 2" in str(raised.value)
    assert "forgotten" not in str(raised.value)


def test_reset_connections_repeat_nothing_that_is_at_work(workers: Fleet, rabbit: OwnRabbit, journal: Path) -> None:
    """RabbitMQ delivers again at once what was at work; nothing of that begins a second time."""
    started = start(workers, 2)
    with running_client(workers) as client:
        sessions = send_all(client, chain_and_fork(journal, 6.0))
        wait_until(lambda: len(begun(journal)) == 4, "all is at work")
        for _ in range(3):
            rabbit.reset_connections()
        check_all_succeed(client, sessions)
        check_each_once(journal, "alone", "begin", "left", "right", "end")
        check_all_succeed(client, send_all(client, chain_and_fork(journal, 0.1)))
    Records(workers).wait_idle()
    Records(workers).wait_nothing_live()
    assert not any(worker.has_exited() for worker in started)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_broker_that_restarts_repeats_nothing_and_loses_nothing(
    workers: Fleet, rabbit: OwnRabbit, journal: Path, number: signal.Signals
) -> None:
    """What is at work goes on; what was accepted and waits is there again, since it was confirmed to its sender."""
    started = start(workers, 2)
    waiting = {"name": "waiting", "actions": {"waits": record(journal)}}
    with running_client(workers) as client:
        at_work = chain_and_fork(journal, 6.0)
        sessions = send_all(client, at_work)
        wait_until(lambda: len(begun(journal)) == 4, "all is at work")
        sessions += send_all(client, [waiting] * 10)
        rabbit.stop(number)
        rabbit.start()
        rabbit.wait_ready()
        check_all_succeed(client, sessions)
    assert begun(journal) == Counter({"waits": 10, **dict.fromkeys(("alone", "begin", "left", "right", "end"), 1)})
    assert not any(worker.has_exited() for worker in started)


def test_a_frozen_broker_makes_nobody_lose_a_lease(workers: Fleet, rabbit: OwnRabbit, journal: Path) -> None:
    """Frozen for longer than a lease, while runners are to be published."""
    start(workers, 2)
    steps = {f"s{n}": {**record(journal, seconds=1.0), "needs": [f"s{n - 1}"] if n else []} for n in range(8)}
    sides = {side: {**record(journal), "needs": ["s0"]} for side in ("left", "right")}
    with running_client(workers) as client:
        sessions = send_all(client, [{"name": "long", "actions": {**steps, **sides}}])
        wait_until(lambda: bool(begun(journal)), "it has begun")
        rabbit.send(signal.SIGSTOP)
        try:
            threading.Event().wait(2.0 * LEASE)
        finally:
            rabbit.send(signal.SIGCONT)
        check_all_succeed(client, sessions)
    check_each_once(journal, *steps, *sides)
    log = "".join(worker.log.read_text() for worker in workers.workers)
    assert "is taken for lost" not in log


def test_a_message_that_is_held_longer_than_the_broker_allows_repeats_nothing(
    redis_url: str, database_url: str, namespace: str, tmp_path: Path, journal: Path
) -> None:
    """RabbitMQ closes the channel then (`consumer_timeout`, half an hour by default), and delivers all of it again."""
    with (
        running_rabbitmq(consumer_timeout=2000) as server,
        running_fleet(redis_url, database_url, namespace, tmp_path / "fleet") as fleet,
    ):
        fleet.broker_url = server.url
        started = start(fleet, 2)
        with running_client(fleet) as client:
            sessions = send_all(client, chain_and_fork(journal, 8.0))
            check_all_succeed(client, sessions)
            check_each_once(journal, "alone", "begin", "left", "right", "end")
            check_all_succeed(client, send_all(client, chain_and_fork(journal, 0.1)))
        assert "PRECONDITION_FAILED" in "".join(worker.log.read_text() for worker in started)
        assert not any(worker.has_exited() for worker in started)
        Records(fleet).wait_nothing_live()


@pytest.mark.parametrize("pool", ["prefork", "solo"])
def test_a_run_goes_on_when_the_worker_of_its_first_branch_is_killed(workers: Fleet, journal: Path, pool: str) -> None:
    """Its message comes again at once, and waits until the lease of the first delivery is over."""
    started = start(workers, 2, pool=pool)
    with running_client(workers) as client:
        (session,) = send_all(client, [{"name": "linear", "actions": {"only": record(journal, seconds=1.0)}}])
        wait_until(lambda: bool(read_journal(journal)), "it has begun")
        busy = read_journal(journal)[0][4]
        (owner,) = [worker for worker in started if busy in processes_of(worker)]
        workers.kill(owner)
        check_all_succeed(client, [session])
    assert [line[2] for line in read_journal(journal) if line[0] == "start"] == [1, 2]


def processes_of(worker: LoggedProgram) -> set[int]:
    assert worker.process is not None
    return {worker.process.pid, *(child.pid for child in psutil.Process(worker.process.pid).children())}


def test_a_process_that_dies_in_a_first_branch_is_made_up_for_at_once(workers: Fleet, journal: Path) -> None:
    start(workers)
    with running_client(workers) as client:
        die = {"uses": "test.die", "with": {"journal": str(journal), "times": 1}}
        check_all_succeed(client, send_all(client, [{"name": "dies", "actions": {"dies": die}}]))
    first, second = (line[3] for line in read_journal(journal) if line[0] == "start")
    assert second - first < LEASE


def test_messages_with_a_countdown_wait_in_the_broker(workers: Fleet, journal: Path) -> None:
    """In the worker, two of them would occupy all that it takes at a time."""
    workers.start(1, application="tests.support.delivery_app", LEASE_SECONDS=str(LEASE))
    with running_client(workers) as client:
        code = "app.send_task('test.note', (path, mark, 0.0), **options)"
        for number in range(4):
            client.run(code, path=str(journal), mark=f"later-{number}", options={"countdown": 4})
        sent = time.monotonic()
        client.run(code, path=str(journal), mark="now", options={})
        wait_until(journal.exists, "the one that need not wait has run")
        assert time.monotonic() - sent < 3
        wait_until(lambda: journal.read_text().count("end later") == 4, "the others have run")
        assert time.monotonic() - sent > 3


def test_a_small_run_is_not_held_up_by_a_large_one(workers: Fleet, journal: Path) -> None:
    """The only process gives way to the message that waits in the broker."""
    start(workers, concurrency=1)
    large = {"name": "large", "actions": {"each": {**record(journal, seconds=0.05), "for_each": {"range": 200}}}}
    with running_client(workers) as client:
        sessions = send_all(client, [large])
        wait_until(lambda: len(begun(journal)) > 3, "it is at work")
        check_all_succeed(client, send_all(client, [{"name": "small", "actions": {"small": record(journal)}}]))
        assert len(begun(journal)) < 100
        check_all_succeed(client, sessions)


def test_a_worker_that_waits_for_its_last_task_keeps_no_other_message(workers: Fleet, journal: Path) -> None:
    (worker,) = start(workers)
    with running_client(workers) as client:
        send_all(client, [{"name": "last", "actions": {"last": record(journal, seconds=6.0)}}])
        wait_until(lambda: bool(begun(journal)), "it is at work")
        worker.send(signal.SIGTERM)
        messages = Messages(workers.broker_url)
        wait_until(lambda: not messages.consumers("branches"), "it takes no more")
        send_all(client, [{"name": "next", "actions": {"next": record(journal)}}])
        wait_until(lambda: messages.waiting(("branches",)) == 1, "the next one waits for another worker", 5)
        assert worker.process is not None
        worker.process.wait(30)
        assert "next" not in begun(journal)
