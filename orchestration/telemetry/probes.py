"""Probes: named points between two steps at which tests let a process die. Every probe is declared here, once.

`CRASH_AT=<probe>:<n>`, or several of these with commas between them: the process that passes the probe for the n-th
time kills itself there (SIGKILL: nothing is cleaned up, as in a crash). Each process counts for itself; one
that is forked goes on from where the other was. A process that is started again would crash again at the same place; so

    CRASH_AT=<probe>:<n>:<ticket>

crashes only while the file `ticket` exists, counts from then on, and renames it to `<ticket>.<process id>`: of all
processes that have this setting one crashes, once, and who gives tickets out knows which one did, and when.

A probe costs the call of a function while there is no such setting: 0.1 µs on a busy machine. Probes stand around
whatever changes something outside the process: scripts, statements, messages, files. What a crash costs is decided
there; inside a script or a transaction there is nothing to be seen, since it happens whole or not at all.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable
from functools import wraps
from pathlib import Path
from typing import Final, ParamSpec, TypeVar

from config.settings import WrongSetting

P = ParamSpec("P")
T = TypeVar("T")

#: Each has two probes, `<step>.before` and `<step>.after`.
STEPS: Final = (
    # scripts of live state
    "script.beat_worker", "script.begin_epoch", "script.cancel_session", "script.checkpoint_step",
    "script.close_session", "script.count_unheeded", "script.expire_leases", "script.expire_runner",
    "script.flush_chunk", "script.heed_cancel", "script.hold_message", "script.hold_sessions", "script.open_session",
    "script.pause_sessions", "script.reap_sessions", "script.record_rows", "script.release_delivery",
    "script.release_message", "script.resend_runners", "script.resume_sessions", "script.set_limit",
    "script.settle_branch", "script.settle_overdue", "script.start_runner", "script.stop_worker",
    "script.take_rate", "script.take_up_sessions", "script.wake_sessions",
    # plain commands to Redis that change something
    "redis.forget_checkpoints", "redis.acknowledge_updates",
    # statements and transactions of PostgreSQL that change something
    "sql.insert_session", "sql.set_status", "sql.finish_session", "sql.write_rows", "sql.put_result",
    "sql.register_version", "sql.begin_epoch", "sql.note_cancelled", "sql.accept_retry", "sql.ensure_partitions",
    "sql.drop_old_partitions", "sql.write_task_logs", "sql.add_sample",
    # messages that are sent
    "publish.runners", "publish.completion", "publish.chord", "publish.take_up", "publish.delivery_again",
    # messages that a worker takes, settles or gives back
    "delivery.copies", "delivery.take", "delivery.settle", "delivery.give_back", "delivery.renew", "delivery.held",
    "delivery.lost",
    # spans of status updates that are written
    "spans.send",
    # what Redis does not take
    "fallback.keep", "spool.append",
)  # fmt: skip
#: Single ones, where the order within a process matters.
POINTS: Final = (
    "result.ready",  # the end is recorded and the session closed; nothing that follows is called
    "result.stored",  # the caller has its result; the message is not settled
    "chord.count",  # some parts of a chord are counted
    "rebuild.done",  # it is known what a lost session has done; nothing is written
    "upkeep.woken",  # what has waited is ready; its runners are not published
    "upkeep.expired",  # something was given up; who takes over is not published
    "reaper.found",  # something is repaired; what follows from it is not published
    "rehydration.dropping",  # some of the live state that can't be trusted is dropped
    "spool.written",  # a record is in the file, perhaps not on the disk
    "spool.replayed",  # a file is in PostgreSQL, and not removed
)
PROBES: Final = frozenset({*(f"{step}.{side}" for step in STEPS for side in ("before", "after")), *POINTS})


class _Crash:
    """One place to crash at."""

    def __init__(self, number: int, ticket: Path | None) -> None:
        self._number = number
        self._ticket = ticket
        self._passed = 0

    def passed(self) -> None:
        if self._ticket is not None and not self._ticket.exists():
            return
        self._passed += 1
        if self._passed < self._number:
            return
        if self._ticket is not None:
            try:
                self._ticket.rename(f"{self._ticket}.{os.getpid()}")
            except FileNotFoundError:  # another process was first
                return
        os.kill(os.getpid(), signal.SIGKILL)


_crashes: dict[str, list[_Crash]] = {}
_setting = ""


def probe(name: str) -> None:
    """A point that a process passes; it may die here."""
    if _crashes:
        for crash in _crashes.get(name, ()):
            crash.passed()


def probed(step: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Probes before and after each call of a function that returns."""
    before, after = f"{step}.before", f"{step}.after"

    def with_probes(function: Callable[P, T]) -> Callable[P, T]:
        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> T:
            probe(before)
            result = function(*args, **kwargs)
            probe(after)
            return result

        return call

    return with_probes


def crash_at(setting: str) -> None:
    """This process, and those forked from it, crash where `setting` says (CRASH_AT); nowhere when it is empty.

    Raises: WrongSetting: it names no probe, or no number.
    """
    global _setting  # noqa: PLW0603 - it is the process's
    if setting == _setting:
        return  # counts go on
    _crashes.clear()
    _setting = setting
    for name, crash in _parsed(part for part in setting.split(",") if part.strip()):
        _crashes.setdefault(name, []).append(crash)


def _parsed(parts: Iterable[str]) -> list[tuple[str, _Crash]]:
    found = []
    for part in parts:
        name, _, rest = part.strip().partition(":")
        number, _, ticket = rest.partition(":")
        if name not in PROBES:
            raise WrongSetting(f"CRASH_AT: there is no probe {name!r}; there are {', '.join(sorted(PROBES))}")
        if not number.isascii() or not number.isdecimal() or int(number) < 1:
            raise WrongSetting(f"CRASH_AT: {part.strip()!r} must be <probe>:<n> or <probe>:<n>:<file>, n from 1 on")
        found.append((name, _Crash(int(number), Path(ticket) if ticket else None)))
    return found
