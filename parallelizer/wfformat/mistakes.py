"""Collects what is wrong in a recording, and says it as one error."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final, NoReturn

from orchestration.definition.check_graph import nearest
from orchestration.definition.places import Document, DocumentPath, Finding
from orchestration.errors import DefinitionError

#: Most mistakes reported; a file with more is not one that somebody mends by hand.
MAX_MISTAKES: Final = 100
#: Looking for the name that was meant takes up to a tenth of a second among 10,000: only the first few are looked for.
MAX_GUESSES: Final = 5


class Mistakes:
    """The mistakes found so far in one document."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._findings: list[Finding] = []

    def note(self, path: DocumentPath, message: str, hint: str = "") -> None:
        """Remember a mistake and go on.

        Raises: DefinitionError: there are too many to go on.
        """
        self._findings.append(Finding(path, message, hint))
        if len(self._findings) >= MAX_MISTAKES:
            raise self._error()

    def fail(self, path: DocumentPath, message: str, hint: str = "") -> NoReturn:
        """Stop at a mistake behind which nothing can be read."""
        self._findings.append(Finding(path, message, hint))
        raise self._error()

    def raise_if_any(self) -> None:
        """Raise all mistakes as one DefinitionError."""
        if self._findings:
            raise self._error()

    def guess(self, name: str, names: Iterable[str]) -> str:
        """A hint with the name that was meant, for the first mistakes."""
        return nearest(name, names) if len(self._findings) < MAX_GUESSES else ""

    def _error(self) -> DefinitionError:
        problems = self._document.problems(self._findings)
        if len(self._findings) >= MAX_MISTAKES:
            problems[-1] = replace(problems[-1], hint=f"and there may be more than these {MAX_MISTAKES}")
        return DefinitionError(problems)


def shown(name: object) -> str:
    """A name from a recording as messages print it: quoted, and not endless."""
    text = repr(name)
    return text if len(text) <= 130 else f"{text[:129]}…"
