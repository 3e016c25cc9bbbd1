"""Expressions of a definition, ready to be evaluated: `if`, `with`, `for_each`.

Plain paths are resolved in Python at almost no cost; everything else goes to CEL (`cel.py`), compiled at the first
use and kept. Objects are immutable and shared by all sessions of a process. Called by the engine for each task.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import zip_longest
from typing import Final, cast

from orchestration.definition.cel import Program
from orchestration.definition.cel_source import MAX_SOURCE_BYTES, WrongExpression, read_source, tokenize
from orchestration.definition.scope import ABSENT, Path, Scope, kind_of
from orchestration.errors import ExpressionError

__all__ = ["ABSENT", "Condition", "Expression", "ItemSource", "Path", "Scope", "Template", "WrongExpression"]

OPENING: Final = "${{"
#: Stands for a literal `${{`.
ESCAPED: Final = "$${{"
#: Longest text with expressions in it; a large value can be inserted again and again.
MAX_TEXT_LENGTH = 16_777_216

_Render = Callable[[Scope], object]


class Expression:
    """One expression; the same object for the same text."""

    __slots__ = ("_program", "evaluate", "references", "text", "uses_item")

    #: Returns the value; a plain path's value itself, not a copy. Raises: ExpressionError.
    evaluate: _Render

    def __init__(self, text: str) -> None:
        source = read_source(text)
        self.text = text.strip()
        self.references = source.references
        self.uses_item = source.uses_item
        self._program = None if source.plain is not None else Program(source)
        self.evaluate = self._evaluate if source.plain is None else _reader(source.plain)

    @staticmethod
    def of(text: str) -> Expression:
        """Return the expression for a text.

        Raises: WrongExpression: see `read_source`; whether CEL can compile it is said by `check`.
        """
        return _expression(text)

    def check(self) -> str:
        """Compile now; returns CEL's name of the result's type, `DYN` where it is known only at run time.

        Raises: WrongExpression: with the place in the text.
        """
        return self._program.compile() if self._program is not None else "DYN"

    def _evaluate(self, scope: Scope) -> object:
        assert self._program is not None
        try:
            return self._program.evaluate(scope)
        except ExpressionError as error:
            raise ExpressionError(f"{self.text}: {error}") from None


class Condition:
    """`if`: an expression (bare or in `${{ }}`) that gives a boolean, or a boolean."""

    __slots__ = ("_constant", "_expression", "references", "uses_item")

    def __init__(self, value: str | bool) -> None:
        self._constant = value if isinstance(value, bool) else None
        self._expression = None if isinstance(value, bool) else Expression.of(bare(value)[0])
        self.references = self._expression.references if self._expression else frozenset()
        #: Whether it is evaluated for each item and not once before them.
        self.uses_item = self._expression.uses_item if self._expression else False

    def evaluate(self, scope: Scope) -> bool:
        """Whether the action runs.

        Raises: ExpressionError: it can't be evaluated, or gives something else than a boolean.
        """
        if self._expression is None:
            return bool(self._constant)
        value = self._expression.evaluate(scope)
        if value is True or value is False:
            return value
        raise ExpressionError(
            f"{self._expression.text}: a condition must be true or false, but this is {kind_of(value)}"
        )


class Template:
    """`with` or `output`: JSON in whose strings expressions may stand."""

    __slots__ = ("_constant", "_render", "references", "uses_item")

    def __init__(self, value: object) -> None:
        found: list[Expression] = []
        render = _compile_value(value, found)
        self._render = render
        self._constant = None if render is not None else _unescaped(value)
        self.references = frozenset().union(*(expression.references for expression in found))
        self.uses_item = any(expression.uses_item for expression in found)

    def render(self, scope: Scope) -> object:
        """Return the value with its expressions evaluated.

        What holds no expression, and what a plain path leads to, is the same object each time: the caller must not
        change it.
        Raises: ExpressionError: one of them can't be evaluated.
        """
        return self._constant if self._render is None else self._render(scope)


class ItemSource:
    """`for_each`: an expression that gives a list, a list, or `{range: N}`."""

    __slots__ = ("_count", "_template", "references", "size", "uses_item")

    def __init__(self, value: str | Sequence[object] | Mapping[str, object]) -> None:
        self._count = isinstance(value, Mapping)
        inner: object = value
        #: How many items, where that is written in the definition; else None.
        self.size: int | None = None
        if isinstance(value, Mapping):
            inner = value["range"]
            self.size = inner if isinstance(inner, int) else None
        elif not isinstance(value, str):
            inner = list(value)
            self.size = len(value)
        if isinstance(inner, str):
            inner = f"{OPENING} {bare(inner)[0]} }}}}"
        self._template = Template(inner)
        self.references = self._template.references
        self.uses_item = self._template.uses_item

    def resolve(self, scope: Scope) -> Sequence[object] | range:
        """Return the items; a list behind a plain path is that list itself, so the caller must not change it.

        Raises: ExpressionError: it can't be evaluated, or gives no list (no whole number of at least 0).
        """
        value = self._template.render(scope)
        if self._count:
            if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
                return range(value)
            shown = value if isinstance(value, (int, float)) else kind_of(value)
            raise ExpressionError(f"for_each: range must be a whole number of at least 0, but is {shown}")
        if isinstance(value, (list, tuple, range)):
            return value
        raise ExpressionError(f"for_each must give a list, but this is {kind_of(value)}")


def bare(text: str) -> tuple[str, int]:
    """Take the `${{ }}` off an expression that stands alone; returns the source and its offset in the text."""
    stripped = text.strip()
    if stripped.startswith(OPENING):
        parts = list(split_text(stripped))
        if len(parts) == 1 and not isinstance(parts[0], str):
            source, offset = parts[0]
            return source, offset + text.index(stripped)
    return text, 0


def split_text(text: str) -> Iterator[str | tuple[str, int]]:
    """Split a string into literal text and (source of an expression, its offset).

    Raises: WrongExpression: an expression is not closed.
    """
    done = 0
    literal: list[str] = []
    while (start := text.find(OPENING, done)) >= 0:
        if text.startswith(ESCAPED, start - 1) and start > done:
            literal.append(text[done : start - 1] + OPENING)
            done = start + len(OPENING)
            continue
        literal.append(text[done:start])
        if any(literal):
            yield "".join(literal)
        literal.clear()
        end = _closing(text, start + len(OPENING))
        yield text[start + len(OPENING) : end], start + len(OPENING)
        done = end + 2
    literal.append(text[done:])
    if any(literal):
        yield "".join(literal)


def _closing(text: str, start: int) -> int:
    """The offset of the `}}` that ends the expression: not one in a string, nor one that closes a mapping."""
    depth = 0
    window = text[start : start + MAX_SOURCE_BYTES + 2]
    tokens = tokenize(window)
    for token, after in zip_longest(tokens, tokens[1:]):
        if token.kind != "mark":
            continue
        if token.text == "{":
            depth += 1
        elif token.text == "}":
            if depth == 0 and after is not None and after.text == "}" and after.offset == token.offset + 1:
                return start + token.offset
            depth = max(depth - 1, 0)
    if len(text) - start > MAX_SOURCE_BYTES:
        raise WrongExpression(f"an expression has no }}}} within {MAX_SOURCE_BYTES} characters", start - len(OPENING))
    raise WrongExpression("an expression begins with ${{ but has no }} (a string in it may not be closed)", start - 3)


@lru_cache(maxsize=8192)
def _expression(text: str) -> Expression:
    return Expression(text)


def _reader(path: Path) -> _Render:
    """The function that reads a plain path."""
    if path.root == "tasks" and len(path.keys) == 1:
        # The whole of a task, which the engine gives as a view and not as a dict.
        return lambda scope: dict(cast("Mapping[str, object]", path.resolve(scope)))
    return path.resolve


def _compile_value(value: object, found: list[Expression]) -> _Render | None:
    """Return a function that renders `value`, or None if there is no expression in it."""
    if isinstance(value, str):
        return _compile_text(value, found)
    if isinstance(value, Mapping):
        return _compile_mapping(value, found)
    if isinstance(value, (list, tuple)):
        parts = [(_compile_value(element, found), _unescaped(element)) for element in value]
        if all(render is None for render, _ in parts):
            return None
        return lambda scope: [constant if render is None else render(scope) for render, constant in parts]
    return None


def _compile_mapping(value: Mapping[str, object], found: list[Expression]) -> _Render | None:
    parts = [(key, _compile_value(element, found), element) for key, element in value.items()]
    dynamic = [(key, render) for key, render, _ in parts if render is not None]
    if not dynamic:
        return None
    constants = {key: None if render is not None else _unescaped(element) for key, render, element in parts}
    if len(constants) == 1:
        name, only = dynamic[0]
        return lambda scope: {name: only(scope)}

    def render_mapping(scope: Scope) -> object:
        rendered = constants.copy()
        for key, render in dynamic:
            rendered[key] = render(scope)
        return rendered

    return render_mapping


def _compile_text(text: str, found: list[Expression]) -> _Render | None:
    if OPENING not in text:
        return None
    parts: list[str | _Render] = []
    for part in split_text(text):
        if isinstance(part, str):
            parts.append(part)
            continue
        source, offset = part
        try:
            expression = Expression.of(source)
        except WrongExpression as error:
            raise WrongExpression(f"{source.strip()}: {error}", offset + error.offset) from None
        found.append(expression)
        parts.append(expression.evaluate)
    if not found or all(isinstance(part, str) for part in parts):
        return None
    if len(parts) == 1:
        only = parts[0]
        assert not isinstance(only, str)
        return only
    return lambda scope: _join(parts, scope)


def _join(parts: list[str | _Render], scope: Scope) -> str:
    texts: list[str] = []
    length = 0
    for part in parts:
        text = part if isinstance(part, str) else _formatted(part(scope))
        length += len(text)
        if length > MAX_TEXT_LENGTH:
            raise ExpressionError(f"text with expressions in it is longer than {MAX_TEXT_LENGTH} characters")
        texts.append(text)
    return "".join(texts)


def _formatted(value: object) -> str:
    """A value inside text: strings as they are, others as JSON."""
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=_json_of_view)


def _json_of_view(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    raise ExpressionError(f"{kind_of(value)} can't be written into text")


def _unescaped(value: object) -> object:
    """A value without expressions, with `$${{` turned into `${{`; the value itself where there is none."""
    if isinstance(value, str):
        return "".join(part for part in split_text(value) if isinstance(part, str)) if OPENING in value else value
    if isinstance(value, Mapping):
        return {key: _unescaped(element) for key, element in value.items()}
    if isinstance(value, (list, tuple)):
        return [_unescaped(element) for element in value]
    return value
