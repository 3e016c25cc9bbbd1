"""Faults of the network between a worker's host and the servers (tests/support/hosts.py)."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final

from tests.chaos.audit import Execution
from tests.chaos.faults import Fault, Inject, Injected, all_of, began
from tests.chaos.stack import ChaosStack


def cut(*servers: str, seconds: float, loses: bool, resets: bool = False) -> Inject:
    """A host does not reach these servers (redis, postgres) for so long, or is told that nobody listens.

    Args: loses: others may take its work over.
    """

    def inject(stack: ChaosStack, chance: random.Random) -> Injected | None:
        place = chance.choice([*stack.hosts])
        host, worker = stack.hosts[place], stack.workers[place]
        injected = began(pids=all_of(worker) if loses else frozenset())
        injected.began -= UNSENT_SECONDS if loses else 0.0
        host.cut(*(stack.ports[name] for name in servers), resets=resets)

        def heal() -> None:
            host.heal()
            if loses:
                injected.pids |= all_of(stack.workers[place])  # it may be another one by now

        injected.ends, injected.ends_at = heal, injected.began + seconds
        return injected

    return inject


def lose_packets(share: float, seconds: float) -> Inject:
    """Packets of all hosts are lost; a lease may be over before its renewal has come through."""

    def inject(stack: ChaosStack, _: random.Random) -> Injected | None:
        injected = began(pids=frozenset().union(*(all_of(stack.workers[place]) for place in stack.hosts)))
        for host in stack.hosts.values():
            host.lose(share)

        def heal() -> None:
            for host in stack.hosts.values():
                host.heal()

        injected.ends, injected.ends_at = heal, injected.began + seconds
        return injected

    return inject


#: What was sent this long before a cut may not have arrived: the machine, and the relay, may be busy.
UNSENT_SECONDS: Final = 1.0
#: One host at a time.
CABLE: Final = "cable"
#: For a campaign whose hosts have cables: any of them may outlast a lease when other faults come besides.
CABLES: Final = (
    Fault("host without Redis 22 s", 4, cut("redis", seconds=22.0, loses=True), CABLE),
    Fault("host without PostgreSQL 22 s", 4, cut("postgres", seconds=22.0, loses=True), CABLE),
    Fault("host without network 5 s", 6, cut("redis", "postgres", seconds=5.0, loses=True), CABLE),
    Fault("host refused 5 s", 4, cut("redis", "postgres", seconds=5.0, loses=True, resets=True), CABLE),
    Fault("30 % of packets lost 5 s", 4, lose_packets(0.3, 5.0), CABLE),
)


def fault(name: str, inject: Inject) -> Fault:
    """A fault to be tried alone."""
    return Fault(name, 1, inject)


@dataclass(frozen=True, slots=True)
class Takeover:
    """What became of the work of a host that was cut off."""

    #: Seconds from the cut until work of it began elsewhere, for each such task.
    after: tuple[float, ...]
    #: Executions of one task that ran at the same time.
    overlapping: int
    #: Executions that began on the host when its lease was over and the cut was not.
    begun_late: int


def takeover(runs: list[Execution], cut_off: Injected, lease_seconds: float) -> Takeover:
    """Look into the journal, after the audit."""
    began_at, over = cut_off.began, cut_off.over
    there = [each for each in runs if each.pid in cut_off.pids]
    after, overlapping = [], 0
    for each in there:
        if each.started > over:
            continue
        others = [
            other for other in runs
            if (other.run, other.task) == (each.run, each.task) and other.pid not in cut_off.pids
            and other.started >= began_at
        ]  # fmt: skip
        after += [other.started - began_at for other in others[:1]]
        overlapping += sum(other.started < (each.ended or over) for other in others)
    late = sum(began_at + lease_seconds < each.started < over for each in there)
    return Takeover(tuple(after), overlapping, late)
