"""What one item of a `for_each`, and one step of a branch, cost until they are settled and recorded, in µs.

One process does what a worker's process and then the updater do, with real servers and no worker. Its own time is that
of the calling thread; a script's is what Redis says of itself; waiting is what is left of the time by the wall.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from statistics import median
from typing import Any, TypeVar

from orchestration.channel.parse import ParsedEntry, parse_entry
from orchestration.engine.inline import InlineRun
from orchestration.engine.task import TaskProcessor
from orchestration.state.clock import Timeline
from orchestration.state.rows import encode_rows
from orchestration.state.stream import StatusStream
from orchestration.store.updates import write_rows
from orchestration.vocabulary import NO_ITEM, Settlement, Verdict
from tests.performance.task_cost import NOOP, ONE_TASK, Clock, Size, as_in_a_worker, run_task, start_fork, start_session
from tests.support.stepping import QUEUE, SteppingEngine

#: More entries than a round makes.
ALL_ENTRIES = 1_000_000


@dataclass(frozen=True, slots=True)
class ScriptCost:
    """A call of a script."""

    #: To pack, send, receive and understand.
    client: float
    #: In Redis.
    script: float
    waiting: float


@dataclass(frozen=True, slots=True)
class RecordCost:
    """The way of a row into PostgreSQL."""

    #: Reading entries from the stream, and removing them.
    channel: float
    parse: float
    #: Rows merged, columns written as text.
    statement: float
    postgresql: float

    @property
    def whole(self) -> float:
        return self.channel + self.parse + self.statement + self.postgresql


@dataclass(frozen=True, slots=True)
class ItemCost:
    """One item."""

    #: Running it, without settling.
    process: float
    settle: ScriptCost
    record: RecordCost


@dataclass(frozen=True, slots=True)
class StepCost:
    """One step of a linear branch."""

    #: With its checkpoint written behind: the process's own time, and what it waited for replies.
    process: float
    waiting: float
    #: A checkpoint alone: written behind, and with its reply awaited.
    behind: ScriptCost
    awaited: ScriptCost


def item_cost(engine: SteppingEngine, size: Size, chunk: int) -> ItemCost:
    """An item, when `chunk` of them are claimed together."""
    items = size.items if chunk > 1 else size.single_items
    definition = {"name": "budget-items", "actions": {"each": {**NOOP, "for_each": {"range": items}}}}
    rounds = [_run_items(engine, definition, chunk) for _ in range(size.rounds)]
    return ItemCost(
        median(each.process for each in rounds),
        _medians([each.settle for each in rounds]),
        _medians([each.record for each in rounds]),
    )


def step_cost(engine: SteppingEngine, size: Size, due: int) -> StepCost:
    """A step in the middle of a branch.

    Args: due: replies that a branch lets come later.
    """
    actions: dict[str, Any] = {"s0": NOOP}
    for number in range(1, size.steps):
        actions[f"s{number}"] = {**NOOP, "needs": [f"s{number - 1}"]}
    rounds = [_run_steps(engine, {"name": "budget-steps", "actions": actions}) for _ in range(size.rounds)]
    return StepCost(
        median(process for process, _ in rounds),
        median(waiting for _, waiting in rounds),
        _medians([_checkpoints(engine, size.steps, due) for _ in range(size.rounds)]),
        _medians([_checkpoints(engine, size.steps, 1) for _ in range(size.rounds)]),
    )


def _run_items(engine: SteppingEngine, definition: Mapping[str, object], chunk: int) -> ItemCost:
    """One run and its rows; of chunks, the full ones count."""
    fork = start_fork(engine, definition)
    assert engine.processor.open_fork(fork, "{}") is Verdict.GO
    branches = engine.processor.spawn_branch_processor(fork.context, fork.runner)
    settlements: list[Settlement] = []
    processed: list[float] = []
    settled: list[tuple[float, float, float]] = []
    call, is_full, is_over = 0, False, False
    with as_in_a_worker():
        while not is_over:
            call, before = call + 1, _script_seconds(engine)
            with Clock() as settling:
                answer = engine.live.settle_branch(fork.runner, settlements, call=call, chunks=f",each={chunk},")
            script = _script_seconds(engine) - before
            if is_full:
                settled.append((settling.cpu, script, max(0.0, settling.wall - settling.cpu - script)))
            is_over = answer.verdict is Verdict.ENDED
            for claim in answer.claims:
                with Clock() as processing:
                    settlements = [branches.process_task_and_branches_parallel(claim)]
                is_full = settlements[0].settled == chunk
                if is_full:
                    processed.append(processing.cpu)
    engine.processor.complete_workflow(fork.request.flow_session_id)
    settle = ScriptCost(*(median(column) / chunk * 1e6 for column in zip(*settled, strict=True)))
    return ItemCost(median(processed) / chunk * 1e6, settle, _record(engine))


def _record(engine: SteppingEngine) -> RecordCost:
    """All that waits in the channel, taken through the updater's functions one after another."""
    stream, content = StatusStream(str(engine.settings.redis_url), engine.settings.namespace), ParsedEntry()
    with Clock() as reading:
        entries = stream.read_batch("budget", ALL_ENTRIES, 0)
    with Clock() as parsing:
        for entry in entries:
            parsed = parse_entry(entry.id, entry.fields)
            content.tasks += parsed.tasks
            content.branches += parsed.branches
            content.sessions += parsed.sessions
    with Clock() as writing:
        write_rows(engine.database, content.tasks, content.branches, content.sessions)
    with Clock() as removing:
        stream.acknowledge([entry.id for entry in entries])
    stream.close()
    seconds = (reading.wall + removing.wall, parsing.cpu, writing.cpu, writing.wall - writing.cpu)
    return RecordCost(*(each / content.rows * 1e6 for each in seconds))


def _run_steps(engine: SteppingEngine, definition: Mapping[str, object]) -> tuple[float, float]:
    """One linear run: own time and waiting, for each step."""
    fork = start_fork(engine, definition)
    inline = InlineRun(fork.context, engine.processor.spawn_branch_processor(fork.context, fork.runner), QUEUE)
    with as_in_a_worker(), Clock() as clock:
        inline.run_first_branch()
    assert inline.has_ended
    engine.live.forget_checkpoints(fork.request.flow_session_id)
    engine.updater.drain_all()
    steps = len(fork.context.plan.actions)
    return clock.cpu / steps * 1e6, (clock.wall - clock.cpu) / steps * 1e6


def _checkpoints(engine: SteppingEngine, steps: int, due: int) -> ScriptCost:
    """So many checkpoints and nothing else, replies awaited when `due` of them have been sent."""
    context, live = start_session(engine, ONE_TASK), engine.live
    runner = engine.processor._runner(context.flow_session_id, "budget", QUEUE)
    ended, action = run_task(context), context.plan.actions["only"]
    row = TaskProcessor(context).row(action, ended, 1, 1, NO_ITEM, Timeline(live.clock, 0))
    before = _script_seconds(engine)
    with Clock() as clock:
        for number in range(1, steps + 1):
            rows = encode_rows([row])
            live.send_checkpoint(runner, None, context.day, f"s{number}", b"+null", rows, lambda _: None)
            if number % due == 0:
                live.await_checkpoints()
        live.await_checkpoints()
    script = _script_seconds(engine) - before
    live.forget_checkpoints(context.flow_session_id)
    engine.updater.drain_all()
    seconds = (clock.cpu, script, max(0.0, clock.wall - clock.cpu - script))
    return ScriptCost(*(each / steps * 1e6 for each in seconds))


def _script_seconds(engine: SteppingEngine) -> float:
    """What Redis has spent in scripts so far."""
    stats = engine.live.client.info("commandstats")
    return sum(float(stats.get(f"cmdstat_{name}", {"usec": 0})["usec"]) for name in ("eval", "evalsha")) / 1e6


_Cost = TypeVar("_Cost", ScriptCost, RecordCost)


def _medians(rounds: Sequence[_Cost]) -> _Cost:
    return type(rounds[0])(*(median(getattr(each, field.name) for each in rounds) for field in fields(rounds[0])))
