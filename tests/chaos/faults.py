"""The faults of a campaign: each injects itself, and says what may have run again because of it, and when it is over.

A fault that lasts gives back what ends it, to be done later: others come meanwhile.
"""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import Final

import psycopg2
import redis

from orchestration.errors import ProcessorError
from parallelizer.services.supervision import LoggedProgram
from tests.chaos.stack import ChaosStack
from tests.support.crashes import kill, kill_worker, pool_processes, signal_worker

#: Longer than a lease: what a worker did that was frozen for so long is no longer its own.
ZOMBIE_SECONDS: Final = 22.0
#: Of the runs that are open, when some are cancelled.
CANCELLED_SHARE: Final = 0.3
#: By which a host's clock may be wrong.
WRONG_SECONDS: Final = (-3600.0, -90.0, -1.0, 0.0, 1.0, 90.0, 3600.0)
#: Where workers are quick, messages wait for moments.
WAITING_SECONDS: Final = 2.0
#: What a process had claimed begins yet, until its next call tells that it is nobody's.
UNHEARD_SECONDS: Final = 1.0
#: Longer than any action of the mix takes, and than the wait for a server that is away.
UPKEEP_SECONDS: Final = 40.0


@dataclass(slots=True)
class Injected:
    """One fault that was injected. Times in seconds since 1970."""

    kind: str
    began: float
    #: The service or process is back, or gone for good.
    over: float = 0.0
    #: Processes whose work may have been lost; empty: none.
    pids: frozenset[int] = frozenset()
    #: All of the fleet may have to do again what it did since then; 0: nothing.
    lost_since: float = 0.0
    #: What ends it, and when; None: it is over.
    ends: Callable[[], None] | None = None
    ends_at: float = 0.0
    #: Runs that were cancelled.
    cancelled: frozenset[str] = frozenset()
    #: Which server it takes away, or ''.
    takes: str = ""
    #: Runs may have to be sent again: a message that was never taken on may be gone.
    loses_messages: bool = False

    def end(self) -> None:
        """End it."""
        if self.ends is not None:
            self.ends()
            self.ends = None
        self.over = time.time()


Inject = Callable[[ChaosStack, random.Random], Injected | None]


@dataclass(frozen=True, slots=True)
class Fault:
    """A kind of fault. `inject` gives None where there is nothing to hit just now."""

    name: str
    weight: int
    inject: Inject
    #: Which server it takes away: of each, one fault at a time.
    takes: str = ""


@dataclass(slots=True)
class Schedule:
    """Chooses faults by weight; `under_way` are those that last."""

    faults: Sequence[Fault]
    chance: random.Random
    under_way: list[Injected] = field(default_factory=list)
    taken: dict[str, Injected] = field(default_factory=dict)

    def next(self, stack: ChaosStack) -> Injected | None:
        """Inject one; None: what was chosen can't be done now."""
        fault = self.chance.choices(self.faults, [each.weight for each in self.faults])[0]
        if fault.takes and fault.takes in self.taken:
            return None
        injected = fault.inject(stack, self.chance)
        if injected is None:
            return None
        injected.kind, injected.takes = fault.name, fault.takes
        if injected.ends is not None:
            self.under_way.append(injected)
            if fault.takes:
                self.taken[fault.takes] = injected
        else:
            injected.over = max(injected.over, time.time())
        return injected

    def end_due(self, now: float) -> list[Injected]:
        """End those whose time has come. Returns them."""
        due = [each for each in self.under_way if each.ends_at <= now]
        for injected in due:
            injected.end()
            self.under_way.remove(injected)
        self.taken = {name: each for name, each in self.taken.items() if each in self.under_way}
        return due


def began(**more: object) -> Injected:
    """A fault that begins now."""
    return Injected("", time.time(), **more)  # type: ignore[arg-type]


# Workers


def kill_child(stack: ChaosStack, chance: random.Random) -> Injected | None:
    """`kill -9` of a pool process."""
    worker = stack.running(chance)
    pids = pool_processes(worker) if worker is not None else []
    if not pids:
        return None
    injected = began()
    injected.pids = frozenset({kill(chance.choice(pids)).pid})
    return injected


def lose_host(stack: ChaosStack, chance: random.Random) -> Injected | None:
    """`kill -9` of a whole worker with all its processes; another takes its place."""
    worker = stack.running(chance)
    if worker is None:
        return None
    injected = began(pids=all_of(worker))
    kill_worker(worker)
    stack.replace_worker(worker)
    return injected


def kill_main(stack: ChaosStack, chance: random.Random) -> Injected | None:
    """`kill -9` of a worker's main process alone."""
    worker = stack.running(chance)
    if worker is None:
        return None
    injected = began(pids=all_of(worker))
    assert worker.process is not None
    worker.process.kill()
    worker.process.wait()
    stack.replace_worker(worker)
    # what was below it ends by itself: the pool at once, the upkeep process when it has written what it can
    injected.ends, injected.ends_at = worker.sweep, injected.began + UPKEEP_SECONDS
    return injected


def freeze_worker(seconds: float, *, loses: bool) -> Inject:
    """SIGSTOP of a whole worker, SIGCONT after so long."""

    def inject(stack: ChaosStack, chance: random.Random) -> Injected | None:
        worker = stack.running(chance)
        if worker is None or stack.frozen:
            return None
        injected = began(pids=all_of(worker) if loses else frozenset())
        signal_worker(worker, signal.SIGSTOP)
        stack.frozen.add(worker.name)

        def thaw() -> None:
            stack.frozen.discard(worker.name)
            with suppress(ProcessLookupError):
                signal_worker(worker, signal.SIGCONT)

        injected.ends, injected.ends_at = thaw, injected.began + seconds
        return injected

    return inject


def end_worker(number: signal.Signals, *, loses: bool) -> Inject:
    """A worker is told to end; another takes its place at once."""

    def inject(stack: ChaosStack, chance: random.Random) -> Injected | None:
        worker = stack.running(chance)
        if worker is None:
            return None
        injected = began(pids=all_of(worker) if loses else frozenset())
        worker.send(number)
        stack.replace_worker(worker)

        def swept() -> None:
            if worker.is_running():
                injected.pids = all_of(worker)
            worker.sweep()

        injected.ends, injected.ends_at = swept, injected.began + UPKEEP_SECONDS
        return injected

    return inject


def set_clock(stack: ChaosStack, chance: random.Random) -> Injected | None:
    """The clock of a worker's host is set to a time that is wrong."""
    if not stack.clocks:
        return None
    chance.choice([*stack.clocks.values()]).set(chance.choice(WRONG_SECONDS))
    return began()


def all_of(worker: LoggedProgram) -> frozenset[int]:
    """The processes of a worker in which actions may run."""
    assert worker.process is not None
    return frozenset({worker.process.pid, *pool_processes(worker)})


# Redis


def reset_connections(stack: ChaosStack, _: random.Random) -> Injected | None:
    """Every connection of a client is cut."""
    injected = began()
    with suppress(Exception), closing(stack.redis()) as client:
        client.client_kill_filter(_type="normal", skipme=True)
    return injected


def freeze_redis(stack: ChaosStack, chance: random.Random) -> Injected | None:
    """SIGSTOP of the server."""
    pid = stack.servers.valkey.pid
    injected = began()
    stack.signal_server(pid, signal.SIGSTOP)
    injected.ends = lambda: stack.signal_server(pid, signal.SIGCONT)
    injected.ends_at = injected.began + chance.choice((1.0, 5.0, 12.0))
    return injected


def restart_redis(*, hard: bool) -> Inject:
    """The server ends, in order or by `kill -9`, and is back after a while with what it had on disk."""

    def inject(stack: ChaosStack, chance: random.Random) -> Injected | None:
        server = stack.servers.valkey
        injected = began(lost_since=time.time() - 2 if hard else 0.0, loses_messages=hard)
        if hard:
            stack.signal_server(server.pid, signal.SIGKILL)
        server.stop()

        def back() -> None:
            server.start()
            server.wait_ready()

        injected.ends, injected.ends_at = back, time.time() + chance.choice((0.0, 3.0))
        return injected

    return inject


def lose_redis(stack: ChaosStack, _: random.Random) -> Injected | None:
    """All data of Redis is gone."""
    injected = began(loses_messages=True)
    injected.lost_since = injected.began - 10
    with closing(stack.redis()) as client:
        client.flushall()
    injected.over = time.time() + UNHEARD_SECONDS
    return injected


def lose_message(stack: ChaosStack, chance: random.Random) -> Injected | None:
    """A message that waits is gone: of a runner or of a completion."""
    injected = began()
    with suppress(Exception), closing(stack.redis(decode_responses=True)) as client:
        while time.time() - injected.began < WAITING_SECONDS:
            ours = [text for text in client.lrange("branches", 0, -1) if "tasks.run_workflow" not in text]
            if ours and client.lrem("branches", 1, str(chance.choice(ours))):
                return injected
    return None


def repeat_messages(stack: ChaosStack, chance: random.Random) -> Injected | None:
    """All messages that wait come twice, the second time in any order."""
    injected = began()
    with suppress(Exception), closing(stack.redis(decode_responses=True)) as client:
        while time.time() - injected.began < WAITING_SECONDS:
            if waiting := client.lrange("branches", 0, -1):
                client.lpush("branches", *chance.sample(waiting, len(waiting)))
                return injected
    return None


def fill_redis(stack: ChaosStack, chance: random.Random) -> Injected | None:
    """The server's memory is full: it refuses what would need more."""

    def bound(most_bytes: int) -> None:
        with closing(stack.redis()) as client:
            client.config_set("maxmemory", most_bytes)

    injected = began()
    with closing(stack.redis()) as client:
        used = int(client.info("memory")["used_memory"])
    bound(used)
    injected.ends, injected.ends_at = lambda: bound(0), injected.began + chance.uniform(1, 4)
    return injected


def drop_chords(stack: ChaosStack, _: random.Random) -> Injected | None:
    """What Celery keeps of chords under way is gone: how many parts there are, and which have come."""
    injected = began()
    with closing(stack.redis()) as client:
        names = [name for name in client.scan_iter("celery-taskset-meta-*", count=1000) if b".header" in name]
        if names and client.delete(*names):
            return injected
    return None


def cancel_runs(stack: ChaosStack, chance: random.Random) -> Injected | None:
    """Some of the runs that are open are cancelled."""
    from tasks import cancel_session  # noqa: PLC0415 - after the environment is set

    with suppress(psycopg2.Error), closing(psycopg2.connect(stack.database_url, connect_timeout=2)) as connection:
        with connection.cursor() as cursor:
            cursor.execute("SELECT flow_session_id FROM flow_sessions WHERE finished_at IS NULL")
            found = [row[0] for row in cursor.fetchall()]
        chosen = [run for run in found if chance.random() < CANCELLED_SHARE]
        injected = began(cancelled=frozenset(chosen))
        for run in chosen:
            with suppress(ProcessorError, redis.exceptions.RedisError):
                cancel_session(run, waits=False)
        return injected if chosen else None
    return None


# PostgreSQL


def only_read(stack: ChaosStack, chance: random.Random) -> Injected | None:
    """As in a fail-over: connections are cut, and the server takes no writes for a while."""

    def set_to(value: str) -> None:
        with closing(psycopg2.connect(stack.database_url, connect_timeout=5)) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute("SET default_transaction_read_only = off")
                cursor.execute(f"ALTER SYSTEM SET default_transaction_read_only = {value}")
                cursor.execute("SELECT pg_reload_conf()")

    injected = began()
    set_to("on")
    cut_postgres(stack, chance)
    injected.ends, injected.ends_at = lambda: set_to("off"), injected.began + chance.uniform(1, 5)
    return injected


def crash_postgres(stack: ChaosStack, chance: random.Random) -> Injected | None:
    """An immediate stop; it replays its log when it is back."""
    server = stack.servers.postgres
    injected = began()
    stack.signal_server(server.pid, signal.SIGQUIT)
    server.stop()

    def back() -> None:
        server.start()
        server.wait_ready()

    injected.ends, injected.ends_at = back, time.time() + chance.uniform(0, 4)
    return injected


def cut_postgres(stack: ChaosStack, _: random.Random) -> Injected | None:
    """Every connection of a worker is cut."""
    injected = began()
    with suppress(psycopg2.Error), closing(psycopg2.connect(stack.database_url, connect_timeout=2)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name LIKE 'parallelizer%' AND pid <> pg_backend_pid()"
            )
    return injected


#: Where libfaketime is found.
CLOCK_SET: Final = "clock of a host set"
FAULTS: Final = (
    Fault("child killed", 30, kill_child),
    Fault("host lost", 4, lose_host),
    Fault("main process killed", 3, kill_main),
    Fault("worker frozen 3 s", 4, freeze_worker(3.0, loses=False)),
    Fault("zombie worker", 3, freeze_worker(ZOMBIE_SECONDS, loses=True)),
    Fault("rolling restart", 4, end_worker(signal.SIGTERM, loses=False)),
    Fault("cold shutdown", 3, end_worker(signal.SIGQUIT, loses=True)),
    Fault(CLOCK_SET, 4, set_clock),
    Fault("connections to Redis reset", 10, reset_connections, "redis"),
    Fault("Redis frozen", 4, freeze_redis, "redis"),
    Fault("Redis restarted", 3, restart_redis(hard=False), "redis"),
    Fault("Redis killed", 3, restart_redis(hard=True), "redis"),
    Fault("message lost", 6, lose_message, "redis"),
    Fault("messages repeated", 6, repeat_messages, "redis"),
    Fault("Redis full", 3, fill_redis, "redis"),
    Fault("chord keys deleted", 4, drop_chords, "redis"),
    Fault("runs cancelled", 3, cancel_runs, "redis"),
    Fault("PostgreSQL only reads", 3, only_read, "postgres"),
    Fault("PostgreSQL crashed", 5, crash_postgres, "postgres"),
    Fault("connections to PostgreSQL cut", 8, cut_postgres, "postgres"),
)
#: One that needs the record to begin anew.
LOSE_REDIS: Final = Fault("all of Redis lost", 1, lose_redis, "redis")
