"""Faults of the network between the workers and their servers, by the proxies that stand there."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from tests.chaos.faults import Fault, Inject, Injected, all_of
from tests.chaos.stack import ChaosStack
from tests.support.proxy import Cuts, Proxy

#: Calls that change something in Redis: scripts, transactions, and the sending of a message.
REDIS_CHANGES: Final = (b"EVALSHA\r\n", b"EVAL\r\n", b"EXEC\r\n", b"LPUSH\r\n")
#: Statements after which a change is in the record: a COMMIT, and those that commit themselves.
POSTGRES_CHANGES: Final = (b"COMMIT\0", b"INSERT INTO", b"UPDATE ")
#: Added to each round trip, seconds.
SLOW_SECONDS: Final = 0.2
#: A connection that is silent for longer is given up.
SILENT_SECONDS: Final = 8.0


def cut_connections(seconds: float, share: float, *, server: str) -> Inject:
    """Connections are cut at a share of the calls that change something: the reply is lost, or in part the request."""

    def inject(stack: ChaosStack, chance: random.Random) -> Injected:
        marks, forwarded = (REDIS_CHANGES, 1.0) if server == "redis" else (POSTGRES_CHANGES, 0.7)
        cuts = Cuts(marks, share, random.Random(chance.getrandbits(64)), forwarded)
        stack.cuts.append(cuts)
        return _lasting(_proxy(stack, server), seconds, lambda proxy: proxy.cut_at(cuts))

    return inject


def delay_all(stack: ChaosStack, chance: random.Random) -> Injected:
    """Each round trip, to both servers, takes `SLOW_SECONDS` longer."""
    for proxy in (stack.redis_proxy, stack.postgres_proxy):
        proxy.delay_seconds = SLOW_SECONDS / 2

    def end() -> None:
        stack.redis_proxy.heal()
        stack.postgres_proxy.heal()

    began = time.time()
    return Injected("", began, ends=end, ends_at=began + chance.uniform(3, 8))


def silence(server: str) -> Inject:
    """The network to a server swallows everything, and tells nobody."""

    def inject(stack: ChaosStack, _: random.Random) -> Injected:
        injected = _lasting(_proxy(stack, server), SILENT_SECONDS, Proxy.go_silent)
        if server == "redis":
            # with what a worker needs to notice, it is longer than a lease: others go on with what these are at
            cut = [worker for place, worker in enumerate(stack.workers) if place not in stack.direct]
            injected.pids = frozenset().union(*(all_of(worker) for worker in cut if worker.is_running()))
        return injected

    return inject


def close_halves(server: str) -> Inject:
    """Of each connection the server's half is closed; what is sent there still arrives, and is carried out."""

    def inject(stack: ChaosStack, _: random.Random) -> Injected:
        injected = Injected("", time.time())
        _proxy(stack, server).half_close()
        return injected

    return inject


def _proxy(stack: ChaosStack, server: str) -> Proxy:
    return stack.redis_proxy if server == "redis" else stack.postgres_proxy


def _lasting(proxy: Proxy, seconds: float, do: Callable[[Proxy], None]) -> Injected:
    injected = Injected("", time.time())
    do(proxy)
    return replace(injected, ends=proxy.heal, ends_at=injected.began + seconds)


FAULTS: Final = (
    Fault("replies of Redis lost", 6, cut_connections(5.0, 0.05, server="redis"), "redis"),
    Fault("outcome of COMMIT unknown", 6, cut_connections(5.0, 0.2, server="postgres"), "postgres"),
    Fault("slow network", 4, delay_all, "redis"),
    Fault("silent network to Redis", 3, silence("redis"), "redis"),
    Fault("silent network to PostgreSQL", 3, silence("postgres"), "postgres"),
    Fault("half of each connection to Redis closed", 5, close_halves("redis"), "redis"),
)
