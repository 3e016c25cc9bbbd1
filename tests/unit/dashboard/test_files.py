"""Files of the pages: vendored libraries as the list says, and Flower's navigation as we know it."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import flower
import pytest

from tasks.dashboard.loader import PageLoader
from tasks.dashboard.static_files import FOLDER

VENDOR = FOLDER / "vendor"
AXE = Path(__file__).parents[2] / "data" / "axe"


def test_vendored_libraries_are_those_of_the_list() -> None:
    listed = dict(re.findall(r"\| `([a-z]+\.mjs)` .*? `([0-9a-f]{64})`", (VENDOR / "README.md").read_text()))
    assert listed == {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(VENDOR.glob("*.mjs"))}
    (digest,) = re.findall(r"`([0-9a-f]{64})`", (AXE / "README.md").read_text())
    assert digest == hashlib.sha256((AXE / "axe.min.js").read_bytes()).hexdigest()


def test_scripts_import_files_of_their_own_folder_only() -> None:
    for script in [*FOLDER.rglob("*.js"), *FOLDER.rglob("*.mjs")]:
        for target in re.findall(r"""(?:from|import)\s*\(?["']([^"']+)["']""", script.read_text()):
            assert (script.parent / target).is_file(), (script.name, target)


def test_scripts_put_no_html_together_from_text() -> None:
    for script in FOLDER.glob("*.js"):
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", script.read_text()
        )


def test_a_flower_with_another_navigation_is_refused(tmp_path: Path) -> None:
    PageLoader(Path(flower.__file__).parent / "templates")
    (tmp_path / "navbar.html").write_text("<nav></nav>")
    with pytest.raises(ValueError, match="this version of Flower is not supported"):
        PageLoader(tmp_path)
