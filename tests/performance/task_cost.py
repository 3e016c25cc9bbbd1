"""What one task that does nothing costs the process that runs it, piece by piece, and what an expression adds.

The same functions as in a worker, in this process and with its signals handled as there. All figures are µs of the
calling thread's own time, which a busy machine makes longer only through its caches; medians over many rounds.
"""

from __future__ import annotations

import signal
import time
import uuid
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any, Self

from billiard.pool import soft_timeout_sighandler

from orchestration.definition.expressions import Scope
from orchestration.engine.context import ProcessingContext
from orchestration.engine.invoke import Call, CallContext, Late, invoke
from orchestration.engine.processor import Fork, RunRequest
from orchestration.engine.task import Steps, TaskEnd, TaskProcessor, run_steps
from orchestration.state.clock import Timeline
from orchestration.state.rows import sequence_of
from orchestration.telemetry.logs import Place
from orchestration.vocabulary import NO_ITEM, JoinCounts
from tasks import run_workflow
from tasks.worker.limits import PoolTimeLimit, guard, unguard
from tests.support.stepping import QUEUE, SteppingEngine

NOOP: Mapping[str, Any] = {"uses": "core.noop"}
ONE_TASK = {"name": "budget-task", "actions": {"first": NOOP, "only": {**NOOP, "needs": ["first"]}}}
#: The timer is set and never fires.
DEADLINE_SECONDS = 300.0
_JOINED = JoinCounts(succeeded=1)


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured."""

    rounds: int
    #: In a round, of what takes microseconds.
    calls: int
    #: In a round: items that are claimed together, items that are claimed one by one, and steps.
    items: int
    single_items: int
    steps: int


@dataclass(frozen=True, slots=True)
class TaskCost:
    """One task without inputs: the whole of it, and what of it is what."""

    whole: float
    inputs: float
    call: float
    limit: float
    row: float

    @property
    def rest(self) -> float:
        """Does it start, is its action known, what is its result as JSON."""
        return max(0.0, self.whole - self.inputs - self.call - self.limit)


class Clock:
    """Time in a block, seconds: by the wall, and that of this thread."""

    wall = cpu = 0.0

    def __enter__(self) -> Self:
        self._wall, self._cpu = time.perf_counter(), time.thread_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.cpu, self.wall = time.thread_time() - self._cpu, time.perf_counter() - self._wall


class _NoLimit(PoolTimeLimit):
    """What is left of a call without timers."""

    timeout_error: type[BaseException] = TimeoutError
    passes: tuple[type[BaseException], ...] = ()

    def call(self, call: Call, function: Callable[[], Any], late: Late | None = None) -> Any:
        del call, late
        return function()

    async def run(self, call: Call, coroutine: Coroutine[Any, Any, Any], late: Late | None = None) -> Any:
        del call, late
        return await coroutine


def task_cost(engine: SteppingEngine, size: Size) -> TaskCost:
    """A task in the middle of a branch."""
    context = start_session(engine, ONE_TASK)
    tasks, scope, action = TaskProcessor(context), context.scope(), context.plan.actions["only"]
    inputs: Any = action.inputs.render(scope)
    made = Call(tasks.spec(action.uses), inputs, _no_context, DEADLINE_SECONDS, action.name, NO_ITEM, 1)
    limit, timeline = PoolTimeLimit(), Timeline(context.stores.live.clock, 0)
    with as_in_a_worker():
        ended = run_task(context)
        unlimited = _microseconds(partial(invoke, made, _NoLimit()), size)
        return TaskCost(
            whole=_microseconds(lambda: run_steps(_steps(tasks, context, scope), Place(context), limit), size),
            inputs=_microseconds(partial(action.inputs.render, scope), size),
            call=unlimited,
            limit=max(0.0, _microseconds(partial(invoke, made, limit), size) - unlimited),
            row=_microseconds(partial(tasks.row, action, ended, 1, sequence_of(1, 0), NO_ITEM, timeline), size),
        )


def expression_costs(engine: SteppingEngine, size: Size, texts: Mapping[str, str]) -> dict[str, float]:
    """What it takes to fill in one input of an item, by name of a text with expressions."""
    items = [{"sku": "a-17", "count": 3}]
    actions: dict[str, Any] = {"first": NOOP}
    for name, text in texts.items():
        actions[name] = {"uses": "core.echo", "with": {"value": text}, "for_each": items, "needs": ["first"]}
    context = start_session(engine, {"name": "budget-expressions", "actions": actions})
    scope = context.scope()
    scope.item, scope.item_index = items[0], 0
    return {name: _microseconds(partial(context.plan.actions[name].inputs.render, scope), size) for name in texts}


def run_task(context: ProcessingContext) -> TaskEnd:
    """Run the one task of `ONE_TASK`."""
    return run_steps(_steps(TaskProcessor(context), context, context.scope()), Place(context), PoolTimeLimit())


def _steps(tasks: TaskProcessor, context: ProcessingContext, scope: Scope) -> Steps[TaskEnd]:
    deadline_ns = time.monotonic_ns() + int(DEADLINE_SECONDS * 1e9)
    return tasks.steps(context.plan.actions["only"], _JOINED, scope, 1, 0, NO_ITEM, deadline_ns)


def start_session(engine: SteppingEngine, definition: Mapping[str, object]) -> ProcessingContext:
    """A flow session of which nothing has been run."""
    return start_fork(engine, definition).context


def start_fork(engine: SteppingEngine, definition: Mapping[str, object]) -> Fork:
    """A flow session that is about to be opened, as it is where even the first branch needs a permit."""
    fork = engine.forking.process_workflow_parallel(RunRequest(str(uuid.uuid4()), definition, None, QUEUE))
    assert isinstance(fork, Fork)
    engine.live.keep_clock()
    return fork


@contextmanager
def as_in_a_worker() -> Iterator[None]:
    """With signals handled as in a task of ours on prefork: time limits then cost what they cost there."""
    before = signal.signal(signal.SIGUSR1, soft_timeout_sighandler)
    guard(task=run_workflow)
    try:
        yield
    finally:
        unguard(task=run_workflow)
        signal.signal(signal.SIGUSR1, before)


def _microseconds(function: Callable[[], object], size: Size) -> float:
    rounds = []
    for _ in range(size.rounds):
        with Clock() as clock:
            for _ in range(size.calls):
                function()
        rounds.append(clock.cpu / size.calls * 1e6)
    return median(rounds)


def _no_context(_: Call) -> CallContext:
    raise AssertionError("a no-op takes no context")
