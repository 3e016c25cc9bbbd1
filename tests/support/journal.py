"""Actions for tests (ACTION_MODULES=tests.support.journal); each execution writes a line to a journal."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

from orchestration import ActionContext, action


def write_line(path: str, text: str) -> None:
    """Append a line at once and whole: O_APPEND keeps lines of several processes apart."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, f"{text}\n".encode())
    finally:
        os.close(descriptor)


def read_journal(path: Path) -> list[tuple[str, str, int, float, int]]:
    """(start or end, task, attempt, time, process) of each line."""
    if not path.exists():
        return []
    lines = [line.split() for line in path.read_text().splitlines()]
    return [(kind, task, int(attempt), float(when), int(pid)) for kind, task, attempt, when, pid in lines]


def _note(ctx: ActionContext, kind: str, journal: str) -> str:
    name = ctx.action if ctx.item is None else f"{ctx.action}:{ctx.item}"
    write_line(journal, f"{kind} {name} {ctx.attempt} {time.time():.6f} {os.getpid()}")
    return name


@action("test.record")
def record(ctx: ActionContext, journal: str, outcome: str = "success", seconds: float = 0.0) -> str:
    """Write start and end to the journal; fail where told to."""
    name = _note(ctx, "start", journal)
    if seconds:
        time.sleep(seconds)
    _note(ctx, "end", journal)
    if outcome == "fail":
        raise RuntimeError(f"{name} fails as it was told to")
    return name


@action("test.mendable")
def mendable(ctx: ActionContext, journal: str, outcome: str = "fail", seconds: float = 0.0) -> str:
    """As `test.record`, but what is told to fail does so only until the journal is mended."""
    return record(ctx, journal, "success" if Path(f"{journal}.mended").exists() else outcome, seconds)


def mend(journal: str | Path) -> None:
    """From now on `test.mendable` succeeds."""
    Path(f"{journal}.mended").touch()


@action("test.fail_first")
def fail_first(ctx: ActionContext, journal: str, times: int) -> int:
    """Fail in the first attempts."""
    _note(ctx, "start", journal)
    if ctx.attempt <= times:
        raise ConnectionError(f"attempt {ctx.attempt}")
    return ctx.attempt


@action("test.die")
def die(ctx: ActionContext, journal: str, times: int) -> int:
    """Take the whole process down, as a segmentation fault would, in the first attempts."""
    _note(ctx, "start", journal)
    if ctx.attempt <= times:
        os._exit(9)
    _note(ctx, "end", journal)
    return ctx.attempt


@action("test.unserialisable")
def unserialisable() -> object:
    """Return what JSON can't hold."""
    return object()


@action("test.large")
def large(size_bytes: int) -> str:
    """Return a text of this size."""
    return "x" * size_bytes


@action("test.base_exception")
def base_exception(kind: str) -> None:
    """Raise something that is no Exception."""
    raise {"SystemExit": SystemExit, "KeyboardInterrupt": KeyboardInterrupt, "GeneratorExit": GeneratorExit}[kind](
        "told to"
    )


@action("test.await")
async def await_value(value: object) -> object:
    """Return the value, from a coroutine."""
    return value


@action("test.record_async")
async def record_async(ctx: ActionContext, journal: str, outcome: str = "success", seconds: float = 0.0) -> str:
    """As `test.record`, waiting beside others."""
    name = _note(ctx, "start", journal)
    await asyncio.sleep(seconds)
    _note(ctx, "end", journal)
    if outcome == "fail":
        raise RuntimeError(f"{name} fails as it was told to")
    return name


@action("test.wait_for_file")
def wait_for_file(ctx: ActionContext, journal: str, path: str, seconds: float = 20.0) -> bool:
    """Return when the file exists: lets a test hold a branch until it says so."""
    _note(ctx, "start", journal)
    end = time.monotonic() + seconds
    while not Path(path).exists():
        if time.monotonic() > end:
            raise TimeoutError(path)
        time.sleep(0.01)
    _note(ctx, "end", journal)
    return True


@action("test.hold")
def hold(ctx: ActionContext, journal: str, folder: str, seconds: float = 30.0) -> int:
    """Return when the file `<folder>/<task>.<attempt>` exists: lets a test hold each attempt of each task by itself."""
    name = _note(ctx, "start", journal)
    path, end = Path(folder) / f"{name}.{ctx.attempt}", time.monotonic() + seconds
    while not path.exists():
        if time.monotonic() > end:
            raise TimeoutError(path)
        time.sleep(0.01)
    _note(ctx, "end", journal)
    return ctx.attempt


@action("test.surrogate")
def surrogate() -> None:
    """Fail with a text that no encoding of JSON can hold, as names of files can be."""
    raise RuntimeError("a file named \udcff")
