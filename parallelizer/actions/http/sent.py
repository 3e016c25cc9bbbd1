"""What a request has sent that nobody else may read, and how it is kept out of error texts. Pure.

A server's error page may repeat the request: its query, its headers, its body. A piece of that page is worth showing,
so what was sent is struck out of it.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable, Mapping
from urllib.parse import parse_qsl, quote, quote_plus

#: Shorter values are no secrets, and striking them out would leave no text.
SHORTEST, SHORTEST_IN_BODY = 4, 8
#: Most values that are looked for: what a page repeats is among the first, and each costs time.
MOST_VALUES = 2000
HIDDEN = "***"
#: Characters of a server's text that are shown.
MOST_SHOWN = 200


class Sent:
    """The values of one request."""

    def __init__(self) -> None:
        self._values: set[str] = set()

    def add_query(self, query: str) -> None:
        """The values of a query in a URL, as they stand there and decoded."""
        for pair in query.split("&"):
            self.add(pair.partition("=")[2])
        for _, value in parse_qsl(query):
            self.add(value)

    def add_header(self, value: str) -> None:
        """A header, and its parts: the token of `Bearer …`, each value of `Cookie`."""
        self.add(value)
        for part in re.split(r"[\s;,=]+", value):
            self.add(part, SHORTEST_IN_BODY)

    def add_body(self, json_value: object, text: str | None) -> None:
        """All texts in a body of JSON, or the values of a form."""
        for part in _texts(json_value):
            self.add(part, SHORTEST_IN_BODY)
        if text is not None:
            self.add(text, SHORTEST_IN_BODY)
            for _, value in parse_qsl(text):
                self.add(value, SHORTEST_IN_BODY)

    def add(self, text: str, shortest: int = SHORTEST) -> None:
        """A text, in all ways that a page may write it: as it is, in a URL, in a form, in JSON, in HTML."""
        if len(text) >= shortest and len(self._values) < MOST_VALUES:
            in_url = (write(text, safe="", errors="replace") for write in (quote, quote_plus))
            self._values.update((text, html.escape(text), json.dumps(text)[1:-1], *in_url))

    def hide(self, text: str) -> str:
        """A server's or library's text: its beginning, on one line, without what was sent."""
        longest_first = sorted(self._values, key=len, reverse=True)
        pattern = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
        shown, position = "", 0
        for found in pattern.finditer(text):
            if found.start() >= MOST_SHOWN:
                break
            shown += text[position : found.start()] + HIDDEN
            position = found.end()
        shown += text[position : max(position, MOST_SHOWN)]
        return " ".join("".join(c if c.isprintable() else " " for c in shown).split())


def _texts(value: object) -> Iterable[str]:
    pending = [value]
    while pending:
        part = pending.pop()
        if isinstance(part, str):
            yield part
        elif isinstance(part, Mapping):
            pending += part.values()
        elif isinstance(part, list | tuple):
            pending += part
