"""The example link-check: its rules on a small tree with real workers, and its demo, whose figures agree."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.commands import clean_environment, parallelizer
from tests.support.fleet import Fleet

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "link-check"

#: The links of index.html, by what is to be said of them.
GOOD = [
    "guide/start.html", "guide/start.html#first", "./guide/../guide/start.html#first",
    "#here", "#old", "#", "", "#top",
    " \n guide/start.html#first\t", "guide/a%20b.html", "guide/a b.html#caf%C3%A9",
    "guide/start.html?x=1&amp;y=2#first",
    "guide/", "guide", "guide#contents",
    "latin.html#%C3%A9",
    "notes.txt", "notes.txt#line-3", "broken-text.html#any",  # a file, but no anchors are known
]  # fmt: skip
EXTERNAL = [
    "https://example.org/gone.html",
    "HTTP://example.org",
    "mailto:a@example.org",
    "//example.org/x",
    "http://[",
]
NO_FILE = [
    "gone.html", "gone.html#part", "gone.html", "guide/gone%2ehtml", "Guide/start.html",
    "/index.html", "../outside.html", "guide/start.html%23first",
]  # fmt: skip
NO_ANCHOR = ["guide/start.html#second", "#nowhere", "#HERE", "guide/start.html#first%20", "guide/start.html#second"]
NOT_LINKS = """<!-- <a href="gone.html">x</a> --><script>"<a href='gone.html'>"</script><link href="gone.css">
<p data-href="gone.html" title="<a href='gone.html'>"><a name="old">x</a><p name="nowhere" id="here">"""

PAGES: dict[str, str | bytes] = {
    "index.html": NOT_LINKS + "".join(f'<a href="{link}">x</a>\n' for link in GOOD + EXTERNAL + NO_FILE + NO_ANCHOR),
    "guide/index.html": '<h1 id="contents">Guide</h1> <A class=x HREF=start.html>x</A>',
    "guide/start.html": "<h1 id='first'>x</h1> <a href='../gone.html'>x</a> <a href='../index.html#here'>x</a>",
    "guide/a b.html": '<meta charset="utf-8"><p id="café">',
    "latin.html": b'<meta charset="iso-8859-1"><p id="\xe9">',
    "broken-text.html": b"<a href='gone.html'>\xff</a>",
    "notes.txt": "<a href='gone.html'>",
}


@pytest.fixture
def site() -> Iterator[Path]:
    """A folder with the pages, and one page beside it that is none of them; embedded servers may have data here."""
    root = Path(tempfile.mkdtemp(prefix="parallelizer-tests-"))
    root.chmod(0o711)
    (root / "outside.html").write_text("")
    for name, content in PAGES.items():
        path = root / "site" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    yield root / "site"
    shutil.rmtree(root)


@pytest.fixture(scope="module")
def workers(module_fleet: Fleet) -> Fleet:
    """Two workers that know the actions of the example."""
    module_fleet.start(2, concurrency=2, ACTION_MODULES="link_check_actions", PYTHONPATH=str(EXAMPLE))
    return module_fleet


def check_links(workers: Fleet, site: Path, reports: Path) -> dict[str, Any]:
    """Run the workflow; returns the run as JSON, with what the live view showed under `shown`."""
    payload = {"folder": str(site), "pattern": "*.html", "exclude": [], "reports": str(reports)}
    done = parallelizer(
        "run", str(EXAMPLE / "workflow.yaml"), "--payload", json.dumps(payload), "--json",
        folder=None, ACTION_MODULES="link_check_actions", PYTHONPATH=str(EXAMPLE), **workers.settings,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return {**json.loads(done.stdout), "shown": done.stderr}


def test_every_link_is_judged_by_the_rules_and_an_unparsable_page_fails_alone(
    workers: Fleet, site: Path, tmp_path: Path
) -> None:
    run = check_links(workers, site, tmp_path)
    assert run["status"] == "succeeded"
    assert run["output"]["summary"] == {
        "pages": 6,
        "unparsable": ["broken-text.html"],
        "unchecked": [],
        "links": 40,
        "external": 5,
        "good": 21,
        "broken": 14,
        "without_file": 9,
        "without_anchor": 5,
        "page_target_pairs": 12,
        "broken_targets": [
            {"target": "gone.html", "reason": "no file", "links": 4, "pages": 2},
            {"target": "guide/start.html#second", "reason": "no anchor", "links": 2, "pages": 1},
            {"target": "../outside.html", "reason": "no file", "links": 1, "pages": 1},
            {"target": "/index.html", "reason": "no file", "links": 1, "pages": 1},
            {"target": "Guide/start.html", "reason": "no file", "links": 1, "pages": 1},
            {"target": "guide/gone.html", "reason": "no file", "links": 1, "pages": 1},
            {"target": "guide/start.html#first", "reason": "no file", "links": 1, "pages": 1},
            {"target": "guide/start.html#first ", "reason": "no anchor", "links": 1, "pages": 1},
            {"target": "index.html#HERE", "reason": "no anchor", "links": 1, "pages": 1},
            {"target": "index.html#nowhere", "reason": "no anchor", "links": 1, "pages": 1},
        ],
    }
    assert "UnparsablePage: broken-text.html can't be parsed" in run["shown"]
    assert run["counts"]["failed"] == 1
    report = Path(run["output"]["report"]).read_text(encoding="utf-8")
    assert report.startswith("4 links to gone.html (no file), from:\n  guide/start.html\n  index.html (3 times)\n\n")
    assert "\n\n1 link to guide/gone.html (no file), from:\n  index.html\n\n" in report
    assert [path.name for path in tmp_path.iterdir()] == ["broken-links.txt"], "the work folder is still there"


def test_no_report_is_written_when_every_link_is_good(workers: Fleet, tmp_path: Path) -> None:
    site, reports = tmp_path / "site", tmp_path / "reports"
    site.mkdir()
    (site / "a.html").write_text('<a href="b.html#b">x</a>')
    (site / "b.html").write_text('<p id="b"><a href="a.html">x</a>')
    run = check_links(workers, site, reports)
    assert run["status"] == "succeeded"
    assert run["output"]["summary"]["good"] == run["output"]["summary"]["links"] == 2
    assert run["output"]["report"] is None
    assert list(reports.iterdir()) == []


def demo(*command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *(command or (str(EXAMPLE / "demo.py"),))],
        env=clean_environment(**variables), capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def test_the_figures_of_the_demo_agree_with_an_independent_count(site: Path) -> None:
    # The data folder is inside the site, with pages of its own that are nobody's.
    data = site / ".data" / "link-check"
    data.mkdir(parents=True)
    data.joinpath("own.html").write_text("<a href='gone.html'>x</a>")
    done = demo(FOLDER=str(site), DATA_DIR=str(site / ".data"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Every figure agrees." in done.stdout
    for figure, value in (("pages", 6), ("unparsable", 1), ("links", 40), ("broken", 14), ("page and target", 12)):
        assert re.search(rf"^\s*{figure}(\s+{value}){{3}}\s+equal", done.stdout, re.MULTILINE), done.stdout
    assert "Can't be parsed: broken-text.html" in done.stdout


def test_a_folder_that_is_not_there_is_named(site: Path) -> None:
    done = demo(FOLDER=str(site / "nowhere"), DATA_DIR=str(site / ".data"))
    assert done.returncode == 2
    assert "nowhere" in done.stdout
    assert "Traceback" not in done.stderr


def test_without_an_installed_manual_the_demo_says_how_to_get_it(tmp_path: Path) -> None:
    python_path = os.pathsep.join([str(EXAMPLE), str(EXAMPLE.parent)])
    code = f"import demo, pathlib; demo.end_with(lambda: demo.main(pathlib.Path({str(tmp_path)!r})))"
    done = demo("-c", code, FOLDER="", PYTHONPATH=python_path, DATA_DIR=str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "apt install python3.11-doc" in done.stdout
    assert "FOLDER=" in done.stdout
