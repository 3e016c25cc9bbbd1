"""Rate limits as definitions write them: `100/m`, or `100/m burst 20`. Pure."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Final

_FORM: Final = re.compile(r"([1-9][0-9]{0,6})/([smh])(?: burst ([1-9][0-9]{0,4}))?")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600}
#: What a wrong one is told.
RULE: Final = "must be like 10/s, 100/m or 1000/h, each with a burst if wanted: 100/m burst 20"


@dataclass(frozen=True, slots=True)
class Rate:
    """A call may begin each `interval_us`, and after a pause up to `burst` at once."""

    interval_us: int
    burst: int


def parse_rate(text: str) -> Rate | None:
    """The rate that `text` says; None when it says none."""
    found = _FORM.fullmatch(text)
    if found is None:
        return None
    count, unit, burst = found.groups()
    # rounded up: never more than it says
    return Rate(math.ceil(_SECONDS[unit] * 1_000_000 / int(count)), int(burst or 1))
