"""YAML → JSON values, strictly: what can be a bomb or a surprise is refused.

Built from the parser's events and not with PyYAML's SafeLoader, because aliases, depth and duplicates must be refused
before anything is built: a plain `safe_load` takes a 306-byte file with 387 million leaves, and reads `on:` as true.
Scalars are those of YAML 1.2. Pure; called by `loader.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from orchestration.definition.places import DocumentPath, Places
from orchestration.errors import DefinitionError, Problem

MAX_YAML_BYTES = 1_048_576
MAX_YAML_DEPTH = 50

_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT = re.compile(r"[-+]?[0-9]+\Z")
_OCTAL = re.compile(r"0o[0-7]+\Z")
_HEX = re.compile(r"0x[0-9a-fA-F]+\Z")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?\Z")
_NOT_FINITE = re.compile(r"(?:[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))\Z")
#: An integer with more digits is beyond 64 bits anyway, and slow to read.
_MAX_DIGITS = 40
#: The C parser is about ten times as fast; wheels have it.
_PARSER: Any = getattr(yaml, "CLoader", yaml.Loader)


@dataclass(slots=True)
class _Open:
    """A mapping or list that is being read."""

    container: dict[str, object] | list[object]
    path: DocumentPath
    key: str | None = None
    seen: set[str] = field(default_factory=set)


def read_yaml(text: str, file: str = "", places: Places | None = None) -> object:
    """Read one YAML document.

    Args: places: filled with the place of every key and value when given.
    Raises: DefinitionError: not YAML, or a kind of YAML that is refused.
    """
    return _Reader(file, places).read(text)


def plain_scalar(text: str) -> object:
    """What an unquoted scalar is in YAML 1.2 (core schema): null, a boolean, a number or a string.

    Raises: ValueError: a number that JSON can't hold; the message says why.
    """
    if text in _NULL:
        return None
    if text in _BOOL:
        return _BOOL[text]
    if _INT.match(text) or _OCTAL.match(text) or _HEX.match(text):
        base = {"0o": 8, "0x": 16}.get(text[:2], 10)
        if len(text) <= _MAX_DIGITS and -(2**63) <= (number := int(text, base)) < 2**63:
            return number
        raise ValueError("an integer beyond 64 bits; write it in quotes")
    if _NOT_FINITE.match(text):
        raise ValueError(f"{text} is no JSON number")
    return float(text) if _FLOAT.match(text) else text


class _Reader:
    def __init__(self, file: str, places: Places | None) -> None:
        self._file = file
        self._places = places
        self._stack: list[_Open] = []
        self._result: object = None
        self._problems: list[Problem] = []

    def read(self, text: str) -> object:
        documents = 0
        for event in self._events(text):
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise self._error(event, "a second document begins here; write one definition into each file")
            elif isinstance(event, yaml.AliasEvent):
                raise self._error(event, f"alias *{event.anchor}: aliases are not supported; write the value out")
            elif isinstance(event, yaml.NodeEvent):
                self._node(event)
            elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
                self._stack.pop()
        if documents == 0:
            raise DefinitionError([Problem("there is nothing in it", file=self._file)])
        if self._problems:
            raise DefinitionError(self._problems)
        return self._result

    def _events(self, text: str) -> Iterator[Any]:
        try:
            yield from yaml.parse(text, Loader=_PARSER)
        except yaml.MarkedYAMLError as error:
            mark: Any = getattr(error, "problem_mark", None) or error.context_mark
            message = error.problem or error.context or "not YAML"
            hint = ""
            line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
            if "\t" in _indentation(text, line):
                message, hint = "a tab in the indentation", "YAML is indented with spaces"
            raise DefinitionError([*self._problems, Problem(message, "", self._file, line, column, hint)]) from None
        except yaml.YAMLError as error:
            line, column = _first_unprintable(text)
            reason = str(error).partition("\n")[0]
            raise DefinitionError(
                [*self._problems, Problem(f"not YAML: {reason}", "", self._file, line, column)]
            ) from None

    def _node(self, event: Any) -> None:
        if event.anchor is not None:
            raise self._error(event, f"anchor &{event.anchor}: anchors are not supported; write the value out")
        if event.tag is not None:
            raise self._error(event, f"tag {event.tag}: tags are not supported")
        parent = self._stack[-1] if self._stack else None
        if parent is not None and isinstance(parent.container, dict) and parent.key is None:
            self._key(event, parent)
            return
        path = self._path(parent)
        if self._places is not None:
            self._places.values[path] = _place(event)
        if isinstance(event, yaml.ScalarEvent):
            self._put(parent, self._scalar(event))
            return
        if len(self._stack) >= MAX_YAML_DEPTH:
            raise self._error(event, f"nested more than {MAX_YAML_DEPTH} deep")
        container: dict[str, object] | list[object] = {} if isinstance(event, yaml.MappingStartEvent) else []
        self._put(parent, container)
        self._stack.append(_Open(container, path))

    def _key(self, event: Any, parent: _Open) -> None:
        if not isinstance(event, yaml.ScalarEvent):
            raise self._error(event, "a key must be a string, not a mapping or list")
        key = self._scalar(event)
        if not isinstance(key, str):
            self._problems.append(self._problem(event, f'a key must be a string; write "{event.value}" in quotes'))
            key = str(event.value)
        if key in parent.seen:
            self._problems.append(self._problem(event, f"key {key!r} is here twice"))
        parent.seen.add(key)
        parent.key = key
        if self._places is not None:
            self._places.keys[(*parent.path, key)] = _place(event)

    def _path(self, parent: _Open | None) -> DocumentPath:
        if parent is None or self._places is None:
            return ()
        if isinstance(parent.container, list):
            return (*parent.path, len(parent.container))
        return (*parent.path, parent.key or "")

    def _put(self, parent: _Open | None, value: object) -> None:
        if parent is None:
            self._result = value
        elif isinstance(parent.container, list):
            parent.container.append(value)
        else:
            assert parent.key is not None
            parent.container[parent.key] = value
            parent.key = None

    def _scalar(self, event: Any) -> object:
        text: str = event.value
        if event.style:
            return text
        try:
            return plain_scalar(text)
        except ValueError as error:
            self._problems.append(self._problem(event, str(error)))
            return 0

    def _problem(self, event: Any, message: str) -> Problem:
        return Problem(message, "", self._file, *_place(event))

    def _error(self, event: Any, message: str) -> DefinitionError:
        return DefinitionError([*self._problems, self._problem(event, message)])


def _place(event: Any) -> tuple[int, int]:
    return event.start_mark.line + 1, event.start_mark.column + 1


def _indentation(text: str, line: int) -> str:
    lines = text.split("\n")
    whole = lines[line - 1] if 0 < line <= len(lines) else ""
    return whole[: len(whole) - len(whole.lstrip(" \t"))]


def _first_unprintable(text: str) -> tuple[int, int]:
    match = re.search(r"[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", text)
    if match is None:
        return 0, 0
    return text.count("\n", 0, match.start()) + 1, match.start() - text.rfind("\n", 0, match.start())
