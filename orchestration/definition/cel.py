"""The only module that knows the CEL library (cel-expr-python): compile, evaluate, convert, say what went wrong.

Traps of version 0.1.3: errors come back as values, hence the test of each result's type; a conversion at once
(`plain_value`) of a result that shares parts can take gigabytes, hence the walk with a budget.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from cel_expr_python import cel
from cel_expr_python.ext import ext_math, ext_optional, ext_strings

from orchestration.definition.cel_limits import MAX_INPUT_DEPTH, Weight, check_cost
from orchestration.definition.cel_source import MAX_SOURCE_BYTES, Source, WrongExpression
from orchestration.definition.scope import ROOTS, Scope
from orchestration.errors import ExpressionError

#: Most values (elements, fields) in the result of one expression.
MAX_RESULT_VALUES = 200_000
#: A path is at least five characters with what stands after it, so no source has more.
_MAX_VARIABLES = MAX_SOURCE_BYTES // 5 + 1
_PLACE = re.compile(r"<input>:(-?\d+):(-?\d+): (.*)")
_UNDECLARED = re.compile(r"undeclared reference to '([^']*)'")
_UNBOUND = re.compile(r'No value with name "([A-Z]\d+)" found')
_STATUS = re.compile(r"^[A-Z_]+: | \[[A-Z_]+\]$")
_NOT_JSON = {
    "BYTES": "bytes; convert them with string(…) or base64",
    "TIMESTAMP": "a timestamp; convert it with string(…)",
    "DURATION": "a duration; convert it with string(…)",
    "TYPE": "a type; compare it, or convert it with string(…)",
}


@dataclass(slots=True)
class _Needed:
    """A variable of the rewritten source and where it stands."""

    variable: str
    resolve: Callable[[Scope], object]
    #: How often it stands in the body of a loop.
    body_uses: int = 0
    #: Its length does not matter to the loop: it stands only in the body of the only one.
    never_looped_over: bool = True


class Program:
    """A compiled expression. Compiles at the first use; evaluation is thread-safe."""

    __slots__ = ("_compiled", "_needed", "source")

    def __init__(self, source: Source) -> None:
        self.source = source
        self._compiled: Any = None
        self._needed = tuple(_needed(source).values())

    def compile(self) -> str:
        """Compile, and return the name of the result's type where CEL knows it (`BOOL`, `DYN`, …).

        Raises: WrongExpression: with the place in the source.
        """
        if self._compiled is None:
            try:
                self._compiled = _environment(self.source.prefix).compile(self.source.rewritten)
            except Exception as error:  # noqa: BLE001 - the library raises bare RuntimeError and pybind11's errors
                raise _compile_error(self.source, str(error)) from None
        return str(self._compiled.return_type().name())

    def evaluate(self, scope: Scope) -> object:
        """Evaluate; the result is JSON.

        Raises: ExpressionError: something is absent, of a wrong type, too costly or no JSON.
        """
        self.compile()
        values: dict[str, object] = {}
        absent: dict[str, ExpressionError] = {}
        weight, body_weight = Weight(), 0
        for needed in self._needed:
            try:
                value = needed.resolve(scope)
            except ExpressionError as error:
                # Not an error yet: has(), &&, || and ?: may never look at it.
                absent[needed.variable] = error
                continue
            longest_list = weight.longest_list
            body_weight += needed.body_uses * weight.add(value)
            if needed.never_looped_over:
                weight.longest_list = longest_list
            values[needed.variable] = _without_views(value)
        if self.source.loops or weight.longest_text > 1000 or weight.longest_list > 1000:
            check_cost(self.source, weight, body_weight)
        try:
            result = self._compiled.eval(data=values)
            kind = result.type().name()
            if kind != "ERROR":
                return _plain(result, kind)
            message = str(result.value())
        except ExpressionError:
            raise
        except TypeError:
            message = "it gives an optional value; end it with .orValue(…)"
        except Exception as error:  # noqa: BLE001 - see compile
            message = str(error)
        raise _evaluation_error(message, absent)


def _needed(source: Source) -> dict[str, _Needed]:
    needed: dict[str, _Needed] = {}
    joins = any(token.text == "join" for token in source.tokens)
    for use in source.uses:
        one = needed.setdefault(use.variable, _Needed(use.variable, use.path.resolve))
        one.body_uses += use.loop_depth > 0
        one.never_looped_over &= use.loop_depth > 0 and len(source.loops) == 1 and not joins
    return needed


@lru_cache(maxsize=8)
def _environment(prefix: str) -> Any:
    return cel.NewEnv(
        variables={f"{prefix}{number}": cel.Type.DYN for number in range(_MAX_VARIABLES)},
        extensions=[ext_strings.ExtStrings(), ext_optional.ExtOptional(), ext_math.ExtMath()],
    )


def _without_views(value: object) -> object:
    """Mappings other than dicts as dicts, tuples as lists: CEL takes no others. Depth has been checked."""
    kind = type(value)
    if kind in (str, int, float, bool) or value is None:
        return value
    if isinstance(value, Mapping):
        return {key: _without_views(element) for key, element in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_views(element) for element in value]
    return value


def _plain(result: Any, kind: str) -> object:
    return _Conversion().convert(result, kind, 0)


class _Conversion:
    """CEL's result as JSON, within a budget: shared parts are written out each time they occur."""

    def __init__(self) -> None:
        self._left = MAX_RESULT_VALUES

    def convert(self, value: Any, kind: str, depth: int) -> object:
        if kind in ("STRING", "INT", "UINT", "BOOL", "NULL"):
            return value.value()
        if depth > MAX_INPUT_DEPTH:
            raise ExpressionError(f"its result is nested more than {MAX_INPUT_DEPTH} deep")
        if kind == "DOUBLE":
            number = value.value()
            if not math.isfinite(number):
                raise ExpressionError(f"it gives {number}, which is no JSON number")
            return number
        if kind.startswith("LIST"):
            elements = self._spend(value.value())
            return [self.convert(element, element.type().name(), depth + 1) for element in elements]
        if kind.startswith("MAP"):
            fields = self._spend(value.value())
            if not all(isinstance(key, str) for key in fields):
                raise ExpressionError("it gives a mapping whose keys are not strings, which is no JSON")
            return {key: self.convert(element, element.type().name(), depth + 1) for key, element in fields.items()}
        raise ExpressionError(f"it gives {_NOT_JSON.get(kind, f'a value of type {kind}')}")

    def _spend(self, container: Any) -> Any:
        self._left -= len(container)
        if self._left < 0:
            raise ExpressionError(f"its result has more than {MAX_RESULT_VALUES} values. Do this in an action")
        return container


def _compile_error(source: Source, message: str) -> WrongExpression:
    match = _PLACE.search(message)
    if match is None:
        return WrongExpression(_clean(message.partition("\n")[0]))
    line, column, text = int(match.group(1)), int(match.group(2)), _clean(match.group(3))
    offset = 0
    if line > 0:
        lines = source.rewritten.split("\n")
        offset = source.original_offset(sum(len(one) + 1 for one in lines[: line - 1]) + max(column - 1, 0))
    undeclared = _UNDECLARED.search(text)
    if undeclared is not None:
        name = undeclared.group(1).partition(".")[0]
        text = _unknown_name(name)
        # CEL points at the dot behind the name.
        offset = max(source.text.rfind(name, 0, offset + len(name)), 0)
    elif "recursion" in text:
        text = "it is nested too deep (or has more than about 30 operators in a row)"
    return WrongExpression(text, offset)


def _unknown_name(name: str) -> str:
    near = difflib.get_close_matches(name, ROOTS, n=1)
    offer = f"did you mean {near[0]}?" if near else f"expressions know {', '.join(ROOTS)}"
    return f"unknown name {name!r}; {offer}"


def _evaluation_error(message: str, absent: dict[str, ExpressionError]) -> ExpressionError:
    unbound = _UNBOUND.search(message)
    if unbound is not None and unbound.group(1) in absent:
        return absent[unbound.group(1)]
    if "Iteration budget exceeded" in message:
        return ExpressionError("its macros loop more than 10,000 times. Do this in an action")
    if "Applying SELECT to non-message type" in message:
        return ExpressionError("a field is asked of something that is no mapping")
    if "No matching overloads" in message and "int64" in message and "double" in message:
        return ExpressionError(f"{_clean(message)}; whole numbers and decimals don't mix: convert with double(…)")
    return ExpressionError(_clean(message))


def _clean(message: str) -> str:
    text = _STATUS.sub("", message.strip())
    return (text[:1].lower() + text[1:])[:500] if text else "it can't be evaluated"
