"""The registry of actions: `@action`, look-up by name, and where actions are found.

Users' modules import `action` and `ActionContext` from `orchestration`; nothing heavier is loaded with them.
Actions are found in the modules named by `ACTION_MODULES` and in the entry-point group `parallelizer.actions`.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from types import MappingProxyType
from typing import Any, Protocol, TypeVar, get_type_hints, overload

from orchestration.errors import ActionError

ENTRY_POINT_GROUP = "parallelizer.actions"


class ActionContext(Protocol):
    """What an action receives when its first parameter is called `ctx`."""

    flow_session_id: str
    workflow: str
    action: str
    #: Index of the `for_each` item, from 0, or None.
    item: int | None
    #: 1 for the first execution, one more for each retry or re-run after a crash.
    attempt: int
    #: The same for every attempt of this action (and item) in this flow session.
    idempotency_key: str
    #: A logger that carries the ids.
    logger: Any
    #: Settings for built-in actions, by their names in small letters.
    options: Mapping[str, object]

    @property
    def cancelled(self) -> bool:
        """Whether the flow session was cancelled: an action that looks can end by itself, at a place of its choice."""

    def raise_if_cancelled(self) -> None:
        """Do nothing, or raise `orchestration.Cancelled`."""


@dataclass(frozen=True, slots=True)
class ActionParameter:
    """One input of an action."""

    name: str
    #: The annotation as an object, or `Any`.
    annotation: Any
    required: bool


@dataclass(frozen=True, slots=True)
class ActionSpec:
    """A registered action."""

    name: str
    function: Callable[..., Any]
    is_async: bool
    takes_context: bool
    parameters: Mapping[str, ActionParameter]
    #: True when the function has `**kwargs`, so that any input is accepted.
    accepts_any: bool
    summary: str = field(default="", compare=False)


F = TypeVar("F", bound=Callable[..., Any])
_registered: dict[str, ActionSpec] = {}
_loading = threading.Lock()
_loaded: set[str] = set()


@overload
def action(name: F) -> F: ...
@overload
def action(name: str | None = None) -> Callable[[F], F]: ...
def action(name: F | str | None = None) -> F | Callable[[F], F]:
    """Register a function as an action; used as `@action("shop.charge")` or bare, `@action`.

    Args: name: how definitions call it (`uses:`); by default `<last part of the module>.<function name>`.
    Returns: the function itself, unchanged, so that it stays callable and testable.
    Raises: ActionError: another function is registered under this name, or the function can't be an action.
    """

    def register(function: F) -> F:
        chosen = name if isinstance(name, str) else f"{function.__module__.rpartition('.')[2]}.{function.__name__}"
        spec = describe(chosen, function)
        known = _registered.get(chosen)
        if known is not None and not _same_function(known.function, function):
            raise ActionError(
                f"two functions are registered as action {chosen!r}: {_where(known.function)} and {_where(function)}; "
                "give one of them another name"
            )
        _registered[chosen] = spec
        return function

    return register(name) if callable(name) else register


def describe(name: str, function: Callable[..., Any]) -> ActionSpec:
    """Read an action's inputs from its signature.

    Raises: ActionError: it has positional-only parameters or `*args`, which `with:` can't fill.
    """
    signature = inspect.signature(function)
    try:
        hints = get_type_hints(function)
    except (NameError, TypeError):
        hints = {}
    parameters: dict[str, ActionParameter] = {}
    takes_context = accepts_any = False
    for position, parameter in enumerate(signature.parameters.values()):
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.VAR_POSITIONAL):
            raise ActionError(f"action {name!r} ({_where(function)}): parameter {parameter} can't be filled by name")
        if parameter.kind is parameter.VAR_KEYWORD:
            accepts_any = True
        elif position == 0 and parameter.name == "ctx":
            takes_context = True
        else:
            parameters[parameter.name] = ActionParameter(
                parameter.name, hints.get(parameter.name, Any), parameter.default is parameter.empty
            )
    summary = (inspect.getdoc(function) or "").partition("\n")[0]
    return ActionSpec(
        name, function, inspect.iscoroutinefunction(function), takes_context, MappingProxyType(parameters),
        accepts_any, summary,
    )  # fmt: skip


def load_actions(modules: Iterable[str]) -> None:
    """Import the entry points of `parallelizer.actions` and the given modules, each once per process.

    Raises: ActionError: a module can't be imported; the message names it and the reason.
    """
    with _loading:
        for entry in entry_points(group=ENTRY_POINT_GROUP):
            _import_once(entry.module, f"entry point {entry.name!r} of {ENTRY_POINT_GROUP}")
        for module in modules:
            _import_once(module, "ACTION_MODULES")


def find_action(name: str) -> ActionSpec:
    """Return the action registered under `name`.

    Raises: ActionError: there is none; the message offers the nearest names.
    """
    spec = _registered.get(name)
    if spec is None:
        near = difflib.get_close_matches(name, _registered, n=3)
        offer = f"did you mean {' or '.join(near)}?" if near else "name its module in ACTION_MODULES"
        raise ActionError(f"unknown action {name!r}; {offer}")
    return spec


def registered_actions() -> Mapping[str, ActionSpec]:
    """All actions known to this process, by name."""
    return MappingProxyType(_registered)


def _import_once(module: str, origin: str) -> None:
    if module in _loaded:
        return
    try:
        importlib.import_module(module)
    except Exception as error:
        raise ActionError(f"can't import action module {module!r} ({origin}): {error}") from error
    _loaded.add(module)


def _same_function(one: Callable[..., Any], other: Callable[..., Any]) -> bool:
    return (one.__module__, one.__qualname__) == (other.__module__, other.__qualname__)


def _where(function: Callable[..., Any]) -> str:
    return f"{function.__module__}.{function.__qualname__}"
