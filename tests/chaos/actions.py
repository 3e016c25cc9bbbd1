"""Actions of the campaign (ACTION_MODULES=tests.chaos.actions): each execution writes its start and end to a journal.

A line is `start` or `end`, flow session, task, attempt, seconds since 1970, process.
"""

from __future__ import annotations

import asyncio
import os
import time

from orchestration import ActionContext, action
from tests.support.journal import write_line

JOURNAL_VARIABLE = "CHAOS_JOURNAL"


def _note(ctx: ActionContext, kind: str) -> None:
    name = ctx.action if ctx.item is None else f"{ctx.action}:{ctx.item}"
    line = f"{kind} {ctx.flow_session_id} {name} {ctx.attempt} {time.time():.6f} {os.getpid()}"
    write_line(os.environ[JOURNAL_VARIABLE], line)


@action("chaos.work")
def work(ctx: ActionContext, seconds: float = 0.0) -> int:
    """Take so long."""
    _note(ctx, "start")
    time.sleep(seconds)
    _note(ctx, "end")
    return ctx.attempt


@action("chaos.work_async")
async def work_async(ctx: ActionContext, seconds: float = 0.0) -> int:
    """Take so long, beside others."""
    _note(ctx, "start")
    await asyncio.sleep(seconds)
    _note(ctx, "end")
    return ctx.attempt


@action("chaos.large")
def large(ctx: ActionContext, size_bytes: int) -> str:
    """Give a result of this size."""
    _note(ctx, "start")
    _note(ctx, "end")
    return "x" * size_bytes


@action("chaos.fail")
def fail(ctx: ActionContext) -> None:
    """Fail, always."""
    _note(ctx, "start")
    _note(ctx, "end")
    raise RuntimeError("it fails as it was told to")


@action("chaos.flaky")
def flaky(ctx: ActionContext) -> int:
    """Fail in the first attempt."""
    _note(ctx, "start")
    _note(ctx, "end")
    if ctx.attempt == 1:
        raise ConnectionError("the first attempt")
    return ctx.attempt
