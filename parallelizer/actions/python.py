"""The `python.call` action: a function that the operator has allowed, called by its name.

Whoever may write a definition must not gain the right to run any code that is installed on a worker. So nothing is
imported before its name has matched `PYTHON_CALL_ALLOWED`, and a name that matches must not lead elsewhere:

- No part of a name begins with `_`.
- Attributes are followed into classes only, never into modules or other objects: `myshop:os.system` is refused.
- Under `myshop.*`, what the name leads to must be a function that is defined in an allowed module too, so that
  `from subprocess import run` in a module does not offer `run` to all definitions. `myshop.tools:run`, written out by
  the operator, is a decision about that one function, and is called wherever it comes from.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from types import ClassMethodDescriptorType, MethodType, ModuleType
from typing import Any, cast

from orchestration.registry import ActionContext, action

SETTING = "PYTHON_CALL_ALLOWED"


class FunctionRefused(ValueError):
    """The function is not among those that the operator has allowed."""


class FunctionMissing(LookupError):
    """The function is allowed, and is not there on this worker."""


@action("python.call")
def call(ctx: ActionContext, function: str, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None) -> Any:
    """Call a Python function of the worker by its name and return what it returns, which must be JSON.

    Only functions that match the setting `PYTHON_CALL_ALLOWED` are called: `package.*` allows those defined anywhere in
    the package, `module:function` that one. Without the setting none is. A coroutine function is awaited.
    Args: function: as `module:function`, or `module:Class.function` for a static or class method.
        args, kwargs: what it is called with.
    Raises: FunctionRefused: it is not allowed. FunctionMissing: it is not there on this worker. Whatever it raises.
    """
    if isinstance(args, str) or not isinstance(args, Sequence):
        raise TypeError(f"args must be a list; it is {type(args).__name__}")
    if not isinstance(kwargs, Mapping | None):
        raise TypeError(f"kwargs must be an object; it is {type(kwargs).__name__}")
    allowed = cast("tuple[str, ...]", ctx.options.get(SETTING.lower(), ()))
    result = find_function(str(function), allowed)(*args, **(kwargs or {}))
    return asyncio.run(result) if inspect.iscoroutine(result) else result


def find_function(name: str, allowed: Collection[str]) -> Callable[..., Any]:
    """The function called `name`, where `allowed` has a pattern for it.

    Raises: FunctionRefused, FunctionMissing: see `call`.
    """
    module_name, _, path = name.partition(":")
    parts = path.split(".")
    if not all(part.isidentifier() for part in (*module_name.split("."), *parts)):
        raise FunctionRefused(f"{name!r} does not name a function; write module:function, as in myshop.orders:total")
    if any(part.startswith("_") for part in (*module_name.split("."), *parts)):
        raise FunctionRefused(f"{name!r} is private: a part of it begins with _, and such functions are never called")
    written_out = name in allowed
    if not written_out and not _is_within(module_name, allowed):
        known = f"it has {', '.join(sorted(allowed))}" if allowed else "it is empty, so python.call calls nothing"
        raise FunctionRefused(f"{name!r} is not allowed on this worker by {SETTING}: {known}")
    target = _follow(name, _import(module_name), parts)
    if not written_out:
        _check_origin(name, target, allowed)
    if not callable(target):
        raise FunctionRefused(f"{name!r} is a {type(target).__name__}, not a function")
    return cast("Callable[..., Any]", target)


def _is_within(module: str, allowed: Collection[str]) -> bool:
    """Whether the module is in a package that is allowed whole; only a dot ends a package's name."""
    packages = [pattern.removesuffix(".*") for pattern in allowed if pattern.endswith(".*")]
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def _import(module: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except Exception as error:
        raise FunctionMissing(f"the module {module!r} can't be imported on this worker: {error}") from error


def _follow(name: str, module: ModuleType, parts: Sequence[str]) -> object:
    holder: object = module
    for part in parts:
        if isinstance(holder, ModuleType):
            if not hasattr(holder, part):
                raise FunctionMissing(f"{name!r}: the module {holder.__name__} has no {part}")
            holder = getattr(holder, part)
            if isinstance(holder, ModuleType):
                raise FunctionRefused(f"{name!r}: {part} is a module; a module's name ends at the colon")
        elif isinstance(holder, type):
            holder = _member(name, holder, part)
        else:
            raise FunctionRefused(f"{name!r}: {part} is looked for in a {type(holder).__name__}, not in a class")
    return holder


def _member(name: str, holder: type, part: str) -> object:
    """What a class has under this name, if it can be called without an instance; runs no code of the class."""
    try:
        member = inspect.getattr_static(holder, part)
    except AttributeError:
        raise FunctionMissing(f"{name!r}: the class {holder.__qualname__} has no {part}") from None
    if isinstance(member, type):
        return member
    if not isinstance(member, (staticmethod, classmethod, ClassMethodDescriptorType)):
        raise FunctionRefused(f"{name!r}: {part} is neither a static nor a class method of {holder.__qualname__}")
    return member.__get__(None, holder)


def _check_origin(name: str, target: object, allowed: Collection[str]) -> None:
    if not inspect.isroutine(target):
        raise FunctionRefused(f"{name!r} is a {type(target).__name__}, not a function; {_remedy(name)}")
    origin = getattr(target.__func__ if isinstance(target, MethodType) else target, "__module__", None)
    if not isinstance(origin, str) or not _is_within(origin, allowed):
        raise FunctionRefused(
            f"{name!r} is defined in {origin or 'no module'}, which {SETTING} does not allow; {_remedy(name)}"
        )


def _remedy(name: str) -> str:
    return f"to call it all the same, {SETTING} must have {name} itself"
