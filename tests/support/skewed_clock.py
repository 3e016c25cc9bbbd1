"""A wrong clock for some processes, by libfaketime.

Only the time of day is wrong, as on a host whose clock was set badly: the monotonic clock of such a host is right, and
waits take as long as they do. The clock can be set anew while the process runs, as by an NTP client.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pytest

WHERE: Final = ("/usr/lib/*/faketime", "/usr/lib*/faketime", "/usr/local/lib/faketime", "/usr/local/lib/*/faketime")
NEEDED: Final = "needs libfaketime: apt install faketime (or the package `libfaketime` of your system)"
PRELOADED: Final = Path(__file__).with_name("preloaded")


def library() -> Path | None:
    """Where libfaketime is, for programs with threads; None: nowhere."""
    found = (path for folder in WHERE for path in Path("/").glob(f"{folder[1:]}/libfaketimeMT.so.1"))
    return next(found, None)


def require() -> Path:
    """libfaketime; without it the test is skipped, and says what to install."""
    found = library()
    if found is None:
        pytest.skip(NEEDED)
    return found


class SkewedClock:
    """A clock that is wrong by so many seconds, and can be set.

    Args: file: where the difference is written; not there yet.
    """

    def __init__(self, file: Path, preloaded: Path, seconds: float) -> None:
        self._file = file
        self._preloaded = preloaded
        self.set(seconds)

    def set(self, seconds: float) -> None:
        """From now on it is wrong by so much; processes see it within a second."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{seconds:+f}\n")
        new.replace(self._file)

    def around(self, environment: Mapping[str, str]) -> dict[str, str]:
        """Processes that are started with this environment have the clock, with all that they start."""
        paths = [str(PRELOADED), *filter(None, [environment.get("PYTHONPATH", "")])]
        return {
            **environment, "LD_PRELOAD": str(self._preloaded), "PYTHONPATH": os.pathsep.join(paths),
            "FAKETIME_TIMESTAMP_FILE": str(self._file), "FAKETIME_CACHE_DURATION": "1", "NO_FAKE_STAT": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1", "DONT_FAKE_MONOTONIC": "1",
        }  # fmt: skip
