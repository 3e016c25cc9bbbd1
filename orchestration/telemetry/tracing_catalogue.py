"""Every span, and every attribute and event of one, declared once; docs/reference/traces.md is made of this."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class SpanKind:
    """One kind of span."""

    name: str
    parent: str
    one_for: str
    begins: str
    ends: str
    #: Names of its attributes.
    attributes: tuple[str, ...]
    links: str = "–"


#: The instrumentation scope of all of them.
SCOPE: Final = "parallelizer"

LIFECYCLE: Final = "workflow_lifecycle"
EXECUTION: Final = "workflow_execution"
BRANCH: Final = "process_task_and_branches"
TASK: Final = "task_processing"

SESSION: Final = "parallelizer.flow_session.id"
WORKFLOW: Final = "parallelizer.workflow.name"
VERSION: Final = "parallelizer.workflow.version"
STATUS: Final = "parallelizer.status"
COUNTS: Final = "parallelizer.tasks."
PRIORITY: Final = "parallelizer.priority"
BRANCH_NAME: Final = "parallelizer.branch"
ACTION: Final = "parallelizer.action"
ITEM: Final = "parallelizer.item"
ITEMS_START: Final = "parallelizer.items.start"
ITEMS_COUNT: Final = "parallelizer.items.count"
ATTEMPT: Final = "parallelizer.attempt"
WORKER: Final = "parallelizer.worker"
WAIT: Final = "parallelizer.semaphore.wait_seconds"
QUEUE: Final = "messaging.destination.name"
MESSAGING: Final = "messaging.system"
ERROR_TYPE: Final = "error.type"

#: What it says, by name; a name that ends with a dot stands for one attribute for each status.
ATTRIBUTES: Final[dict[str, str]] = {
    SESSION: "the flow session's id",
    WORKFLOW: "name of the workflow",
    VERSION: "number of its version",
    PRIORITY: "0–9, as it was asked for",
    STATUS: "how it ended; of an attempt that is followed by another one: `retrying`, or `lost` where its process died",
    COUNTS: "how many tasks (of a session), items (of a `for_each`, or of those that share a span) ended so, by status",
    BRANCH_NAME: "name of the branch",
    ACTION: "name of the action",
    ITEM: "place of the item in its `for_each`, from 0",
    ITEMS_START: "place of the first item that the span stands for, where it stands for several",
    ITEMS_COUNT: "items that it stands for: those of the chunk",
    ATTEMPT: "from 1; crashes and retries are counted together",
    WORKER: "who ran it",
    WAIT: "how long the branch was ready and not begun, for want of a permit or a slot: seconds",
    QUEUE: "Celery's queue (semantic convention)",
    MESSAGING: "`celery` (semantic convention)",
    ERROR_TYPE: "of what failed: the exception's class, or the status (semantic convention)",
}

EXCEPTION: Final = "exception"
LOST: Final = "process_lost"
#: What each event means.
EVENTS: Final[dict[str, str]] = {
    EXCEPTION: "what the action raised, with `exception.type`, `exception.message` and `exception.stacktrace` "
    "(semantic convention), at the end of the attempt",
    LOST: "the process or host that ran it died; `reason` says how, where it is known",
}

SPANS: Final = (
    SpanKind(
        LIFECYCLE, "the caller's span, if there is one", "flow session", "the session is accepted",
        "its final status is recorded", (SESSION, WORKFLOW, VERSION, PRIORITY, STATUS, COUNTS, ERROR_TYPE),
    ),
    SpanKind(
        EXECUTION, f"`{LIFECYCLE}`", "flow session", "the session is accepted",
        "all its branches have settled, and its completion begins; of a session that ends in the process which "
        "accepted it: with it", (SESSION, WORKFLOW, STATUS),
    ),
    SpanKind(
        BRANCH, f"`{EXECUTION}`", "branch; `for_each`", "its first attempt begins", "it settles",
        (SESSION, BRANCH_NAME, ATTEMPT, STATUS, WORKER, WAIT, QUEUE, MESSAGING, COUNTS, ERROR_TYPE),
        "to the branches before it",
    ),
    SpanKind(
        TASK, f"`{BRANCH}`", "attempt of a task", "the action is called; of a lost attempt: its branch was claimed",
        "the action ends; of a lost attempt: that is noticed",
        (
            SESSION, ACTION, ITEM, ITEMS_START, ITEMS_COUNT, ATTEMPT, STATUS, WORKER, QUEUE, MESSAGING, COUNTS,
            ERROR_TYPE,
        ),
        "to the attempt before it",
    ),
)  # fmt: skip
