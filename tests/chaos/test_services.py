"""A service is frozen, restarted, away or slow, while workers are at work: it costs time."""

from __future__ import annotations

import random
import signal
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass

import psycopg2
import pytest
import redis

from orchestration.state.keys import KeySpace
from parallelizer.services.postgres import EmbeddedPostgres
from parallelizer.services.valkey import EmbeddedValkey
from tests.chaos import campaign, workload
from tests.chaos.audit import Execution, executions
from tests.chaos.faults import LOSE_REDIS, Fault, Inject, Injected
from tests.chaos.single import run_under
from tests.chaos.stack import NAMESPACE, ChaosStack, chaos_stack
from tests.chaos.wire import SLOW_SECONDS
from tests.chaos.workload import ended_between, kinds, publish, step
from tests.support.waiting import wait_until

#: Runs go on for so long beside an outage.
BESIDE_SECONDS = 6.0
#: Of the status channel in these tests.
STREAM_BYTES = 1_048_576
#: Whose updates are more than that.
WIDE_ITEMS = 12_000
#: Of the stack, that run branches.
PROCESSES = 5
long = pytest.mark.long


@pytest.fixture(scope="module")
def stack() -> Iterator[ChaosStack]:
    with chaos_stack(direct=frozenset()) as started, pytest.MonkeyPatch.context() as patch:
        patch.setenv("STATUS_STREAM_MAX_BYTES", str(STREAM_BYTES))
        publish(started.database_url, kinds())
        started.start_workers()
        yield started


def frozen(seconds: float) -> Inject:
    """Redis answers nothing for so long."""

    def inject(stack: ChaosStack, _: random.Random) -> Injected:
        pid, began = stack.servers.valkey.pid, time.time()
        stack.signal_server(pid, signal.SIGSTOP)
        return Injected(
            "", began, ends=lambda: stack.signal_server(pid, signal.SIGCONT), ends_at=began + seconds, takes="redis"
        )

    return inject


def away(name: str, number: signal.Signals, seconds: float) -> Inject:
    """A server is ended by this signal, and starts again on its data after so long."""

    def inject(stack: ChaosStack, _: random.Random) -> Injected:
        server: EmbeddedValkey | EmbeddedPostgres = stack.servers.valkey if name == "redis" else stack.servers.postgres
        began = time.time()
        stack.signal_server(server.pid, number)
        server.stop()

        def back() -> None:
            server.start()
            server.wait_ready()

        return Injected("", began, ends=back, ends_at=began + seconds, takes=name)

    return inject


@pytest.mark.parametrize("seconds", [5.0, 20.0, pytest.param(60.0, marks=long)])
def test_a_frozen_redis_is_ridden_out(stack: ChaosStack, seconds: float) -> None:
    run_under(stack, Fault("frozen", 1, frozen(seconds), "redis"), BESIDE_SECONDS)


@pytest.mark.parametrize("seconds", [3.0, pytest.param(20.0, marks=long)])
def test_redis_restarts_with_messages_unacknowledged(stack: ChaosStack, seconds: float) -> None:
    run_under(stack, Fault("restarted", 1, away("redis", signal.SIGTERM, seconds), "redis"), BESIDE_SECONDS)


@dataclass(slots=True)
class StreamSeen:
    """What was seen of the status stream."""

    peak_bytes: int = 0
    #: When it last had more than half of what it may, seconds since 1970.
    half_full: float = 0.0


@contextmanager
def watching_stream(redis_url: str) -> Iterator[StreamSeen]:
    """Looks at the status stream for the time of the block."""
    seen, stopped, key = StreamSeen(), threading.Event(), KeySpace(NAMESPACE).key("status")

    def look() -> None:
        with closing(redis.Redis.from_url(redis_url, socket_timeout=5)) as client:
            while not stopped.wait(0.1):
                with suppress(redis.exceptions.RedisError):
                    size_bytes = int(client.memory_usage(key, samples=0) or 0)
                    seen.peak_bytes = max(seen.peak_bytes, size_bytes)
                    if size_bytes > STREAM_BYTES / 2:
                        seen.half_full = time.time()

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        stopped.set()
        thread.join()


def send_wide(stack: ChaosStack) -> str:
    """A run is at work everywhere whose updates are more than the status channel takes. Returns it."""
    from tasks import app, run_workflow  # noqa: PLC0415 - after the environment is set

    actions = {"first": step([], 0.0), "each": step(["first"], 0.002, for_each={"range": WIDE_ITEMS})}
    run, definition = str(uuid.uuid4()), {"name": "wide", "actions": actions}
    with app.connection_for_write(stack.redis_url) as connection:
        run_workflow.apply_async((definition, {}), task_id=run, connection=connection)
    # a process that has not loaded its version can do nothing for it while PostgreSQL is away
    wait_until(lambda: len({each.pid for each in items_of(stack, run)}) >= PROCESSES, "all processes are at it")
    return run


def items_of(stack: ChaosStack, run: str) -> list[Execution]:
    """Executions of its items."""
    return [each for each in executions(stack.journal) if each.run == run and each.task.startswith("each:")]


@pytest.mark.parametrize("seconds", [20.0, pytest.param(300.0, marks=[long, pytest.mark.timeout(900)])])
def test_postgresql_is_away(stack: ChaosStack, seconds: float) -> None:
    """Open runs go on, within the bound of the status channel; their updates are written when it is back."""
    wide = ""

    def inject(stack: ChaosStack, chance: random.Random) -> Injected | None:
        nonlocal wide
        wide = send_wide(stack)
        return away("postgres", signal.SIGQUIT, seconds)(stack, chance)

    with watching_stream(stack.redis_url) as seen:
        report = run_under(stack, Fault("away", 1, inject, "postgres"), BESIDE_SECONDS)
    (fault,) = report.faults
    print(  # noqa: T201
        f"PostgreSQL away for {seconds:g} s: stream peak {seen.peak_bytes} bytes of {STREAM_BYTES},"
        f" below half of that {seen.half_full - fault.over:.1f} s later, all ended {report.settled_seconds:.1f} s later"
    )
    assert STREAM_BYTES / 2 < seen.peak_bytes <= 1.5 * STREAM_BYTES  # what Redis itself needs for it, too
    with closing(psycopg2.connect(stack.database_url)) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT status, attempt, count(*) FROM tasks WHERE flow_session_id = %s AND item >= 0 GROUP BY 1, 2",
            (wide,),
        )
        assert cursor.fetchall() == [("succeeded", 1, WIDE_ITEMS)]
    assert len(items_of(stack, wide)) == WIDE_ITEMS


def test_a_slow_network_costs_time_only(stack: ChaosStack) -> None:
    """Measured when what was sent at first has had the time to end."""

    def delayed(seconds: float, lasts_seconds: float) -> Inject:
        def inject(stack: ChaosStack, _: random.Random) -> Injected:
            proxies = (stack.redis_proxy, stack.postgres_proxy)
            for proxy in proxies:
                proxy.delay_seconds = seconds / 2

            def end() -> None:
                for proxy in proxies:
                    proxy.heal()

            return Injected("", time.time(), ends=end, ends_at=time.time() + lasts_seconds)

        return inject

    rates = []
    for delay_seconds, lasts_seconds, measured_seconds in ((0.0, 8.0, 5.0), (SLOW_SECONDS, 22.0, 12.0)):
        fault = Fault(f"{delay_seconds} s", 1, delayed(delay_seconds, lasts_seconds))
        (injected,) = run_under(stack, fault, BESIDE_SECONDS, a_second=40.0).faults
        since = injected.over - measured_seconds
        rates.append(ended_between(stack.database_url, since, injected.over) / measured_seconds)
    print(f"runs/s with {SLOW_SECONDS:g} s more for each round trip: {rates[1]:.1f}, without {rates[0]:.1f}")  # noqa: T201
    assert rates[1] > 0


@long
@pytest.mark.timeout(900)
def test_all_of_redis_is_lost_with_a_thousand_runs_open(stack: ChaosStack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workload, "MOST_OPEN", 1000)
    monkeypatch.setattr(campaign, "MOST_PAUSE", 60.0)  # until the fault
    monkeypatch.setattr(campaign, "SETTLE_SECONDS", 600.0)
    report = campaign.break_things(stack, 1, 90.0, 60.0, [LOSE_REDIS], most=1)
    print(f"all ended {report.settled_seconds:.0f} s after the loss; run again {report.findings.again}")  # noqa: T201
    assert report.findings.holds, report.text()
