"""Samples of both sides, and what they say together: medians, spread, and the ratio pair by pair.

Pairs are interleaved in time (ours, plain, ours, plain …), so that what else the machine does meanwhile touches both.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal


@dataclass(frozen=True, slots=True)
class Sample:
    """One side, once."""

    measures: Mapping[str, float]
    #: Exact: what was done, and in how many messages.
    counts: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Pair:
    """Both sides, one right after the other."""

    ours: Sample
    raw: Sample


@dataclass(frozen=True, slots=True)
class Comparison:
    """A measure of ours against one of plain Celery."""

    title: str
    unit: str
    #: Names of measures.
    ours: str
    raw: str
    #: `ratio` for rates, ours ÷ plain; `difference` for durations, ours - plain.
    by: Literal["ratio", "difference"] = "ratio"
    #: The goal: the median over the pairs is no less than this.
    at_least: float | None = None

    def of(self, pairs: Iterable[Pair]) -> Compared:
        """Compare pair by pair."""
        both = [(pair.ours.measures[self.ours], pair.raw.measures[self.raw]) for pair in pairs]
        against = [ours / raw if self.by == "ratio" else ours - raw for ours, raw in both]
        return Compared(
            self, Spread.of([ours for ours, _ in both]), Spread.of([raw for _, raw in both]), Spread.of(against)
        )


@dataclass(frozen=True, slots=True)
class Spread:
    """What several repeats gave."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(median(values), min(values), max(values))


@dataclass(frozen=True, slots=True)
class Compared:
    """The outcome of a comparison."""

    comparison: Comparison
    ours: Spread
    raw: Spread
    against: Spread

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None where there is none."""
        goal = self.comparison.at_least
        return None if goal is None else self.against.median >= goal
