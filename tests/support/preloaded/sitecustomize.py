"""Loaded by each Python that has a wrong clock (skewed_clock.py): libfaketime 0.9.10 refuses how Python sleeps.

It takes the moment at which a sleep ends for one of the time of day, though Python asks by the monotonic clock, and
`clock_nanosleep` then fails with EINVAL.
"""

from __future__ import annotations

import select
import time


def _sleep(seconds: float, /) -> None:
    select.select([], [], [], seconds)


time.sleep = _sleep  # type: ignore[assignment]
