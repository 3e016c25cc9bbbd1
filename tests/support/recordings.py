"""Recorded executions in WfFormat: small ones of our own, and where real ones are looked for.

The real ones have a licence of their own and are no part of this project. Tests that want them skip where they are not.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
#: The same graph in each version of WfFormat that is laid out in its own way.
LOAVES = {
    version: ROOT / f"tests/data/wfformat/three-loaves-{version}.json" for version in ("1.3", "1.4", "1.5", "1.6")
}
#: Its tasks, and their number.
LOAVES_EDGES, LOAVES_TASKS = 14, 13
#: Names the folder with the real recordings and their `figures.json`.
VARIABLE = "WFINSTANCES_DIR"


def loaves(version: str = "1.5") -> Any:
    """A document of our own, to be changed at will."""
    return json.loads(LOAVES[version].read_text(encoding="utf-8"))


def real_recordings() -> Path:
    """The folder with the real recordings; a test that asks for it skips where there is none."""
    named = os.environ.get(VARIABLE)
    folder = Path(named) if named else ROOT.parent / "shared" / "inputs" / "wfinstances"
    if not (folder / "figures.json").is_file():
        if named:
            pytest.fail(f"{VARIABLE}={named}: there is no figures.json in it")
        pytest.skip(f"the real recordings are not beside this repository; {VARIABLE} can name their folder")
    return folder
