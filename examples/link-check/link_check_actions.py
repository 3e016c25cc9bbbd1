"""The actions of the link check that are its own; `files.list` is built in.

Workers find this module through `ACTION_MODULES=link_check_actions`, with this folder on `PYTHONPATH`.

What pages hold is many megabytes, and each check needs the whole index. So neither is passed on as a result: both are
files in the work folder of the run, results say where, and a process reads the index once.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from link_check_pages import EXTERNAL, GOOD, NO_ANCHOR, NO_FILE, Index, judge, read_page

from orchestration.registry import action
from parallelizer.actions.files import open_inside

#: What `check` returns.
Checked = Mapping[str, Any]


@action("link_check.collect")
def collect(folder: str, page: str, work: str) -> dict[str, Any]:
    """Write the anchors and links of a page to a file in the work folder.

    Raises: UnparsablePage: it can't be parsed. NotInFolder, OSError: it can't be read.
    """
    with open_inside(folder, page) as file:
        found = read_page(file.read(), page)
    write_json(collected_file(work, page), {"anchors": sorted(found.anchors), "links": found.links})
    return {"page": page, "anchors": len(found.anchors), "links": len(found.links)}


@action("link_check.index")
def index(folder: str, collected: Sequence[Mapping[str, Any] | None] | None, work: str) -> dict[str, Any]:
    """Write one index of all files of the folder, and of the anchors of all pages that were parsed.

    Args: collected: one entry for each page, None where it could not be parsed.
    """
    pages = [entry["page"] for entry in collected or [] if entry is not None]
    anchors = {page: read_json(collected_file(work, page))["anchors"] for page in pages}
    files = sorted(files_in(folder))
    path = Path(work) / "index.json"
    write_json(path, {"files": files, "anchors": anchors})
    return {"path": str(path), "pages": pages, "files": len(files), "anchors": sum(map(len, anchors.values()))}


@action("link_check.check")
def check(page: str, index: str, work: str) -> Checked:
    """Judge the links of one page.

    Returns: how many there are of each kind, and the broken ones: where they lead, the reason, and how often.
    """
    known = index_in(index, Path(index).stat().st_mtime_ns)
    judged = Counter(judge(link, page, known) for link in read_json(collected_file(work, page))["links"])
    counts: Counter[str] = Counter()
    for judgement, links in judged.items():
        counts[judgement.verdict] += links
    return {
        "page": page,
        "links": counts.total(),
        "external": counts[EXTERNAL],
        "good": counts[GOOD],
        "broken": [
            {"path": path, "fragment": fragment, "reason": verdict, "links": links}
            for (verdict, path, fragment), links in judged.items()
            if verdict in (NO_FILE, NO_ANCHOR)
        ],
    }


@action("link_check.summary")
def summary(
    listed: Sequence[Mapping[str, Any]], indexed: Sequence[str], checked: Sequence[Checked | None] | None
) -> dict[str, Any]:
    """Add everything up.

    Args: listed: all pages. indexed: those that were parsed. checked: one entry for each of these, None where the
        check failed.
    """
    done = [page for page in checked or [] if page is not None]
    parsed, judged = set(indexed), {page["page"] for page in done}
    broken = [entry for page in done for entry in page["broken"]]
    links = {
        reason: sum(entry["links"] for entry in broken if entry["reason"] == reason) for reason in (NO_FILE, NO_ANCHOR)
    }
    return {
        "pages": len(listed),
        "unparsable": [page["path"] for page in listed if page["path"] not in parsed],
        "unchecked": [page for page in indexed if page not in judged],
        "links": sum(page["links"] for page in done),
        "external": sum(page["external"] for page in done),
        "good": sum(page["good"] for page in done),
        "broken": sum(links.values()),
        "without_file": links[NO_FILE],
        "without_anchor": links[NO_ANCHOR],
        "page_target_pairs": len(broken),
        "broken_targets": [
            {"target": target, "reason": reason, "links": sum(pages.values()), "pages": len(pages)}
            for target, reason, pages in by_frequency(done)
        ],
    }


@action("link_check.report")
def report(checked: Sequence[Checked | None], reports: str) -> str:
    """Write down what is broken, a paragraph for each target with the pages that link to it; returns the path."""
    path = Path(reports) / "broken-links.txt"
    paragraphs = [
        "\n".join([
            f"{links_in_words(sum(pages.values()))} to {target} ({reason}), from:",
            *(f"  {page}" + (f" ({links:,} times)" if links > 1 else "") for page, links in pages.items()),
        ])
        for target, reason, pages in by_frequency(page for page in checked if page is not None)
    ]  # fmt: skip
    path.write_text("\n\n".join(paragraphs) + "\n", encoding="utf-8")
    return str(path)


@action("link_check.tidy")
def tidy(work: str) -> None:
    """Remove the work folder of the run."""
    with suppress(FileNotFoundError):
        shutil.rmtree(work)


def by_frequency(checked: Iterable[Checked]) -> list[tuple[str, str, dict[str, int]]]:
    """Broken targets, the most linked first: target, reason, and how often each page links to it.

    A file that is not there is one target, whatever the fragments.
    """
    found: dict[tuple[str, str], dict[str, int]] = {}
    for page in checked:
        for entry in page["broken"]:
            target = entry["path"] if entry["reason"] == NO_FILE else f"{entry['path']}#{entry['fragment']}"
            pages = found.setdefault((target, entry["reason"]), {})
            pages[page["page"]] = pages.get(page["page"], 0) + entry["links"]
    rows = [(target, reason, pages) for (target, reason), pages in found.items()]
    return sorted(rows, key=lambda row: (-sum(row[2].values()), row[0]))


def links_in_words(links: int) -> str:
    """As in `1 link`, `1,449 links`."""
    return f"{links:,} link" if links == 1 else f"{links:,} links"


def files_in(folder: str) -> Iterable[str]:
    """All files of a folder, also behind a symbolic link to a file; folders behind links are not entered."""
    for here, _, names in os.walk(folder):
        for name in names:
            full = os.path.join(here, name)
            if os.path.isfile(full):
                yield os.path.relpath(full, folder)


@lru_cache(maxsize=1)
def index_in(path: str, mtime_ns: int) -> Index:  # noqa: ARG001 - another time of writing, another index
    """The index in a file; a process keeps the last one, so that each check need not read it again."""
    content = read_json(Path(path))
    anchors = {page: frozenset(names) for page, names in content["anchors"].items()}
    return Index(frozenset(content["files"]), anchors)


def collected_file(work: str, page: str) -> Path:
    """Where what a page holds is kept; its name has the same length for any path."""
    return Path(work) / "pages" / f"{hashlib.sha256(page.encode()).hexdigest()[:32]}.json"


def write_json(path: Path, value: object) -> None:
    """Write a file whole or not at all: an action may run twice, and another may be reading what it wrote before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    unfinished.write_text(json.dumps(value), encoding="utf-8")
    unfinished.replace(path)


def read_json(path: Path) -> Any:
    """What `write_json` wrote."""
    return json.loads(path.read_text(encoding="utf-8"))
