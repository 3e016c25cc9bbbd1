"""Actions that log (ACTION_MODULES=tests.support.logging_actions), in all ways that an action may."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from pathlib import Path

from orchestration import ActionContext, action

_log = logging.getLogger("shop.orders")
SECRET = "canary-5f1b"


@action("logs.plain")
def plain(ctx: ActionContext, text: str = "sold") -> str:
    """By a logger of one's own, by `ctx.logger`, and by the latter from another thread."""
    _log.info("%s 3, password=%s", text, SECRET, extra={"sku": 7, "api_token": SECRET})
    ctx.logger.warning("%s slowly", text)
    thread = threading.Thread(target=ctx.logger.info, args=("from another thread",))
    thread.start()
    thread.join()
    return text


@action("logs.item")
def item(number: int) -> int:
    """One line, with the number of the item; without `ctx`."""
    _log.info("item %d", number)
    return number


@action("logs.wait")
async def wait(number: int) -> int:
    """Lines of actions that wait beside each other: before and after, also from a thread and a task of its own."""
    _log.info("before %d", number)
    await asyncio.sleep(0.05)
    await asyncio.to_thread(_log.info, "thread %d", number)
    await asyncio.create_task(_after(number))
    return number


async def _after(number: int) -> None:
    _log.info("after %d", number)


@action("logs.fails")
def fails(ctx: ActionContext) -> None:
    """Log a traceback, then fail; the second attempt ends well."""
    try:
        int("no number")
    except ValueError:
        _log.exception("attempt %d token=%s", ctx.attempt, SECRET)
    if ctx.attempt == 1:
        raise RuntimeError("the first time")


@action("logs.many")
def many(lines: int) -> None:
    """So many lines."""
    for number in range(lines):
        _log.info("line %d", number)


@action("logs.until")
def until(path: str) -> None:
    """A line, and another one when there is a file."""
    _log.info("waiting")
    while not Path(path).exists():
        time.sleep(0.02)
    _log.info("seen")
