"""Actions of the campaign (ACTION_MODULES=tests.chaos.actions): each execution writes its start and end to a journal.

A line is `start` or `end`, flow session, task, attempt, seconds since 1970, process. A worker's clock may be wrong on
purpose: the time is the monotonic clock's, which all processes of a host share, and what the campaign says to add.
"""

from __future__ import annotations

import asyncio
import os
import time

from orchestration import ActionContext, action
from tests.support.journal import write_line

JOURNAL_VARIABLE = "CHAOS_JOURNAL"
#: Seconds from the start of the monotonic clock back to 1970.
EPOCH_VARIABLE = "CHAOS_EPOCH"


def note(ctx: ActionContext, kind: str) -> None:
    """Write a line to the journal: an execution starts or ends."""
    name = ctx.action if ctx.item is None else f"{ctx.action}:{ctx.item}"
    now = time.monotonic() + float(os.environ[EPOCH_VARIABLE])
    line = f"{kind} {ctx.flow_session_id} {name} {ctx.attempt} {now:.6f} {os.getpid()}"
    write_line(os.environ[JOURNAL_VARIABLE], line)


@action("chaos.work")
def work(ctx: ActionContext, seconds: float = 0.0) -> int:
    """Take so long."""
    note(ctx, "start")
    time.sleep(seconds)
    note(ctx, "end")
    return ctx.attempt


@action("chaos.work_async")
async def work_async(ctx: ActionContext, seconds: float = 0.0) -> int:
    """Take so long, beside others."""
    note(ctx, "start")
    await asyncio.sleep(seconds)
    note(ctx, "end")
    return ctx.attempt


@action("chaos.large")
def large(ctx: ActionContext, size_bytes: int) -> str:
    """Give a result of this size."""
    note(ctx, "start")
    note(ctx, "end")
    return "x" * size_bytes


@action("chaos.tell")
def tell(ctx: ActionContext) -> None:
    """Log a line, which is kept with the task."""
    note(ctx, "start")
    ctx.logger.warning("told")
    note(ctx, "end")


@action("chaos.fail")
def fail(ctx: ActionContext) -> None:
    """Fail, always."""
    note(ctx, "start")
    note(ctx, "end")
    raise RuntimeError("it fails as it was told to")


@action("chaos.flaky")
def flaky(ctx: ActionContext) -> int:
    """Fail in the first attempt."""
    note(ctx, "start")
    note(ctx, "end")
    if ctx.attempt == 1:
        raise ConnectionError("the first attempt")
    return ctx.attempt
