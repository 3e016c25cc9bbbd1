"""The figures of the link check by other means, to compare with: nothing of the workflow's own code is used.

Tags are found by regular expressions instead of a parser, links are resolved as `file:` URLs, and whether a file is
there is asked of the file system instead of an index.
"""

from __future__ import annotations

import html
import os
import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from urllib.parse import quote, unquote, urljoin, urlsplit

#: Where links are resolved as if the folder were there: one that leaves the folder does not come back by its real name.
_ROOT = "/-the-folder-"

_NOT_MARKUP = re.compile(r"<!--.*?-->|<(script|style)\b.*?</\1\s*>", re.DOTALL | re.IGNORECASE)
_TAG = re.compile(r"""<([a-z][^\s/>]*)((?:[^>"']|"[^"]*"|'[^']*')*)>""", re.IGNORECASE)
_ATTRIBUTE = re.compile(r"""([^\s"'=<>/]+)(?:\s*=\s*("[^"]*"|'[^']*'|[^\s"'>]+))?""")


def independent_figures(folder: str, pattern: str, exclude: Sequence[str]) -> dict[str, int]:
    """Count pages and links of a folder.

    Args: folder: an absolute path without symbolic links. exclude: paths at its top, as in `/build`.
    """
    anchors: dict[str, set[str]] = {}
    links: dict[str, list[str]] = {}
    unparsable = 0
    for page in _pages(Path(folder), pattern, exclude):
        try:
            tags = _tags(_text(page))
        except (OSError, ValueError, LookupError):
            unparsable += 1
            continue
        anchors[str(page)] = {given["id"] for _, given in tags if "id" in given}
        anchors[str(page)] |= {given["name"] for tag, given in tags if tag == "a" and "name" in given}
        links[str(page)] = [given["href"] for tag, given in tags if tag == "a" and "href" in given]
    total = external = without_file = without_anchor = 0
    broken: set[tuple[str, str]] = set()
    for page_path, hrefs in links.items():
        base = f"file://{_ROOT}/{quote(os.path.relpath(page_path, folder))}"
        for href in hrefs:
            total += 1
            before, _, fragment = href.strip(" \t\n\r\f").partition("#")
            if _is_external(before):
                external += 1
                continue
            path, fragment = _path(base, before), unquote(fragment)
            file = _file_shown(path, folder)
            if file is None:
                without_file += 1
            elif fragment.lower() not in ("", "top") and fragment not in anchors.get(file, {fragment}):
                without_anchor += 1
            else:
                continue
            broken.add((page_path, f"{path}#{fragment}"))
    return {
        "pages": len(links) + unparsable,
        "unparsable": unparsable,
        "links": total,
        "external": external,
        "good": total - external - without_file - without_anchor,
        "broken": without_file + without_anchor,
        "without a file": without_file,
        "without an anchor": without_anchor,
        "page and target": len(broken),
    }


def _pages(root: Path, pattern: str, exclude: Sequence[str]) -> Iterator[Path]:
    excluded = [root / path.lstrip("/") for path in exclude]
    for path in root.rglob(pattern):
        behind_link = path.is_symlink() or path.parent.resolve() != path.parent
        if path.is_file() and not behind_link and not any(map(path.is_relative_to, excluded)):
            yield path


def _text(page: Path) -> str:
    content = page.read_bytes()
    declared = re.search(rb"<meta[^>]*charset=[\"']?([^\s\"'/>;]+)", content[:1024], re.IGNORECASE)
    return content.decode(declared[1].decode() if declared else "utf-8")


def _tags(text: str) -> list[tuple[str, dict[str, str]]]:
    return [(tag.lower(), _attributes(rest)) for tag, rest in _TAG.findall(_NOT_MARKUP.sub("", text)) if rest]


def _attributes(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in _ATTRIBUTE.findall(text):
        found.setdefault(name.lower(), html.unescape(value[1:-1] if value[:1] in ('"', "'") else value))
    return found


@cache
def _is_external(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:  # such as http://[ : it names a host, however badly
        return True
    return bool(parts.scheme or parts.netloc) or url.startswith("//")


@cache
def _path(base: str, url: str) -> str:
    return os.path.normpath(unquote(urlsplit(urljoin(base, url)).path))


@cache
def _file_shown(path: str, folder: str) -> str | None:
    """The file of the folder that a server would show for a path, or None; one behind a link to a folder is not its."""
    if not f"{path}/".startswith(f"{_ROOT}/"):
        return None
    file = folder + path.removeprefix(_ROOT)
    index = os.path.join(file, "index.html")
    file = index if os.path.isfile(index) else file
    behind_link = os.path.realpath(os.path.dirname(file)) != os.path.dirname(file)
    return file if os.path.isfile(file) and not behind_link else None
