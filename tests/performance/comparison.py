"""Samples of both sides, and what they say together: medians, spread, the ratio pair by pair, and whether it is enough.

Pairs are interleaved in time (ours, the other, ours, the other …), so that what else the machine does meanwhile touches
both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    """Both sides, one right after the other; some workloads have nothing beside them."""

    ours: Sample
    beside: Sample | None = None


@dataclass(frozen=True, slots=True)
class Goal:
    """A bound for the median of what the repeats gave."""

    bound: float
    #: `compared`: the ratio or difference; `ours`: our own figure, whatever the other side does.
    of: Literal["compared", "ours"] = "compared"
    #: Else at least.
    is_most: bool = False

    def is_met(self, value: float) -> bool:
        return value <= self.bound if self.is_most else value >= self.bound

    def margin(self, value: float) -> float:
        """How often `value` is as good as the goal asks: 1 just meets it, more is better."""
        if self.is_most:
            return self.bound / max(value, self.bound / 1000)
        return value / self.bound


@dataclass(frozen=True, slots=True)
class Comparison:
    """A measure of ours, and that of the other side which it is compared with."""

    title: str
    unit: str
    #: Names of measures.
    ours: str
    beside: str | None = None
    #: `ratio` for rates, ours ÷ the other; `difference` for durations, ours - the other.
    by: Literal["ratio", "difference"] = "ratio"
    goal: Goal | None = None

    def of(self, pairs: Sequence[Pair]) -> Compared:
        """Compare pair by pair."""
        ours = [pair.ours.measures[self.ours] for pair in pairs]
        if self.beside is None:
            return Compared(self, Spread.of(ours))
        beside = [pair.beside.measures[self.beside] for pair in pairs if pair.beside is not None]
        both = list(zip(ours, beside, strict=True))
        against = [one / other if self.by == "ratio" else one - other for one, other in both]
        return Compared(self, Spread.of(ours), Spread.of(beside), Spread.of(against))


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
    beside: Spread | None = None
    against: Spread | None = None

    @property
    def judged(self) -> Spread:
        """What the goal is for."""
        goal = self.comparison.goal
        return self.ours if self.against is None or (goal is not None and goal.of == "ours") else self.against

    @property
    def judged_unit(self) -> str:
        """Behind the figures of `judged`."""
        return "×" if self.judged is self.against and self.comparison.by == "ratio" else self.comparison.unit

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None where there is none."""
        goal = self.comparison.goal
        return None if goal is None else goal.is_met(self.judged.median)
