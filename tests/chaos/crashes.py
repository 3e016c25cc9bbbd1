"""Crashes at probes, one ticket each: a fleet that may crash at every probe does so where and when it is told to.

All workers have the same `CRASH_AT`: each probe at its first and at a later pass, with a ticket of its own. A ticket
that is given out is taken by the process that crashes, whose id and time are then known (telemetry/probes.py).
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from orchestration.telemetry.probes import PROBES
from tests.chaos.faults import Injected, kill_child
from tests.chaos.stack import ChaosStack
from tests.support.crashes import pool_processes

#: The passes at which a process crashes.
FIRST, LATER = 1, 3
LOOK_SECONDS: Final = 0.05
#: Times of files are so much too early at most: the kernel's clock for them ticks.
COARSE_SECONDS: Final = 0.01


@dataclass(slots=True)
class Crashes:
    """Gives tickets out and keeps the fleet running. `folder` is for nothing else, and short."""

    stack: ChaosStack
    folder: Path
    #: What was injected: crashes at probes, and other faults.
    injected: list[Injected] = field(default_factory=list)
    #: Tickets that were taken, by probe and pass; what kind of process it was.
    taken: dict[tuple[str, int], str] = field(default_factory=dict)
    #: Seconds that each theme took.
    seconds: dict[str, float] = field(default_factory=dict)
    _given: dict[Path, tuple[str, int]] = field(default_factory=dict)
    #: Processes of each worker that run actions, by the id of its main process.
    _pools: dict[int, set[int]] = field(default_factory=dict)

    def setting(self) -> str:
        """The setting CRASH_AT of every worker."""
        return ",".join(
            f"{probe}:{number}:{self._ticket(probe, number)}" for probe in sorted(PROBES) for number in (FIRST, LATER)
        )

    def crash(
        self,
        probes: Iterable[str],
        seconds: float,
        stimulus: Callable[[], object] | None = None,
        every_seconds: float = 0.5,
        number: int = FIRST,
    ) -> set[str]:
        """Let processes crash at these probes, each once.

        Args: seconds: it lasts so long at most. stimulus: what makes processes pass there, done again and again.
        Returns: the probes at which none did; they may yet.
        """
        wanted = {probe for probe in probes if (probe, number) not in self.taken}
        for probe in wanted:
            self.give(probe, number)
        end, due = time.monotonic() + seconds, 0.0
        while left := {probe for probe in wanted if (probe, number) not in self.taken}:
            if (now := time.monotonic()) > end:
                return left
            if stimulus is not None and now >= due:
                stimulus()
                due = time.monotonic() + every_seconds
            self.look()
            threading.Event().wait(LOOK_SECONDS)
        return set()

    def look(self) -> None:
        """Note who has crashed, and replace workers that have ended."""
        for worker in self.stack.workers:
            if worker.process is not None and worker.is_running():
                self._pools.setdefault(worker.process.pid, set()).update(pool_processes(worker))
        for ticket, key in list(self._given.items()):
            found = list(self.folder.glob(f"{ticket.name}.*"))
            if found:
                del self._given[ticket]
                self._note(key, int(found[0].suffix[1:]), found[0].stat().st_ctime + COARSE_SECONDS)
        self.stack.revive()

    def inject(self, fault: Injected | None) -> Injected | None:
        """Note a fault of another kind."""
        if fault is not None:
            fault.over = fault.over or time.time()
            self.injected.append(fault)
        return fault

    def kill_child(self) -> None:
        """A stimulus: main processes have to do with a lost child."""
        self.inject(kill_child(self.stack, random.Random()))

    def withdraw(self) -> None:
        """Take back the tickets that nobody has taken."""
        for ticket in self._given:
            ticket.unlink(missing_ok=True)
        self.look()
        self._given.clear()

    def covered(self) -> Collection[str]:
        """Probes at which a process crashed."""
        return {probe for probe, _ in self.taken}

    def note_client(self, probe: str) -> None:
        """A process that is no worker crashed there."""
        self.taken[probe, FIRST] = "client"

    def _ticket(self, probe: str, number: int) -> Path:
        return self.folder / f"{probe}@{number}"

    def give(self, probe: str, number: int = FIRST) -> None:
        """A process may crash there, also where one has before."""
        ticket = self._ticket(probe, number)
        if ticket not in self._given:
            self._given[ticket] = (probe, number)
            ticket.touch()

    def _note(self, key: tuple[str, int], pid: int, when: float) -> None:
        if pid in self._pools:
            kind, lost = "main", frozenset({pid, *self._pools[pid]})
        elif any(pid in pool for pool in self._pools.values()):
            kind, lost = "pool", frozenset({pid})
        else:
            kind, lost = "upkeep", frozenset({pid})
        self.taken[key] = kind
        self.injected.append(Injected(f"{key[0]}:{key[1]}", when, over=when, pids=lost))
