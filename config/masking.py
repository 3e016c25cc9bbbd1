"""Keeps secrets out of logs: what the settings hold, passwords in URLs, and values whose name says that they are one.

It errs on the side of hiding. What no name gives away (a token alone in a sentence) is seen all the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final
from urllib.parse import unquote

from pydantic import SecretStr

MASK: Final = "***"
#: A shorter secret of the settings is hidden where its name or its URL gives it away, not wherever its letters stand.
LEAST_LITERAL: Final = 6
#: Of structured fields; what is deeper or more is shown as its `repr`, masked as text.
MOST_DEPTH, MOST_ENTRIES = 6, 200
#: Numbers that are larger, infinite or none at all are shown as texts.
MOST_NUMBER: Final = 2**63

_NAMES = (
    r"passw(?:or)?d|passwd|passphrase|pwd|secret|token(?!s)|authori[sz]ation|api[_-]?key|access[_-]?key"
    r"|private[_-]?key|credential|cookie|signature"
)
_NAME = re.compile(_NAMES, re.IGNORECASE)
#: `name=value`, `name: value`, `"name": "value"`, `Authorization: Bearer value`. All bounded: a line may be long, and
#: no text may make this slow.
_PAIR = re.compile(
    rf"""((?:{_NAMES})[\w.-]{{0,40}}\\?["']?\]?\s{{0,3}}(?:=>|[=:])\s{{0,3}})"""
    r"""((?:(?:bearer|basic|digest|token|negotiate)\s{1,3})?"""
    r"""(?:\\?"(?:[^"\\\n]|\\.){0,4096}"|'(?:[^'\\\n]|\\.){0,4096}'|[^\s,;&"'<>(){}\[\]\\]{1,4096}))""",
    re.IGNORECASE,
)
_URL = re.compile(r"""(://[^\s/"'<>@:?#]{0,128}:)[^\s/"'<>]{1,1024}@""")


class Masker:
    """Hides secrets in texts and in structured values.

    Args: literals: secrets to hide wherever they stand; those shorter than `LEAST_LITERAL` are left out.
    """

    def __init__(self, literals: Iterable[str] = ()) -> None:
        every = sorted({text for text in literals if len(text) >= LEAST_LITERAL}, key=len, reverse=True)
        self._literals = re.compile("|".join(map(re.escape, every))) if every else None

    def text(self, text: str) -> str:
        """The text without its secrets; the same text where there is none. A lone surrogate becomes a question mark."""
        if not text.isascii():
            text = text.encode("utf-8", "replace").decode()
        if self._literals is not None:
            text = self._literals.sub(MASK, text)
        if "://" in text:
            text = _URL.sub(rf"\1{MASK}@", text)
        if ":" in text or "=" in text:
            text = _PAIR.sub(rf"\1{MASK}", text)
        return text

    def field(self, name: str, value: Any) -> Any:
        """The value of a structured field; nothing of it when its name says that it is a secret."""
        return MASK if _NAME.search(name) and value is not None else self.value(value)

    def value(self, value: Any, depth: int = 0) -> Any:
        """A value as JSON can carry it, without the secrets in it."""
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, int | float):
            return value if abs(value) < MOST_NUMBER else shown(value)
        if isinstance(value, str):
            return self.text(value)
        if depth < MOST_DEPTH:
            if isinstance(value, Mapping) and len(value) <= MOST_ENTRIES:
                return dict(self._entry(self.text(str(name)), inner, depth) for name, inner in value.items())
            if isinstance(value, list | tuple | set | frozenset) and len(value) <= MOST_ENTRIES:
                return [self.value(inner, depth + 1) for inner in value]
        return self.text(shown(value))

    def _entry(self, name: str, value: Any, depth: int) -> tuple[str, Any]:
        return name, MASK if _NAME.search(name) and value is not None else self.value(value, depth + 1)


def shown(value: object, most: int = 10_000) -> str:
    """The `repr` of a value, never an error and never endless."""
    try:
        return repr(value)[:most]
    except Exception:  # noqa: BLE001 - a broken __repr__ is the user's
        return f"({type(value).__name__} that can't be shown)"


def secrets_of(settings: object) -> set[str]:
    """What the settings hold that must not be read anywhere: passwords of URLs, and fields whose name says so."""
    found: set[str] = set()
    for name, value in dict(settings).items():  # type: ignore[call-overload]  # a pydantic model gives its fields
        text = value.get_secret_value() if isinstance(value, SecretStr) else value
        if not isinstance(text, str) or not text:
            continue
        if isinstance(value, SecretStr) or _NAME.search(name):
            found.add(text)
        for match in re.finditer(r"""://[^\s/"'<>@:?#]*:([^\s/"'<>]+)@""", text):
            found |= {match[1], unquote(match[1])}
    return found
