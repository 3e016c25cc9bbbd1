"""Where in a definition something is: paths as messages print them, and their lines and columns. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from orchestration.errors import Problem

#: Keys and indexes from the top of the document: `("actions", "ship", "needs", 1)`.
DocumentPath = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Finding:
    """A mistake at a path, before its line is known."""

    path: DocumentPath
    message: str
    hint: str = ""
    #: Characters into the string at `path`.
    offset: int = 0
    #: The key is meant and not its value.
    at_key: bool = False


@dataclass(slots=True)
class Places:
    """Line and column, from 1, of every key and value of a document."""

    values: dict[DocumentPath, tuple[int, int]] = field(default_factory=dict)
    keys: dict[DocumentPath, tuple[int, int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Document:
    """What was read: the values, and how to find their places (only needed when something is wrong)."""

    value: object
    file: str = ""
    text: str = ""
    find_places: Callable[[], Places] = Places

    def problems(self, findings: list[Finding]) -> list[Problem]:
        """Findings as problems, in the order of the file."""
        places = self.find_places() if findings else Places()
        lines = self.text.split("\n") if self.text else []
        problems = [self._problem(finding, places, lines) for finding in dict.fromkeys(findings)]
        return sorted(problems, key=lambda problem: (problem.line, problem.column)) if lines else problems

    def _problem(self, finding: Finding, places: Places, lines: list[str]) -> Problem:
        path = finding.path
        line = column = 0
        if finding.at_key and path in places.keys:
            line, column = places.keys[path]
        else:
            while path and path not in places.values:
                path = path[:-1]
            line, column = places.values.get(path, (0, 0))
            if finding.offset and path == finding.path:
                # YAML knows more kinds of line ends than we split at, so a line may be beyond ours.
                rest_of_line = lines[line - 1][column - 1 :] if 0 < line <= len(lines) else ""
                column += _shift(self.value, finding, rest_of_line)
        return Problem(finding.message, field_text(finding.path), self.file, line, column, finding.hint)


def field_text(path: DocumentPath) -> str:
    """A path as messages print it: `actions.ship.needs[1]`, `actions["a.b"].uses`."""
    parts: list[str] = []
    for key in path:
        if isinstance(key, int):
            parts.append(f"[{key}]")
        elif key.replace("-", "_").isidentifier():
            parts.append(f".{key}" if parts else key)
        else:
            parts.append(f'["{key[:128]}"]')
    return "".join(parts)


def _shift(value: object, finding: Finding, rest_of_line: str) -> int:
    """Columns to add for an offset in a string; 0 where the string is not written as it is (escapes, several lines)."""
    text = value_at(value, finding.path)
    if not isinstance(text, str):
        return 0
    quote = 1 if rest_of_line[:1] in ('"', "'") else 0
    return finding.offset + quote if rest_of_line[quote:].startswith(text) else 0


def value_at(value: object, path: DocumentPath) -> object:
    """The value at a path, or None."""
    for key in path:
        if isinstance(value, Mapping) and isinstance(key, str):
            value = value.get(key)
        elif isinstance(value, (list, tuple)) and isinstance(key, int) and key < len(value):
            value = value[key]
        else:
            return None
    return value
