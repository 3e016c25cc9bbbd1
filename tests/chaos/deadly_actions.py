"""Actions that take their process down or keep it (ACTION_MODULES=tests.chaos.deadly_actions)."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import time
from pathlib import Path

from orchestration import ActionContext, action
from tests.chaos.actions import note

MEGABYTE = 1024 * 1024
#: No test waits so long for an action that nothing ends, seconds.
FOREVER = 120.0


@action("chaos.exit")
def exit_at_once(ctx: ActionContext, code: int) -> None:
    """End the process, as a library does that calls `exit`."""
    note(ctx, "start")
    os._exit(code)


@action("chaos.segfault")
def segfault(ctx: ActionContext) -> None:
    """Read from address 0."""
    note(ctx, "start")
    ctypes.string_at(0)


@action("chaos.exit_for")
def exit_for(ctx: ActionContext, item: int, code: int) -> int:
    """End the process at this item of a `for_each`."""
    note(ctx, "start")
    if ctx.item == item:
        os._exit(code)
    note(ctx, "end")
    return ctx.attempt


@action("chaos.greedy")
def greedy(ctx: ActionContext, group: str, megabytes: int) -> int:
    """Use so much memory, as soon as the process is in this cgroup."""
    note(ctx, "start")
    while group not in Path("/proc/self/cgroup").read_text():
        time.sleep(0.01)
    taken = [bytearray(os.urandom(1)) * MEGABYTE for _ in range(megabytes)]
    note(ctx, "end")
    return len(taken)


@action("chaos.swallow")
def swallow(ctx: ActionContext) -> str:
    """Take every Exception for a fault to be tried again."""
    note(ctx, "start")
    end = time.monotonic() + FOREVER
    while time.monotonic() < end:
        with contextlib.suppress(Exception):
            time.sleep(0.05)
    note(ctx, "end")
    return "late"


@action("chaos.loop_in_c")
def loop_in_c(ctx: ActionContext) -> int:
    """Compute in C with Python's global lock held, and never look at signals."""
    note(ctx, "start")
    return sum(itertools.repeat(1, 10**13))


@action("chaos.held")
def held(ctx: ActionContext, folder: str) -> int:
    """Return when `<folder>/<action>` exists, or `<folder>/<action>:<item>`."""
    note(ctx, "start")
    name = ctx.action if ctx.item is None else f"{ctx.action}:{ctx.item}"
    end = time.monotonic() + FOREVER
    while not (Path(folder) / name).exists() and not (Path(folder) / "all").exists():
        if time.monotonic() > end:
            raise TimeoutError(name)
        time.sleep(0.01)
    note(ctx, "end")
    return ctx.attempt
