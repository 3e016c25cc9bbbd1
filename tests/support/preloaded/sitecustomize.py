"""Loaded by each Python that has a wrong clock (skewed_clock.py): libfaketime 0.9.10 refuses how Python sleeps.

It takes the moment at which a sleep ends for one of the time of day, though Python asks by the monotonic clock, and
`clock_nanosleep` then fails with EINVAL.
"""

from __future__ import annotations

import select
import sys
import time
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from pathlib import Path


def _sleep(seconds: float, /) -> None:
    select.select([], [], [], seconds)


time.sleep = _sleep  # type: ignore[assignment]

# Python loads the first module of this name only; another folder in PYTHONPATH may have one too.
_others = PathFinder.find_spec("sitecustomize", [path for path in sys.path if Path(path) != Path(__file__).parent])
if _others is not None and _others.loader is not None:
    _others.loader.exec_module(module_from_spec(_others))
