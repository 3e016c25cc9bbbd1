"""The `core.*` actions: the smallest things a graph can be made of. They use the registry only."""

from __future__ import annotations

import asyncio
import builtins
from typing import Any

from orchestration.registry import action


@action("core.noop")
def noop(**_inputs: Any) -> None:
    """Do nothing, whatever the inputs."""


@action("core.echo")
def echo(value: Any = None) -> Any:
    """Return `value` as it is: a place to shape data with expressions."""
    return value


@action("core.sleep")
async def sleep(seconds: float) -> None:
    """Wait for so many seconds, beside other branches that wait.

    Raises: ValueError: `seconds` is negative.
    """
    if seconds < 0:
        raise ValueError(f"seconds is {seconds}; it can't be negative")
    await asyncio.sleep(seconds)


@action("core.fail")
def fail(message: str = "failed on purpose", error_type: str = "DeliberateFailure") -> None:
    """Fail with an error of this class and message; for trying out retries and trigger rules.

    Raises: the built-in exception called `error_type`, or a new subclass of `DeliberateFailure` with that name.
    """
    known = getattr(builtins, error_type, None)
    if isinstance(known, type) and issubclass(known, Exception) and not issubclass(known, UnicodeError):
        raise known(message)
    if error_type == DeliberateFailure.__name__ or not error_type.isidentifier():
        raise DeliberateFailure(message)
    raise type(error_type, (DeliberateFailure,), {})(message)


class DeliberateFailure(Exception):
    """What `core.fail` raises unless told otherwise."""
