"""Rate limits in plain Python: what `take_rate` must answer, at a time that the test says."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class ModelLimit:
    """A limit: a call each `interval` µs, `burst` of them after a pause."""

    interval: int
    burst: int
    tat: int = 0
    line: int = 0
    #: When calls began.
    begun: list[int] = field(default_factory=list)

    def take(self, now: int) -> None:
        """A call begins."""
        self.tat = max(self.tat, now) + self.interval
        self.begun.append(now)

    def check(self) -> None:
        """In no window have more begun than the burst and what the rate gives in its length."""
        for first, begin in enumerate(self.begun):
            for last in range(first, len(self.begun)):
                allowed = self.burst + (self.begun[last] - begin) / self.interval
                assert last - first + 1 <= allowed, f"{last - first + 1} began in {self.begun[last] - begin} µs"


@dataclass
class ModelRates:
    """Several limits and the calls that wait for them."""

    limits: dict[str, ModelLimit]
    places: dict[str, int] = field(default_factory=dict)
    begun: set[str] = field(default_factory=set)

    def take(self, token: str, names: list[str], now: int) -> int:
        """µs that the call must wait; 0: it begins."""
        if token in self.begun:
            return 0
        limits = [self.limits[name] for name in names]
        has_place = token in self.places
        due = max(now, self.places.get(token, 0))
        for limit in limits:
            taken = limit.tat if has_place else max(limit.tat, limit.line)
            due = max(due, taken - limit.interval * (limit.burst - 1))
        for limit in limits:
            if not has_place:
                limit.line = max(limit.line, limit.tat, due) + limit.interval
            if due == now:
                limit.take(now)
        if due == now:
            self.begun.add(token)
            self.places.pop(token, None)
        elif not has_place:
            self.places[token] = due
        return due - now

    def pass_time(self, us: int) -> None:
        """So much later: seen from then, all was so much earlier."""
        for limit in self.limits.values():
            limit.tat, limit.line = limit.tat - us, limit.line - us
            limit.begun = [when - us for when in limit.begun]
        self.places = {token: due - us for token, due in self.places.items()}
