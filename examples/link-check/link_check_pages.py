"""What a page holds, and where a link of it leads. Nothing here knows of workflows.

The rules are those of the README beside this file. Parsing is the standard library's: an HTML page has no syntax error
for it, so "can't be parsed" means that its bytes are not text in its encoding, or that the parser itself gives up.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import NamedTuple
from urllib.parse import unquote

#: HTML's white space; `str.strip()` alone would take more, such as a no-break space.
WHITE_SPACE = " \t\n\r\f"
#: A page must declare its encoding in its first 1,024 bytes (HTML standard, "the meta charset attribute").
DECLARATION_BYTES = 1024
_DECLARED = re.compile(rb"""<meta[^>]+charset\s*=\s*["']?\s*([\w.:-]+)""", re.IGNORECASE)
_SCHEME = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*:")

GOOD, EXTERNAL, NO_FILE, NO_ANCHOR = "good", "external", "no file", "no anchor"


class UnparsablePage(ValueError):
    """A page's bytes are not text in its encoding, or the parser gives up."""


@dataclass(slots=True)
class Page:
    """What a page holds."""

    #: Where a fragment can lead: each `id`, and each `name` of an `a`.
    anchors: set[str] = field(default_factory=set)
    #: Each `href` of an `a`, as it stands there.
    links: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Index:
    """What links can lead to."""

    #: All files of the folder.
    files: frozenset[str]
    #: The anchors of each page that was parsed, by path.
    anchors: Mapping[str, frozenset[str]]


class Judgement(NamedTuple):
    """Whether a link is good, and where it leads."""

    #: `GOOD`, `EXTERNAL`, `NO_FILE` or `NO_ANCHOR`.
    verdict: str
    #: From the folder; of an external link, the link.
    path: str
    fragment: str


def read_page(content: bytes, path: str) -> Page:
    """Find the anchors and links of a page.

    Raises: UnparsablePage: the message names `path` and the reason.
    """
    declared = _DECLARED.search(content[:DECLARATION_BYTES])
    encoding = declared[1].decode("ascii") if declared else "utf-8"
    reader = _Reader()
    try:
        reader.feed(content.decode(encoding).removeprefix("\ufeff"))
        reader.close()
    except (UnicodeError, LookupError, AssertionError) as error:
        raise UnparsablePage(f"{path} can't be parsed: {error}") from None
    return reader.page


def judge(link: str, page: str, index: Index) -> Judgement:
    """Say whether a link of a page is good."""
    link = link.strip(WHITE_SPACE)
    if link.startswith("//") or _SCHEME.match(link):
        return Judgement(EXTERNAL, link, "")
    before, _, fragment = link.partition("#")
    path = _path_from(page, unquote(before.partition("?")[0]), index.files)
    fragment = unquote(fragment)
    if path not in index.files:
        return Judgement(NO_FILE, path, fragment)
    anchors = index.anchors.get(path)
    # The anchors of what is no page, or could not be parsed, are unknown. `#top` needs none (HTML standard).
    if not fragment or anchors is None or fragment in anchors or fragment.lower() == "top":
        return Judgement(GOOD, path, fragment)
    return Judgement(NO_ANCHOR, path, fragment)


def _path_from(page: str, path: str, files: frozenset[str]) -> str:
    """The path from the folder; one with a leading `/` or `..` leads out of it, and so to none of its files."""
    if not path:
        return page
    joined = posixpath.normpath(posixpath.join(posixpath.dirname(page), path))
    # A link to a folder shows its index.html, as web servers do.
    of_folder = posixpath.normpath(posixpath.join(joined, "index.html"))
    return of_folder if joined not in files and of_folder in files else joined


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.page = Page()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(reversed(attrs))  # of attributes with the same name the first one counts
        names = (given.get("id"), given.get("name") if tag == "a" else None)
        self.page.anchors.update(name for name in names if name)
        if tag == "a" and "href" in given:
            self.page.links.append(given["href"] or "")
