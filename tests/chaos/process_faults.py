"""Faults of single processes of a worker, and status updates that can't be recorded."""

from __future__ import annotations

import os
import random
import signal
import time
import uuid
from contextlib import closing, suppress
from itertools import chain
from typing import Final

from orchestration.state.keys import KeySpace
from tests.chaos.faults import UPKEEP_SECONDS, Fault, Injected, all_of, began
from tests.chaos.stack import NAMESPACE, ChaosStack
from tests.support.crashes import is_running, kill, pool_processes, quit_at_once, upkeep_process

#: Shorter than a lease: nobody takes the worker for lost.
STANDS_STILL_SECONDS: Final = 4.0
#: A process that was told to end has ended, or what it was in has begun again, within this.
ENDS_SECONDS: Final = 5.0


def end_child(stack: ChaosStack, chance: random.Random) -> Injected | None:
    """SIGTERM to a pool process, as of a service manager that tells all processes."""
    worker = stack.running(chance)
    pids = pool_processes(worker) if worker is not None else []
    if not pids:
        return None
    pid = chance.choice(pids)
    injected = began(pids=frozenset({pid}))
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)

    def gone() -> None:
        if is_running(pid):  # its action took no notice
            kill(pid)

    injected.ends, injected.ends_at = gone, injected.began + ENDS_SECONDS
    return injected


def _some_upkeep(stack: ChaosStack, chance: random.Random) -> int | None:
    worker = stack.running(chance)
    return upkeep_process(worker) if worker is not None else None


def kill_upkeep(stack: ChaosStack, chance: random.Random) -> Injected | None:
    """`kill -9` of an upkeep process."""
    pid = _some_upkeep(stack, chance)
    if pid is None:
        return None
    injected = began()
    kill(pid)
    return injected


def stop_upkeep(stack: ChaosStack, chance: random.Random) -> Injected | None:
    """SIGSTOP of an upkeep process; its worker replaces it."""
    pid = _some_upkeep(stack, chance)
    if pid is None:
        return None
    injected = began()
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGSTOP)
    return injected


def stop_main(stack: ChaosStack, chance: random.Random) -> Injected | None:
    """SIGSTOP of a worker's main process alone, SIGCONT after a while."""
    worker = stack.running(chance)
    if worker is None or stack.frozen:
        return None
    injected = began()
    worker.send(signal.SIGSTOP)
    stack.frozen.add(worker.name)

    def go_on() -> None:
        stack.frozen.discard(worker.name)
        worker.send(signal.SIGCONT)

    injected.ends, injected.ends_at = go_on, injected.began + STANDS_STILL_SECONDS
    return injected


def quit_worker(stack: ChaosStack, chance: random.Random) -> Injected | None:
    """A cold shutdown that does not wait for branches; another worker takes its place."""
    worker = stack.running(chance)
    if worker is None:
        return None
    injected = began(pids=all_of(worker))
    quit_at_once(worker)
    stack.replace_worker(worker)
    injected.ends, injected.ends_at = worker.sweep, injected.began + UPKEEP_SECONDS
    return injected


def write_bad_updates(stack: ChaosStack, _: random.Random) -> Injected | None:
    """Two entries in the status stream: one that can't be read, one whose row PostgreSQL refuses."""
    injected = began()
    session, day = str(uuid.uuid4()), time.strftime("%Y-%m-%d", time.gmtime())
    head = {"d": day, "t": str(int(time.time() * 1e6)), "w": "nobody"}
    row = '[["t","bad",-1,"succeeded",1,100005,"branches",null,null,"no JSON",null]]'
    with suppress(Exception), closing(stack.redis()) as client:
        stream = KeySpace(NAMESPACE).key("status")
        client.execute_command("XADD", stream, "*", *chain(*head.items()), "b", row)
        client.execute_command("XADD", stream, "*", "s", session, *chain(*head.items()), "b", row)
        return injected
    return None


FAULTS: Final = (
    Fault("child told to end", 6, end_child),
    Fault("upkeep process killed", 3, kill_upkeep),
    Fault("upkeep process stopped", 2, stop_upkeep),
    Fault("main process stopped", 2, stop_main),
    Fault("cold shutdown at once", 2, quit_worker),
    Fault("bad status updates", 3, write_bad_updates, "redis"),
)
