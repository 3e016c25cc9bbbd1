"""Was a limit ever exceeded? Told from starts and ends alone, by sweeping over them.

A limit that is changed while work runs is a list of spells: from when to when which number was in force. Spells
overlap for as long as a change was on its way. What runs already when a limit is lowered may end, so the number of
running tasks counts at each start only: there it may be no larger than the largest number then in force.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Span:
    """A task that ran from `begin` to `end` (µs of one clock); `name` is for messages."""

    begin: int
    end: int
    name: str = ""


@dataclass(frozen=True)
class Spell:
    """A limit that was in force from `begin` to `end` (µs of the same clock); None: there was none."""

    limit: int | None
    begin: int = 0
    end: int = 2**62


def breaches(spans: Sequence[Span], spells: Sequence[Spell]) -> list[str]:
    """A sentence for each start at which more ran than any limit then in force allowed; empty when it always held.

    What ends at the moment at which something else starts does not run beside it.
    """
    found = []
    ends = sorted(span.end for span in spans)
    for started, span in enumerate(sorted(spans, key=lambda each: (each.begin, each.end)), 1):
        running = started - bisect_right(ends, span.begin)
        numbers = [spell.limit for spell in spells if spell.begin <= span.begin <= spell.end]
        assert numbers, f"no limit is known for {span.begin}"
        known = [number for number in numbers if number is not None]
        if len(known) == len(numbers) and running > max(known):
            found.append(f"{running} run when {span.name} starts at {span.begin}; allowed are {max(known)}")
    return found
