"""Messages are neither lost nor repeated when connections, Redis or workers fail (docs/reliability.md, Delivery).

With DELIVERY=vanilla in the environment the same scenarios run against Celery's own transport, and fail.
"""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import redis

from parallelizer.services.folder import prepare_folder
from parallelizer.services.supervision import LoggedProgram
from parallelizer.services.valkey import EmbeddedValkey
from tests.support.clients import Client, running_client
from tests.support.fleet import Fleet, running_fleet
from tests.support.journal import read_journal
from tests.support.proxy import Proxy
from tests.support.records import Records
from tests.support.waiting import wait_until
from tests.support.workflows import record

#: Seconds; as short as a busy machine lets every living worker renew it.
LEASE = 3


@pytest.fixture
def server(service_folder: Path, tmp_path: Path) -> Iterator[EmbeddedValkey]:
    """A server that a test may stop and start."""
    own = EmbeddedValkey(prepare_folder(service_folder / tmp_path.name))
    own.start()
    own.wait_ready()
    yield own
    own.stop()


@pytest.fixture
def own_fleet(server: EmbeddedValkey, database_url: str, namespace: str, tmp_path: Path) -> Iterator[Fleet]:
    """An empty fleet on that server."""
    with running_fleet(server.url, database_url, namespace, tmp_path / "fleet") as started:
        yield started


@pytest.fixture
def client(own_fleet: Fleet) -> Iterator[Client]:
    """It reaches the server without a proxy."""
    with running_client(own_fleet) as running:
        yield running


def start(fleet: Fleet, count: int = 1, *, pool: str = "prefork", queues: tuple[str, ...] = ()) -> list[LoggedProgram]:
    return fleet.start(
        count, pool=pool, queues=queues, application="tests.support.delivery_app", LEASE_SECONDS=str(LEASE),
    )  # fmt: skip


def send(client: Client, journal: Path, mark: str, seconds: float = 0.0, **options: object) -> None:
    client.run(
        "app.send_task('test.note', (path, mark, seconds), **options)",
        path=str(journal), mark=mark, seconds=seconds, options=options,
    )  # fmt: skip


def counts(journal: Path) -> Counter[str]:
    """`start <mark>` and `end <mark>` → how often."""
    lines = journal.read_text().splitlines() if journal.exists() else []
    return Counter(line.rpartition(" ")[0] for line in lines)


def wait_line(journal: Path, line: str, seconds: float = 30.0) -> None:
    wait_until(lambda: bool(counts(journal)[line]), f"{line} in the journal: {dict(counts(journal))}", seconds)


def wait_nothing_held(fleet: Fleet, queues: tuple[str, ...] = ("branches",)) -> None:
    """No message waits or is held."""
    if fleet.broker_url:
        Records(fleet).wait_idle(queues)
        return
    with closing(redis.Redis.from_url(fleet.redis_url)) as redis_client:
        wait_until(
            lambda: not redis_client.hlen("unacked") and not any(map(redis_client.llen, queues)), "no message is left"
        )


def check_each_once(journal: Path, fleet: Fleet, *marks: str) -> None:
    """Each ran once; and so does one that is sent now, by the same workers."""
    with running_client(fleet) as another:
        send(another, journal, "after")
    for mark in (*marks, "after"):
        wait_line(journal, f"end {mark}")
    wait_nothing_held(fleet)
    assert counts(journal) == Counter({f"{kind} {mark}": 1 for kind in ("start", "end") for mark in (*marks, "after")})


@pytest.mark.redis_broker("Redis has no part in delivery")
def test_fault_a_a_reset_connection_repeats_nothing_that_is_at_work(
    own_fleet: Fleet, client: Client, journal: Path
) -> None:
    start(own_fleet)
    send(client, journal, "at-work", 3.0)
    send(client, journal, "later", countdown=3)
    wait_line(journal, "start at-work")
    with closing(redis.Redis.from_url(own_fleet.redis_url)) as redis_client:
        for _ in range(3):
            redis_client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            time.sleep(0.3)
    check_each_once(journal, own_fleet, "at-work", "later")


@pytest.mark.redis_broker("Redis has no part in delivery")
@pytest.mark.parametrize("away_seconds", [0.0, LEASE + 2.0])
def test_fault_b_a_worker_consumes_on_after_a_restart_of_redis(
    own_fleet: Fleet, client: Client, server: EmbeddedValkey, journal: Path, away_seconds: float
) -> None:
    workers = start(own_fleet, 2)
    send(client, journal, "long", away_seconds + 4.0)
    send(client, journal, "short", 1.0)  # ends while Redis is away
    wait_line(journal, "start long")
    wait_line(journal, "start short")
    server.stop()
    wait_line(journal, "end short")
    time.sleep(away_seconds)
    server.start()
    server.wait_ready()
    check_each_once(journal, own_fleet, "long", "short")
    assert not any(worker.has_exited() for worker in workers)


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo", "gevent"])
def test_fault_c_a_task_may_take_longer_than_the_lease_of_its_message(
    own_fleet: Fleet, client: Client, journal: Path, pool: str
) -> None:
    start(own_fleet, 2, pool=pool)
    send(client, journal, "long", 3.5 * LEASE)
    check_each_once(journal, own_fleet, "long")


@pytest.mark.redis_broker("Redis has no part in delivery")
def test_fault_e_a_message_that_is_popped_into_a_dead_connection_is_delivered(
    own_fleet: Fleet, client: Client, server: EmbeddedValkey, journal: Path
) -> None:
    with Proxy(server.url).running() as proxy, closing(redis.Redis.from_url(server.url)) as redis_client:
        own_fleet.redis_url = proxy.url
        start(own_fleet)
        own_fleet.redis_url = server.url
        send(client, journal, "warm")
        wait_line(journal, "end warm")
        wait_nothing_held(own_fleet)
        wait_until(lambda: redis_client.info("clients")["blocked_clients"] > 0, "the worker waits for messages")
        proxy.go_silent()
        send(client, journal, "lost")
        wait_until(lambda: redis_client.llen("branches") == 0, "the message was popped", seconds=1)
        assert "start lost" not in counts(journal)
        time.sleep(8)  # the worker notices
        proxy.heal()
        check_each_once(journal, own_fleet, "warm", "lost")


def test_messages_of_a_killed_worker_come_again_within_its_lease(
    own_fleet: Fleet, client: Client, journal: Path
) -> None:
    first, _second = start(own_fleet, 2, pool="solo")
    send(client, journal, "a", 2.0)
    send(client, journal, "b", 2.0)
    wait_line(journal, "start a")
    wait_line(journal, "start b")
    own_fleet.kill(first)
    killed = time.monotonic()
    wait_until(lambda: sum(count for line, count in counts(journal).items() if line.startswith("start")) == 3, "again")
    assert time.monotonic() - killed < LEASE + 5
    wait_nothing_held(own_fleet)
    assert counts(journal)["end a"] == counts(journal)["end b"] == 1


@pytest.mark.redis_broker("what is held is looked for in Redis; see test_rabbitmq.py")
def test_what_a_worker_holds_goes_back_at_once_when_it_is_stopped(
    own_fleet: Fleet, client: Client, journal: Path
) -> None:
    first, second = start(own_fleet, 2)
    second.send(signal.SIGSTOP)
    send(client, journal, "later", countdown=60)
    with closing(redis.Redis.from_url(own_fleet.redis_url)) as redis_client:
        wait_until(lambda: redis_client.hlen("unacked") == 1, "a worker holds the message")
        first.send(signal.SIGTERM)
        assert first.process is not None
        first.process.wait(timeout=30)
        second.send(signal.SIGCONT)
        wait_until(lambda: any(redis_client.scan_iter("unacked:worker-2*")), "the other worker holds it")


@pytest.mark.redis_broker("what is held is looked for in Redis; see test_rabbitmq.py")
def test_a_worker_that_waits_for_its_last_task_keeps_no_other_message(
    own_fleet: Fleet, client: Client, journal: Path
) -> None:
    (worker,) = start(own_fleet)
    send(client, journal, "last", 6.0)
    wait_line(journal, "start last")
    worker.send(signal.SIGTERM)
    send(client, journal, "next")
    with closing(redis.Redis.from_url(own_fleet.redis_url)) as server:
        wait_until(lambda: server.hlen("unacked") == 1 and server.llen("branches") == 1, "it waits again", 5)
    wait_line(journal, "end last")
    assert "start next" not in counts(journal)


@pytest.mark.parametrize("pool", ["prefork", "solo"])
def test_a_worker_serves_several_queues(own_fleet: Fleet, client: Client, journal: Path, pool: str) -> None:
    """In turns while all have messages, and at once when one comes to an idle worker."""
    queues = ("one", "two", "three")
    marks = [f"{queue}-{number}" for number in range(10) for queue in queues]
    for mark in marks:
        send(client, journal, mark, queue=mark.partition("-")[0])
    start(own_fleet, pool=pool, queues=queues)
    for mark in marks:
        wait_line(journal, f"end {mark}")
    started = [line.split()[1] for line in journal.read_text().splitlines() if line.startswith("start")]
    for queue in queues:
        assert sum(mark.startswith(queue) for mark in started[:15]) >= 4, started
    for queue in queues:
        send(client, journal, f"idle-{queue}", queue=queue)
        wait_line(journal, f"end idle-{queue}", seconds=5)
    wait_nothing_held(own_fleet, queues)
    assert set(counts(journal).values()) == {1}


@pytest.mark.redis_broker("no messages are in Redis")
def test_a_full_redis_gives_its_messages_out(own_fleet: Fleet, client: Client, journal: Path) -> None:
    (worker,) = start(own_fleet)
    with closing(redis.Redis.from_url(own_fleet.redis_url)) as server:
        send(client, journal, "first", 1.0)
        wait_line(journal, "start first")
        for number in range(3):
            send(client, journal, f"waits-{number}", 0.5)
        server.config_set("maxmemory", 1)
        for number in range(3):
            wait_line(journal, f"end waits-{number}")
        server.config_set("maxmemory", 0)
    check_each_once(journal, own_fleet, "first", "waits-0", "waits-1", "waits-2")
    assert "Trying to re-establish the connection" not in worker.log.read_text()


@pytest.mark.redis_broker("no messages are in Redis")
def test_a_worker_that_is_cut_off_while_redis_is_full_connects_again(
    own_fleet: Fleet, client: Client, journal: Path
) -> None:
    (worker,) = start(own_fleet)
    with closing(redis.Redis.from_url(own_fleet.redis_url)) as server:
        send(client, journal, "before")
        wait_line(journal, "end before")
        server.config_set("maxmemory", 1)
        server.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        wait_until(lambda: "Trying to re-establish the connection" in worker.log.read_text(), "it has noticed")
        wait_until(lambda: "can't renew leases now" in worker.log.read_text(), "it can't go on", 20)
        server.config_set("maxmemory", 0)
    send(client, journal, "after")
    wait_line(journal, "end after")
    assert worker.process is not None
    assert worker.process.poll() is None


@pytest.mark.redis_broker("connections of RabbitMQ are in test_rabbitmq.py")
@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_connections_that_are_reset_all_the_time_repeat_and_lose_nothing(
    own_fleet: Fleet, client: Client, journal: Path, pool: str
) -> None:
    marks = [f"m{number}" for number in range(200)]
    client.run(
        "for mark in marks: app.send_task('test.note', (path, mark, 0.05))", marks=marks, path=str(journal)
    )  # fmt: skip
    start(own_fleet, 2, pool=pool)
    with closing(redis.Redis.from_url(own_fleet.redis_url)) as server:
        while sum(counts(journal).values()) < 2 * len(marks):
            server.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            time.sleep(0.3)
    check_each_once(journal, own_fleet, *marks)


def test_a_run_goes_on_when_the_worker_of_its_first_branch_is_killed(
    own_fleet: Fleet, client: Client, journal: Path
) -> None:
    """Nothing is known of it but its message and the row of its session."""
    workers = own_fleet.start(2, pool="solo", LEASE_SECONDS=str(LEASE), ACTION_MODULES="tests.support.journal")
    workflow = {"name": "linear", "actions": {"only": record(journal, seconds=1.0)}}
    session = client.run("result = send(workflow).apply_async().id", workflow=workflow)
    wait_until(lambda: len(read_journal(journal)) == 1, "it has begun")
    (busy,) = [worker for worker in workers if worker.process and worker.process.pid == read_journal(journal)[0][4]]
    own_fleet.kill(busy)
    result = client.run("result = AsyncResult(session).get(timeout=60)", session=session)
    assert result["status"] == "succeeded"
    assert [line[:3] for line in read_journal(journal)] == [
        ("start", "only", 1), ("start", "only", 2), ("end", "only", 2),
    ]  # fmt: skip
