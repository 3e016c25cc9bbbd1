"""The demo, examples/folder-audit, on small folders: its figures agree, and a changed file fails alone."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.commands import clean_environment

DEMO = Path(__file__).resolve().parents[2] / "examples" / "folder-audit" / "demo.py"


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with equal files, an empty one, odd names and, inside it, the data folder of the demo."""
    root = Path(tempfile.mkdtemp(prefix="parallelizer-tests-"))
    root.chmod(0o711)
    (root / "sub dir").mkdir()
    contents = {
        "a.txt": "same\n",
        "sub dir/b.txt": "same\n",
        "empty": "",
        "new\nline": "x",
        "back\\slash": "y\nz",
        "é": "é",
    }
    for name, text in contents.items():
        (root / name).write_text(text, encoding="utf-8")
    yield root
    shutil.rmtree(root)


def demo(folder: Path) -> subprocess.CompletedProcess[str]:
    environment = clean_environment(FOLDER=str(folder), DATA_DIR=str(folder / ".data"))
    return subprocess.run(
        [sys.executable, str(DEMO)], env=environment, capture_output=True, text=True, timeout=120, check=False
    )


def test_the_second_run_verifies_against_the_first_and_a_changed_file_fails_alone(folder: Path) -> None:
    first = demo(folder)
    assert first.returncode == 0, first.stdout + first.stderr
    assert "Every figure agrees." in first.stdout
    assert re.search(r"^\s*files\s+6\s", first.stdout, re.MULTILINE)

    (folder / "a.txt").write_text("other\n")
    (folder / "empty").unlink()
    (folder / "added").touch()
    second = demo(folder)
    assert second.returncode == 0, second.stdout + second.stderr
    assert "FileChangedError: a.txt has changed" in second.stderr
    assert "FileChangedError: empty is gone" in second.stderr
    assert "Changed or gone since the last run: a.txt, empty" in second.stdout
    assert "New since the last run: added" in second.stdout
    assert "differs" not in second.stdout


def test_a_folder_that_is_not_there_is_named(folder: Path) -> None:
    done = demo(folder / "nowhere")
    assert done.returncode == 2
    assert "nowhere" in done.stdout
    assert "Traceback" not in done.stderr
