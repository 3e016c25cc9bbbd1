"""The one model of a definition, whatever it was written in: YAML, JSON or Python.

What pydantic can check by itself is checked here (names, types, bounds); what needs the whole graph, the registry of
actions or the expression language is checked by `check.py`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PrivateAttr,
    StringConstraints,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from orchestration.definition.printing import to_python, to_yaml
from orchestration.definition.rates import RULE, parse_rate
from orchestration.definition.scope import kind_of
from orchestration.vocabulary import Durability, TriggerRule

#: Names of workflows, actions and queues. WfFormat ids hold `.` and `-`; `:`, `|` and `;` separate fields in messages.
NAME_PATTERN: Final = r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$"
#: Where a workflow and its actions run unless they name a queue.
DEFAULT_QUEUE: Final = "branches"
WEEK_SECONDS = 604_800
#: Largest limit that holds for more than one flow session.
MAX_LIMIT: Final = 1_000_000


def _list_of_names(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _for_each(value: object) -> object:
    if isinstance(value, Mapping):
        if set(value) != {"range"}:
            raise PydanticCustomError("for_each", "as a mapping it must be {range: N}, and nothing else")
        count = value["range"]
        if isinstance(count, str) or (isinstance(count, int) and not isinstance(count, bool) and count >= 0):
            return value
        raise PydanticCustomError(
            "for_each", "range must be a whole number of at least 0, or an expression; it is {shown}",
            {"shown": count if isinstance(count, (int, float)) else kind_of(count)},
        )  # fmt: skip
    if isinstance(value, (str, list)):
        return value
    raise PydanticCustomError(
        "for_each", "must be an expression, a list or {range: N}; it is {shown}", {"shown": kind_of(value)}
    )


def _condition(value: object) -> object:
    if isinstance(value, (str, bool)):
        return value
    raise PydanticCustomError(
        "condition", "must be an expression or true or false; it is {shown}", {"shown": kind_of(value)}
    )


def _rate(value: object) -> object:
    if isinstance(value, str) and parse_rate(value):
        return value
    shown = repr(value)[:100] if isinstance(value, (str, int, float)) else kind_of(value)
    raise PydanticCustomError("rate", "{rule}; it is {shown}", {"rule": RULE, "shown": shown})


def _word(kind: type[TriggerRule | Durability]) -> Any:
    def check(value: object) -> object:
        if isinstance(value, str) and value in {word.value for word in kind}:
            return kind(value)
        shown = repr(value) if isinstance(value, str) else kind_of(value)
        raise PydanticCustomError(
            "word", "{shown} is not one of {words}", {"shown": shown, "words": ", ".join(word.value for word in kind)}
        )

    return BeforeValidator(check)


def _short(number: float) -> float | int:
    """A whole number of seconds without `.0`."""
    return int(number) if number.is_integer() else number


Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
Seconds = Annotated[float, Field(gt=0, le=WEEK_SECONDS, allow_inf_nan=False), PlainSerializer(_short)]
Delay = Annotated[float, Field(ge=0, le=WEEK_SECONDS, allow_inf_nan=False), PlainSerializer(_short)]
RateText = Annotated[str, BeforeValidator(_rate)]
Names = Annotated[
    tuple[Name, ...],
    Field(strict=False),
    BeforeValidator(_list_of_names),
    WithJsonSchema(
        {"anyOf": [{"type": "array", "items": {"type": "string", "pattern": NAME_PATTERN}}, {"type": "string"}]}
    ),
]
ErrorNames = Annotated[tuple[Annotated[str, StringConstraints(min_length=1, max_length=256)], ...], Field(strict=False)]
ForEach = Annotated[
    Any,
    BeforeValidator(_for_each),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string"},
                {"type": "array"},
                {
                    "type": "object",
                    "properties": {"range": {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string"}]}},
                    "required": ["range"],
                    "additionalProperties": False,
                },
            ]
        }
    ),
]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class RetryDefinition(_Part):
    """In how many attempts and with which waits an action is tried."""

    max_attempts: int = Field(ge=1, le=1000, description="Attempts in all, the first included.")
    delay_seconds: Delay = Field(default=1.0, description="Wait before the second attempt.")
    backoff: Annotated[float, PlainSerializer(_short)] = Field(
        default=2.0, ge=1, le=100, allow_inf_nan=False, description="Each further wait is this many times longer."
    )
    max_delay_seconds: Delay = Field(default=60.0, description="No wait is longer.")
    jitter: float = Field(
        default=0.1, ge=0, le=1, allow_inf_nan=False, description="Share of a wait that is random: 0.1 means ± 10 %."
    )
    retry_on: ErrorNames = Field(default=(), description="Errors worth another attempt, by class name; empty: all.")
    never_on: ErrorNames = Field(default=(), description="Errors never tried again; wins over retry_on.")


class LimitsDefinition(_Part):
    """Limits of the workflow's flow sessions: of each, of all, and of all with the same key."""

    max_concurrent_branches: Annotated[int, Field(ge=1, le=10_000)] | None = Field(
        default=None,
        description="Branches of one flow session at once; by default the setting MAX_CONCURRENT_BRANCHES.",
    )
    branch_timeout_seconds: Seconds | None = Field(
        default=None, description="Seconds a branch may run; by default the setting BRANCH_PROCESSING_TIMEOUT_SECS."
    )
    deadline_seconds: Seconds | None = Field(
        default=None,
        description="Seconds from when a flow session is accepted until what is left of it is ended.",
    )
    max_wait_seconds: Seconds | None = Field(
        default=None,
        description="Seconds that a flow session may be queued, and each of its branches may wait before it begins.",
    )
    weight: Annotated[float, Field(ge=0.01, le=100, allow_inf_nan=False), PlainSerializer(_short)] = Field(
        default=1.0,
        description="Share of the fleet beside other sessions that want it too: with 3, three times as much as with 1.",
    )
    rate_limit: RateText | None = Field(
        default=None,
        description="How often actions begin, of all runs of the workflow together: 100/m, or 100/m burst 20.",
    )
    rate_limit_per_key: RateText | None = Field(
        default=None,
        description="How often actions begin, of all runs with the same concurrency_key together: 100/m, or "
        "100/m burst 20.",
    )
    max_concurrent_branches_of_workflow: Annotated[int, Field(ge=1, le=MAX_LIMIT)] | None = Field(
        default=None, description="Branches of all flow sessions of the workflow at once."
    )
    concurrency_key: Annotated[str, StringConstraints(min_length=1)] | None = Field(
        default=None,
        description="What flow sessions are grouped by, as in ${{ payload.customer }}: a string or a whole number, "
        "evaluated once, over `payload` and `session`.",
    )
    max_concurrent_branches_per_key: Annotated[int, Field(ge=1, le=MAX_LIMIT)] | None = Field(
        default=None, description="Branches of all flow sessions with the same concurrency_key at once."
    )
    max_concurrent_sessions: Annotated[int, Field(ge=1, le=MAX_LIMIT)] | None = Field(
        default=None, description="Flow sessions of the workflow that run at once."
    )
    max_concurrent_sessions_per_key: Annotated[int, Field(ge=1, le=MAX_LIMIT)] | None = Field(
        default=None, description="Flow sessions with the same concurrency_key that run at once."
    )
    when_full: Literal["queue", "reject", "cancel_running", "keep_newest"] | None = Field(
        default=None,
        description="What happens at a limit of sessions: the new flow session is queued (the default), or "
        "fails at once (reject); or the oldest of the workflow are cancelled to make room for it (cancel_running); or "
        "those of the workflow that are queued there are cancelled, so that only the newest waits (keep_newest).",
    )


class ActionDefinition(_Part):
    """A node of the graph."""

    uses: Annotated[str, StringConstraints(min_length=1, max_length=256)] = Field(
        description="The registered action to call."
    )
    inputs: dict[str, Any] = Field(
        default_factory=dict, alias="with", description="Its inputs; strings may hold ${{ expressions }}."
    )
    needs: Names = Field(default=(), description="Actions that must have ended before this one.")
    for_each: ForEach = Field(
        default=None, description="Run once for each item: an expression that gives a list, a list, or {range: N}."
    )
    condition: Annotated[
        Any,
        BeforeValidator(_condition),
        WithJsonSchema({"type": ["string", "boolean"]}),
    ] = Field(default=None, alias="if", description="An expression; the action is skipped when it is false.")
    trigger_rule: Annotated[TriggerRule, _word(TriggerRule)] = Field(
        default=TriggerRule.ALL_SUCCESS, description="How the actions in `needs` must have ended for this one to run."
    )
    retry: RetryDefinition | None = Field(default=None, description="Without it an action is tried once.")
    timeout_seconds: Seconds | None = Field(default=None, description="Seconds one attempt may take.")
    queue: Name | None = Field(default=None, description="The Celery queue whose workers run this action.")
    max_concurrent: Annotated[int, Field(ge=1, le=10_000)] | None = Field(
        default=None, description="Most items of this for_each at once."
    )
    continue_on_failure: bool = Field(default=False, description="Treat a failure as success for what follows.")
    durability: Annotated[Durability, _word(Durability)] = Field(
        default=Durability.NORMAL,
        description="sync: the result is committed to PostgreSQL before the next action starts.",
    )
    rate_limit: RateText | None = Field(
        default=None,
        description="How often it begins, in all runs of the workflow together, each item and attempt: 100/m, or "
        "100/m burst 20.",
    )


class Definition(_Part):
    """A workflow: a named graph of actions. Made by `load_definition` or the builder; immutable."""

    name: Name = Field(description="Name of the workflow.")
    description: str = Field(default="", max_length=10_000, description="For people.")
    payload_schema: dict[str, Any] | None = Field(default=None, description="JSON Schema that every payload must fit.")
    limits: LimitsDefinition = Field(default=LimitsDefinition(), description="Limits of its flow sessions.")
    queue: Name | None = Field(
        default=None, description=f"Queue of all actions that name none; by default {DEFAULT_QUEUE}."
    )
    output: Any = Field(default=None, description="Result of a run; by default the results of the last actions.")
    dispatch: Literal["counted", "chord"] | None = Field(
        default=None,
        description="How branches reach workers, and how the end of all is found: counted in Redis, or by a literal "
        "Celery chord; by default the setting DISPATCH.",
    )
    actions: dict[Name, ActionDefinition] = Field(min_length=1, description="The graph, by name of the action.")

    #: Set once `check.py` has found nothing, so that it is not checked twice.
    _checked: bool = PrivateAttr(default=False)
    _version_id: str = PrivateAttr(default="")

    def to_dict(self) -> dict[str, Any]:
        """The definition as JSON, without what has its default value; `load_definition` reads it back."""
        return self.model_dump(mode="json", by_alias=True, exclude_defaults=True)

    def to_yaml(self) -> str:
        """The definition as YAML; `load_definition` reads it back."""
        return to_yaml(self.to_dict())

    def to_python(self) -> str:
        """The definition as a Python module that builds it."""
        return to_python(self.to_dict())

    @property
    def version_id(self) -> str:
        """SHA-256 (hex) of the canonical JSON: the same content has the same version, however it was written."""
        if not self._version_id:
            canonical = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
            self._version_id = hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()
        return self._version_id

    def queue_of(self, action: str) -> str:
        """The Celery queue that an action runs on."""
        return self.actions[action].queue or self.queue or DEFAULT_QUEUE


def is_name(text: str) -> bool:
    """Whether `text` may be the name of a workflow, an action or a queue."""
    return re.fullmatch(NAME_PATTERN[1:-1], text) is not None
