"""Calls one action: inputs, context, time limit; turns whatever happens into a value.

Nothing an action raises gets past `invoke`, but for what its `TimeLimit` says belongs to the worker.

An action that does not end soon after its time is over is left behind: another thread is told (`Late`), makes of it
what `invoke` would have made, and goes on. Whoever called the action learns of it by `GivenUp`, when the action has
ended at last, and has nothing more to do.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
import traceback
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol

from opentelemetry.context import Context, attach, detach

from orchestration.engine.cancellation import Cancellation, on_loop
from orchestration.errors import ActionError, Cancelled
from orchestration.registry import ActionSpec
from orchestration.vocabulary import TaskStatus

#: Bounds of what is kept of an error, in characters.
MAX_MESSAGE, MAX_TRACEBACK = 2000, 4000
_ENGINE_PACKAGES = frozenset({"orchestration.engine", "tasks.worker.limits"})


class GivenUp(BaseException):
    """The engine has gone on without a call that did not end in time."""


@dataclass(slots=True)
class CallContext:
    """`ctx` of an action."""

    flow_session_id: str
    workflow: str
    action: str
    item: int | None
    attempt: int
    idempotency_key: str
    logger: logging.LoggerAdapter[Any]
    options: Mapping[str, object]
    cancellation: Cancellation = field(default_factory=Cancellation)

    @property
    def cancelled(self) -> bool:
        """Whether the flow session was cancelled."""
        return self.cancellation.is_set

    def raise_if_cancelled(self) -> None:
        """Do nothing, or raise Cancelled."""
        self.cancellation.raise_if_set()


@dataclass(slots=True)
class Invocation:
    """What became of a call. Times by `time.monotonic_ns`."""

    status: TaskStatus
    started_ns: int
    finished_ns: int
    value: object = None
    error: BaseException | None = None
    #: It did not end in time and may run on: what follows it runs elsewhere.
    left_behind: bool = False


@dataclass(slots=True, eq=False, weakref_slot=True)
class Call:
    """An action to be called: what a task asks its driver for (`invoke` or `invoke_async`)."""

    spec: ActionSpec
    inputs: Mapping[str, object]
    #: Makes `ctx`, of this very call.
    context: Callable[[Call], CallContext]
    #: Time it may take.
    seconds: float
    #: Which task it is for: action, item, and the attempt of its unit.
    action: str
    item: int
    attempt: int
    #: Of its session.
    cancellation: Cancellation = field(default_factory=Cancellation)
    #: Its time is over then in any case (`time.monotonic_ns`): its run has a deadline.
    latest_ns: int | None = None
    #: Spans that the action makes are below the one of this context; None: there is none.
    span: Context | None = None
    #: For how long other calls kept its event loop; known when it has ended. Its time did not go on meanwhile.
    kept_ns: int = 0
    #: How often the task was tried again before, beside the attempts of its unit.
    retry: int = 0

    @property
    def number(self) -> int:
        """Which attempt of the task it is."""
        return self.attempt + self.retry


#: Told of a call that does not end although its time is over: the call, when it began (`time.monotonic_ns`), and
#: whether it keeps its event loop from running anything else. Runs in a thread of its own.
Late = Callable[[Call, int, bool], None]


class TimeLimit(Protocol):
    """Ends user code that runs too long; the worker's pool decides how.

    What a call gives after its time is over is not taken. One that has not ended soon after is given up: `late` is
    called, by another thread. Without a `late`, nobody can go on without it.

    A call whose session is cancelled has Cancelled raised in it once: what it makes of that is taken.
    """

    #: What user code sees when its time is over.
    timeout_error: type[BaseException]
    #: Exceptions of the worker itself, which must go on up.
    passes: tuple[type[BaseException], ...]

    def call(self, call: Call, function: Callable[[], Any], late: Late | None) -> Any:
        """Call `function`; raise `timeout_error` in it when the time of `call` is over, Cancelled by `interrupt`.

        Raises: timeout_error. Cancelled: also when its session was cancelled before. GivenUp: `late` has been called,
            and has ended.
        """

    async def run(self, call: Call, coroutine: Coroutine[Any, Any, Any], late: Late | None) -> Any:
        """Run `coroutine` beside others; cancel it, or raise `timeout_error` in it, when the time of `call` is over.

        It is cancelled too when its session is.

        Raises: timeout_error. Cancelled. GivenUp: `late` has been called.
        """

    def interrupt(self) -> None:
        """Raise Cancelled in the user code of this process whose session was cancelled; from any thread.

        Async actions are told by their `Cancellation`: their loop cancels them.
        """

    def end_process(self) -> None:
        """End the process if such user code holds it and the pool replaces it; from any thread."""


def invoke(call: Call, limit: TimeLimit, late: Late | None = None) -> Invocation:
    """Call an action in this thread; an async one alone, on an event loop of its own.

    Raises: GivenUp; see `TimeLimit.call`.
    """
    spec, inputs = call.spec, call.inputs
    token = None if call.span is None else attach(call.span)
    started = time.monotonic_ns()
    try:
        if spec.is_async:
            value = limit.call(call, lambda: asyncio.run(_await(call, limit)), late)
        elif spec.takes_context:
            value = limit.call(call, lambda: spec.function(call.context(call), **inputs), late)
        elif inputs:
            value = limit.call(call, lambda: spec.function(**inputs), late)
        else:
            value = limit.call(call, spec.function, late)
        if inspect.iscoroutine(value):
            value.close()
            value = ActionError(f"action {spec.name} returned a coroutine; declare it with async def")
            return Invocation(TaskStatus.FAILED, started, time.monotonic_ns(), error=value)
    except BaseException as error:  # noqa: BLE001 - sorted below
        return _ended_by(error, started, limit, call.cancellation)
    finally:
        if token is not None:
            detach(token)
    return Invocation(TaskStatus.SUCCEEDED, started, time.monotonic_ns(), value)


async def invoke_async(call: Call, limit: TimeLimit, late: Late | None = None) -> Invocation:
    """Call an async action beside others on this thread's event loop.

    Raises: GivenUp; see `TimeLimit.run`.
    """
    token = None if call.span is None else attach(call.span)
    started = time.monotonic_ns()
    try:
        value = await limit.run(call, _coroutine(call), late)
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise  # the runner gives up, and hands the branch back
        return _ended_by(error, started, limit, call.cancellation)
    except BaseException as error:  # noqa: BLE001 - sorted below
        return _ended_by(error, started, limit, call.cancellation)
    finally:
        if token is not None:
            detach(token)
    return Invocation(TaskStatus.SUCCEEDED, started, time.monotonic_ns(), value)


def left_behind(call: Call, began_ns: int, limit: TimeLimit) -> Invocation:
    """What has become of a call that began then and does not end."""
    error = limit.timeout_error(call.seconds)
    return Invocation(TaskStatus.TIMED_OUT, began_ns, time.monotonic_ns(), error=error, left_behind=True)


def _coroutine(call: Call) -> Coroutine[Any, Any, Any]:
    arguments = (call.context(call),) if call.spec.takes_context else ()
    coroutine: Coroutine[Any, Any, Any] = call.spec.function(*arguments, **call.inputs)
    return coroutine


async def _await(call: Call, limit: TimeLimit) -> object:
    task, timer = asyncio.current_task(), asyncio.timeout(call.seconds)
    assert task is not None
    interrupted = False

    def interrupt() -> None:
        nonlocal interrupted
        if not task.done():
            interrupted = True
            task.cancel()

    try:
        with call.cancellation.interrupting(on_loop(asyncio.get_running_loop(), interrupt)):
            async with timer:
                return await _coroutine(call)
    except asyncio.CancelledError:
        if not interrupted:
            raise
        raise Cancelled from None
    except TimeoutError:
        if timer.expired():
            raise limit.timeout_error(call.seconds) from None
        raise  # the action's own
    finally:
        if interrupted:
            task.uncancel()


def _ended_by(error: BaseException, started_ns: int, limit: TimeLimit, cancellation: Cancellation) -> Invocation:
    """What user code raised ends its own task only; what belongs to the worker goes on up."""
    if isinstance(error, (GivenUp, *limit.passes)):
        raise error
    status = TaskStatus.FAILED
    if isinstance(error, limit.timeout_error):
        status = TaskStatus.TIMED_OUT
    elif isinstance(error, Cancelled) and cancellation.is_set:
        status = TaskStatus.CANCELLED
    return Invocation(status, started_ns, time.monotonic_ns(), error=error)


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
