"""Calls one action: inputs, context, time limit; turns whatever happens into a value.

Nothing an action raises gets past `invoke`, but for what its `TimeLimit` says belongs to the worker.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol

from orchestration.errors import ActionError
from orchestration.registry import ActionSpec
from orchestration.vocabulary import TaskStatus

#: Bounds of what is kept of an error, in characters.
MAX_MESSAGE, MAX_TRACEBACK = 2000, 4000
_ENGINE_PACKAGES = frozenset({"orchestration.engine", "tasks.worker"})


class TimeLimit(Protocol):
    """Ends user code that runs too long; the worker's pool decides how."""

    #: What user code sees when its time is over.
    timeout_error: type[BaseException]
    #: Exceptions of the worker itself, which must go on up.
    passes: tuple[type[BaseException], ...]

    def call(self, seconds: float, function: Callable[[], Any]) -> Any:
        """Call `function`; raise `timeout_error` in it when `seconds` are over."""


@dataclass(slots=True)
class CallContext:
    """`ctx` of an action."""

    flow_session_id: str
    workflow: str
    action: str
    item: int | None
    attempt: int
    idempotency_key: str
    logger: logging.LoggerAdapter[logging.Logger]


@dataclass(slots=True)
class Invocation:
    """What became of a call. Times by `time.monotonic_ns`."""

    status: TaskStatus
    started_ns: int
    finished_ns: int
    value: object = None
    error: BaseException | None = None


def invoke(
    spec: ActionSpec,
    inputs: Mapping[str, object],
    context: Callable[[], CallContext],
    seconds: float,
    limit: TimeLimit,
) -> Invocation:
    """Call an action with at most `seconds` of time."""
    started = time.monotonic_ns()
    try:
        if spec.is_async:
            value = limit.call(seconds, lambda: _run_async(spec, inputs, context, seconds, limit))
        elif spec.takes_context:
            value = limit.call(seconds, lambda: spec.function(context(), **inputs))
        else:
            value = limit.call(seconds, lambda: spec.function(**inputs))
        if inspect.iscoroutine(value):
            value.close()
            value = ActionError(f"action {spec.name} returned a coroutine; declare it with async def")
            return Invocation(TaskStatus.FAILED, started, time.monotonic_ns(), error=value)
    except limit.timeout_error as error:
        return Invocation(TaskStatus.TIMED_OUT, started, time.monotonic_ns(), error=error)
    except limit.passes:
        raise
    except BaseException as error:  # noqa: BLE001 - whatever user code raises ends its own task only
        return Invocation(TaskStatus.FAILED, started, time.monotonic_ns(), error=error)
    return Invocation(TaskStatus.SUCCEEDED, started, time.monotonic_ns(), value)


def _run_async(
    spec: ActionSpec,
    inputs: Mapping[str, object],
    context: Callable[[], CallContext],
    seconds: float,
    limit: TimeLimit,
) -> object:
    async def run() -> object:
        arguments = (context(),) if spec.takes_context else ()
        try:
            async with asyncio.timeout(seconds):
                return await spec.function(*arguments, **inputs)
        except TimeoutError:
            raise limit.timeout_error(seconds) from None

    return asyncio.run(run())


def describe_error(error: BaseException, attempt: int) -> dict[str, object]:
    """An error as our own JSON: type, message and the end of its traceback, each bounded."""
    try:
        message = _clean(str(error))
    except Exception:  # noqa: BLE001 - a broken __str__ is the user's
        message = "(its message can't be shown)"
    description: dict[str, object] = {
        "type": _name_of(type(error)),
        "message": message[:MAX_MESSAGE],
        "attempt": attempt,
    }
    if error.__traceback__ is not None and not isinstance(error, ActionError):
        shown: TracebackType | None = error.__traceback__
        while shown is not None and shown.tb_frame.f_globals.get("__package__", "") in _ENGINE_PACKAGES:
            shown = shown.tb_next  # the engine's own frames say nothing about the action
        if shown is not None:
            text = "".join(traceback.format_exception(type(error), error, shown, limit=-8))
            description["traceback"] = _clean(text[-MAX_TRACEBACK:])
    return description


def _clean(text: str) -> str:
    """What JSON can carry: a lone surrogate, as in names of files, becomes a question mark."""
    return text.encode("utf-8", "replace").decode()


def _name_of(kind: type[BaseException]) -> str:
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
