"""Actions that are cancelled (ACTION_MODULES=tests.support.cancelled_actions): they write when they began, or ended."""

from __future__ import annotations

import os
import time

from orchestration import ActionContext, Cancelled, action
from tests.support.journal import write_line


def _note(ctx: ActionContext, kind: str, journal: str) -> None:
    write_line(journal, f"{kind} {ctx.action} {ctx.attempt} {time.time():.6f} {os.getpid()}")


@action("test.note_cancelled")
def note_cancelled(ctx: ActionContext, journal: str) -> None:
    """Sleep until it is cancelled, clean up, and let it pass."""
    _note(ctx, "start", journal)
    try:
        time.sleep(600)
    except Cancelled:
        _note(ctx, "end", journal)
        raise


@action("test.note_cancelled_at_work")
def note_cancelled_at_work(ctx: ActionContext, journal: str) -> None:
    """Run Python, with short waits, until it is cancelled, clean up, and let it pass."""
    _note(ctx, "start", journal)
    try:
        while True:
            time.sleep(0.01)
    except Cancelled:
        _note(ctx, "end", journal)
        raise


@action("test.look_for_cancelled")
def look_for_cancelled(ctx: ActionContext, journal: str) -> str:
    """End by itself when it sees that it was cancelled, even if it is interrupted at that."""
    _note(ctx, "start", journal)
    while not ctx.cancelled:
        try:
            time.sleep(0.01)
        except Cancelled:
            continue
    _note(ctx, "end", journal)
    return "ended by itself"


@action("test.ignore_cancelled")
def ignore_cancelled(ctx: ActionContext, journal: str) -> None:
    """Go on whatever comes."""
    _note(ctx, "start", journal)
    while True:
        try:
            time.sleep(600)
        except Exception:  # noqa: BLE001 - that is the point
            continue
