"""Refuses an evaluation that could cost too much time or memory, before it starts.

CEL always ends, but not soon: in cel-expr-python 0.1.3 `map` and `filter` take 16 bytes × n² (1.6 GB for 10,000
elements, measured), and text can be multiplied without end. A running evaluation can't be interrupted and its memory
is not bounded, so an upper bound is computed from the sizes of the values used and the source. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from orchestration.definition.cel_source import BINDERS, Source, Token
from orchestration.definition.scope import kind_of
from orchestration.errors import ExpressionError

#: Size and nesting of the values that one expression uses.
MAX_INPUT_BYTES = 1_048_576
MAX_INPUT_DEPTH = 100
#: Memory of the lists that `map` and `filter` build.
MAX_LOOP_BYTES = 128 * 1_048_576
#: Text that an expression could build.
MAX_TEXT_BYTES = 64 * 1_048_576
#: About 10⁹ units are done in a second (measured: 17 ns for a comparison of two elements, which counts 16).
MAX_WORK = 500_000_000
#: CEL's own bound on all iterations of one evaluation.
MAX_ITERATIONS = 10_000
ELEMENT_WEIGHT = 16
#: A number, as JSON and with its comma; about.
NUMBER_BYTES = 8
_INT64 = 2**63


@dataclass(slots=True)
class Weight:
    """Sizes of the values that an expression uses, added up."""

    size_bytes: int = 0
    #: Length of the longest string, and of the longest list or mapping.
    longest_text: int = 0
    longest_list: int = 0
    #: Weight of the heaviest value that is an element of something.
    element: int = 0

    def add(self, value: object) -> int:
        """Measure a value; returns its weight.

        Raises: ExpressionError: it is too large, too deep, or no JSON.
        """
        if type(value) is bool or value is None:
            return 1
        return self._add(value, 0)

    def _add(self, value: object, depth: int) -> int:
        kind = type(value)
        if kind is str:
            _refuse_nul(value)  # type: ignore[arg-type]
            length = len(value)  # type: ignore[arg-type]
            self.longest_text = max(self.longest_text, length)
            self._count(length + 2)
            return ELEMENT_WEIGHT + length
        if isinstance(value, (list, tuple, Mapping)):
            return self._add_container(value, depth)
        if kind is int:
            if not -_INT64 <= value < _INT64:  # type: ignore[operator]
                raise ExpressionError("an integer beyond 64 bits can't be used in an expression")
        elif kind is float:
            if not math.isfinite(value):  # type: ignore[arg-type]
                raise ExpressionError(f"{value} can't be used in an expression")
        elif kind is not bool and value is not None:
            raise ExpressionError(f"{kind_of(value)} can't be used in an expression; only JSON can")
        self._count(NUMBER_BYTES)
        return ELEMENT_WEIGHT

    def _add_container(self, value: list[object] | tuple[object, ...] | Mapping[object, object], depth: int) -> int:
        if depth >= MAX_INPUT_DEPTH:
            raise ExpressionError(f"the values used are nested more than {MAX_INPUT_DEPTH} deep; do this in an action")
        weight = ELEMENT_WEIGHT
        self.longest_list = max(self.longest_list, len(value))
        self._count(2)
        elements: Iterable[object] = value
        if isinstance(value, Mapping):
            for key in value:
                if not isinstance(key, str):
                    raise ExpressionError("a mapping whose keys are not strings can't be used in an expression")
                _refuse_nul(key)
                weight += len(key)
                self._count(len(key) + 3)
            elements = value.values()
        for element in elements:
            one = self._add(element, depth + 1)
            self.element = max(self.element, one)
            weight += one
        return weight

    def _count(self, size_bytes: int) -> None:
        self.size_bytes += size_bytes
        if self.size_bytes > MAX_INPUT_BYTES:
            raise ExpressionError(
                f"the values used have more than {MAX_INPUT_BYTES} bytes; "
                "only plain paths (payload.a.b) may be larger. Do this in an action"
            )


def _refuse_nul(text: str) -> None:
    if "\x00" in text:
        # cel-expr-python 0.1.3 cuts strings off there.
        raise ExpressionError("a string with a NUL character can't be used in an expression")


def check_cost(source: Source, weight: Weight, body_weight: int) -> None:
    """Refuse the evaluation if an upper bound of its cost is too high.

    Args: weight: of all values used. body_weight: of those used in the bodies of loops.
    Raises: ExpressionError: the message says what is too much.
    """
    names = [token.text for token in source.tokens if token.kind == "name"]
    marks = [token.text for token in source.tokens if token.kind == "mark"]
    pluses, commas = marks.count("+"), marks.count(",")
    literal = max((len(token.text) for token in source.tokens if token.kind == "string"), default=0)
    text = max(weight.longest_text, literal)
    length = max(weight.longest_list, commas + 1)
    if "split" in names:
        length = max(length, text)
    length *= _list_pluses(source) + 1
    iterations = _iterations(source, length)
    _check_loops(source, length)
    work = iterations * body_weight
    if any(loop.depth for loop in source.loops):
        work += iterations * weight.element
    if "indexOf" in names or "lastIndexOf" in names:
        # 5 × 10¹⁰ comparisons of characters in a second (measured), so 50 for one unit.
        work += max(iterations, 1) * text * text // 50
    if work > MAX_WORK:
        raise ExpressionError(
            "it would take too long: its macros go through large values again and again. Do this in an action"
        )
    builds = pluses or any(name in ("replace", "join", "format") for name in names)
    if builds and _text_bound(source, names, pluses, commas, text, length, weight.size_bytes) > MAX_TEXT_BYTES:
        raise ExpressionError(f"it could build more than {MAX_TEXT_BYTES} bytes of text. Do this in an action")


def _list_pluses(source: Source) -> int:
    """How often `+` may lengthen a list that is looped over: not beside a literal, nor in a body without a loop."""
    nested = any(loop.depth for loop in source.loops)
    count = 0
    for position, token in enumerate(source.tokens):
        if token.kind != "mark" or token.text != "+":
            continue
        beside_literal = any(other.kind in ("string", "number") for other in source.tokens[position - 1 : position + 2])
        in_body = any(low <= position < high for low, high in source.bodies)
        count += not beside_literal and (nested or not in_body)
    return count


def _iterations(source: Source, length: int) -> int:
    total: int = sum(length ** (loop.depth + 1) for loop in source.loops)
    return min(MAX_ITERATIONS, total)


def _check_loops(source: Source, length: int) -> None:
    collected: int = sum(
        16 * length * length * min(length**loop.depth, MAX_ITERATIONS // max(length, 1) + 1)
        for loop in source.loops
        if loop.macro in ("map", "filter")
    )
    if collected > MAX_LOOP_BYTES:
        raise ExpressionError(
            f"map and filter over {length} elements would take too much memory; one of them can take 2000 elements. "
            "Do this in an action"
        )


def _text_bound(
    source: Source, names: list[str], pluses: int, commas: int, text: int, length: int, size_bytes: int
) -> float:
    """An upper bound, in characters, of the text that the expression builds in all."""
    rounds = len(source.loops) + sum(name in BINDERS for name in names) + 1
    joins = pluses + (commas if "join" in names or "format" in names else 0)
    growth = (joins / rounds + 1) ** rounds
    for position, token in enumerate(source.tokens):
        if token.kind == "name" and token.text == "replace":
            growth *= _replace_growth(source.tokens[position + 1 : position + 5], text)
    if source.loops:
        base = text * _iterations(source, length)
    elif "join" in names:
        base = size_bytes + text * length if source.uses else text * length
    else:
        base = max(text, 1)
    return growth * base


def _replace_growth(arguments: tuple[Token, ...], text: int) -> float:
    """How many times longer `replace` can make a string: with two literals that is known."""
    kinds = [token.kind for token in arguments]
    if kinds == ["mark", "string", "mark", "string"]:
        old, new = len(arguments[1].text) - 2, len(arguments[3].text) - 2
        return max(1.0, new / old) if old else new + 1.0
    return float(text + 1)
