"""Every error that the processor raises on purpose, in one tree.

A class's docstring says when it is raised and what to do. Subclasses exist only where a caller acts differently.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class ProcessorError(Exception):
    """Base of all errors of the processor."""


class SettingsError(ProcessorError):
    """A setting has a wrong value; the message names the setting, the value and what is allowed."""


class SemaphoreError(ProcessorError):
    """A permit could not be taken, kept or given back."""


class WorkflowExecutionError(ProcessorError):
    """A workflow could not be started, run or completed; raised by `run_workflow` too, with `raise_on_failure=True`."""


class MessageProcessingError(ProcessorError):
    """A message (of Celery or of the status stream) can't be understood."""


class ChannelClosed(ProcessorError):
    """The status channel was closed; nothing more can be sent through it."""


class SpoolFull(ProcessorError):
    """The spool has no room for another status update; it stays in memory until Redis or PostgreSQL takes it."""


class Cancelled(ProcessorError):
    """Raised in an action whose flow session was cancelled: clean up and let it pass; soon after, the process ends."""

    def __init__(self, message: str = "the flow session was cancelled") -> None:
        super().__init__(message)


class ServiceUnreachable(ProcessorError):
    """Redis or PostgreSQL does not answer; the message says which, where, and what to do."""


class UnknownWorkflow(WorkflowExecutionError):
    """No published workflow has this name or version; the message offers the nearest names."""


class UnknownRun(WorkflowExecutionError):
    """No flow session has this id."""


class UnknownTask(WorkflowExecutionError):
    """The workflow of the run has no such action, or the action no such item; the message offers the nearest names."""


class RunIdTaken(WorkflowExecutionError):
    """The `run_id` belongs to a run of another workflow, or with another payload."""


class SessionNotEnded(WorkflowExecutionError):
    """The flow session has branches to go: it can't be completed yet."""


class SessionClosed(WorkflowExecutionError):
    """The flow session was completed meanwhile: it has no live state any more. There is nothing left to do for it."""


class SecondMessage(WorkflowExecutionError):
    """Another copy of this message is at work: it was sent twice. There is nothing to do for this one."""


class PayloadError(WorkflowExecutionError):
    """The payload does not fit the workflow's `payload_schema`, or is not JSON."""


class ActionError(ProcessorError):
    """An action failed for a reason of the processor's: unknown, unusable result, result too large."""


class ExpressionError(ActionError):
    """An expression could not be compiled or evaluated; the message holds the expression and the reason."""


class StaleClaim(SemaphoreError):
    """Another attempt owns the branch; nothing was written. Stop working on it."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in a definition. `line` and `column` count from 1 and are 0 where there is no text to point at."""

    message: str
    field: str = ""
    file: str = ""
    line: int = 0
    column: int = 0
    hint: str = ""

    def __str__(self) -> str:
        place = self.file
        if self.line:
            place = f"{place}:{self.line}:{self.column}" if place else f"line {self.line}, column {self.column}"
        parts = [part for part in (place, self.field) if part]
        text = ": ".join([*parts, self.message])
        return f"{text} ({self.hint})" if self.hint else text


class DefinitionError(WorkflowExecutionError):
    """A definition is wrong; `problems` has every mistake found, in the order of the file.

    Made from its message where only that has come through Celery's result backend.
    """

    def __init__(self, problems: Sequence[Problem] | str) -> None:
        if isinstance(problems, str):
            problems = [Problem(line) for line in problems.splitlines()]
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))

    def __reduce__(self) -> tuple[type[DefinitionError], tuple[tuple[Problem, ...]]]:
        return DefinitionError, (self.problems,)
