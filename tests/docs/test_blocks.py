"""What README and guide show works: marked blocks are run as they stand, all others at least checked."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestration.definition.loader import load_definition
from orchestration.registry import action, load_actions, registered_actions
from tests.docs.reference import DOCS

ROOT = DOCS.parent
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md")), *sorted((ROOT / "examples").glob("*/README.md"))]
_BLOCK = re.compile(r"(?:<!-- run: (?P<run>\S+) -->\n)?^```(?P<kind>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path, kind: str) -> Iterator[str]:
    for found in _BLOCK.finditer(page.read_text(encoding="utf-8")):
        if found["kind"] == kind:
            yield found["text"]


def accept_anything(**_inputs: Any) -> None:
    """Stands for the actions of somebody's shop."""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_definition_shown_is_right(page: Path) -> None:
    load_actions(())
    for text in blocks(page, "yaml"):
        for shown in yaml.safe_load(text)["actions"].values():
            if shown["uses"] not in registered_actions():
                action(shown["uses"])(accept_anything)
        load_definition(text, file=page.name)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_python_block_is_python(page: Path) -> None:
    for text in blocks(page, "python"):
        compile(text, page.name, "exec")


def test_the_first_workflow_of_the_readme_runs_as_it_is_told(tmp_path: Path) -> None:
    commands = ""
    for found in _BLOCK.finditer((ROOT / "README.md").read_text(encoding="utf-8")):
        if found["run"] == "sh":
            commands += found["text"]
        elif found["run"]:
            (tmp_path / found["run"]).write_text(found["text"], encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if name not in ("REDIS_URL", "DATABASE_URL")}
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment["PATH"]])
    command = ["bash", "-e", "-c", commands]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for greeted in ("Ada", "Grace", "Edsger"):
        assert f"Hello, {greeted}!" in done.stdout
    assert "Traceback" not in done.stderr
