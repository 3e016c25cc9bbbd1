"""Fields of log lines, and the components that write them: declared once, for config/logs.py and docs/reference."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a JSON line; a console line has those of `IDS` and what a call brought along, as `name=value`."""

    name: str
    holds: str


#: Which run, and which part of it, a line belongs to; each where it is known.
IDS: Final = (
    Field("flow_session_id", "the flow session"),
    Field("workflow_id", "name of its workflow"),
    Field("branch_id", "the branch: its name, or `action:item`, since an item of a `for_each` is one"),
    Field("task_id", "the task: `action`, or `action:item`"),
    Field("attempt", "which attempt of the task"),
    Field("trace_id", "the trace, as 32 hexadecimal digits: of the current span, else of the flow session"),
)

FIELDS: Final = (
    Field("timestamp", "when, by the host's clock: ISO 8601, UTC"),
    Field("level", "`debug`, `info`, `warning`, `error` or `critical`"),
    Field("event", "tag and message; line breaks and control characters as escapes"),
    Field("logger", "name of the Python logger"),
    Field("pid", "the process"),
    *IDS,
    Field("exception", "the traceback, where the call brought an exception along"),
)


@dataclass(frozen=True, slots=True)
class Component:
    """A part of the processor, or what stands beside it, by the loggers that it writes to."""

    #: What LOG_LEVEL calls it.
    name: str
    #: What stands at the front of its lines.
    tag: str
    #: Names of loggers; those below them are meant too.
    loggers: tuple[str, ...]
    holds: str


#: The longest name of a logger wins; what fits none has no tag, or that of the actions when one logs it.
COMPONENTS: Final = (
    Component("processor", "PARALLELIZER", ("orchestration",), "scheduling; its level is that of all below, too"),
    Component(
        "branches", "BRANCH_PROCESSOR",
        tuple(
            f"orchestration.engine.{module}"
            for module in (
                "branch", "cancellation", "checkpoints", "chunk", "flush", "invoke", "multiplex", "task", "watch",
            )
        ),
        "branches, their tasks, chunks of items, async branches",
    ),
    Component(
        "utils", "PROCESSOR_UTILS",
        ("orchestration.definition", "orchestration.plan", "orchestration.registry", "config"),
        "definitions, plans, actions by name, settings",
    ),
    Component("state", "LIVE_STATE", ("orchestration.state",), "Redis"),
    Component("store", "STORE", ("orchestration.store",), "PostgreSQL"),
    Component(
        "channel", "STATUS_CHANNEL", ("orchestration.channel", "orchestration.state.patience"),
        "status updates on their way to PostgreSQL",
    ),
    Component(
        "telemetry", "TELEMETRY", ("orchestration.telemetry", "opentelemetry"), "spans, metrics, logs of tasks"
    ),
    Component("reports", "REPORTS", ("orchestration.reports",), "answers about runs"),
    Component("actions", "ACTION", ("orchestration.action", "parallelizer.actions"), "`ctx.logger`, built-in actions"),
    Component("worker", "WORKER", ("tasks",), "workers, messages, time limits"),
    Component(
        "upkeep", "UPKEEP", ("tasks.upkeep", "tasks.rehydration", "tasks.sender"), "the upkeep process of a worker"
    ),
    Component("reaper", "REAPER", ("tasks.reaper",), "what it repairs of open sessions"),
    Component("pages", "DASHBOARD", ("tasks.dashboard", "flower", "tornado"), "the pages"),
    Component("celery", "CELERY", ("celery", "kombu", "billiard", "amqp"), "Celery's own lines"),
    Component("sql", "SQL", ("sqlalchemy", "alembic"), "the database library, migrations"),
    Component("cli", "CLI", ("parallelizer",), "the command line"),
)  # fmt: skip

ACTION_TAG: Final = next(component.tag for component in COMPONENTS if component.name == "actions")
_TAGS: Final = {logger: component.tag for component in COMPONENTS for logger in component.loggers}
#: What LOG_LEVEL calls a component → its loggers.
LOGGERS: Final = {component.name: component.loggers for component in COMPONENTS}


@lru_cache(maxsize=1024)
def tag_of(logger: str) -> str | None:
    """The tag of what a logger writes; None: it belongs to no component."""
    name = logger
    while name:
        tag = _TAGS.get(name)
        if tag is not None:
            return tag
        name = name.rpartition(".")[0]
    return None
