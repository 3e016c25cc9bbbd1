"""Actions that do not end by themselves (ACTION_MODULES=tests.support.overrunning): what a time limit has to end."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import time

from orchestration import action


@action("test.sleeping")
def sleeping(seconds: float) -> None:
    """Wait in C, in a call that a signal ends."""
    time.sleep(seconds)


@action("test.computing")
def computing(seconds: float) -> int:
    """Keep the processor busy with Python."""
    end, rounds = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        rounds += 1
    return rounds


@action("test.receiving")
def receiving(port: int) -> bytes:
    """Wait for a server that never says anything."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        return connection.recv(1)


@action("test.swallowing")
def swallowing(seconds: float) -> str:
    """Take every Exception for a fault to be tried again."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(Exception):
            time.sleep(0.05)
    return "late"


@action("test.cleaning_up")
def cleaning_up(seconds: float, clean_seconds: float) -> str:
    """Clean up, within the grace, when its time is over, and give something all the same."""
    try:
        time.sleep(seconds)
    except Exception:  # noqa: BLE001 - as users write it
        time.sleep(clean_seconds)
    return "late"


@action("test.awaiting")
async def awaiting(seconds: float) -> None:
    """Wait beside others."""
    await asyncio.sleep(seconds)


@action("test.never_cancelled")
async def never_cancelled(seconds: float) -> str:
    """Take no notice of being cancelled."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(1)
    return "late"


@action("test.awaiting_cleaning_up")
async def awaiting_cleaning_up(seconds: float, clean_seconds: float) -> str:
    """Clean up when it is cancelled, and give something all the same."""
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        await asyncio.sleep(clean_seconds)
    return "late"


@action("test.computing_on_loop")
async def computing_on_loop(seconds: float) -> int:
    """Keep the event loop busy with Python."""
    await asyncio.sleep(0)
    return computing(seconds)


@action("test.sleeping_on_loop")
async def sleeping_on_loop(seconds: float) -> None:
    """Keep the event loop from running anything else, in C."""
    await asyncio.sleep(0)
    time.sleep(seconds)  # noqa: ASYNC251 - as users write it


@action("test.stuck_in_c")
def stuck_in_c(seconds: float) -> None:
    """Wait in C whatever signal comes, as a library that does not come back."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGALRM, signal.SIGUSR1))
    try:
        time.sleep(seconds)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
