"""Redis's clock as a process knows it: no host's own clock takes part in what is recorded.

A call of Redis that tells the time was answered between two readings of this process's monotonic clock, so the
difference of the two clocks lies between two bounds; the last known difference is kept as long as it does. What is
recorded is bounded besides: nothing begins before its claim (`Timeline`), nothing ends after its settlement
(channel/parse.py). Hence two branches of which one was claimed when the other had settled never overlap in the record.
"""

from __future__ import annotations

from typing import Final

#: An older difference is asked for anew: two clocks may drift apart by 0.1 ms a second.
FRESH_NS: Final = 10_000_000_000


class RedisClock:
    """The clock of one process; threads may use it at once."""

    def __init__(self) -> None:
        #: Redis's time less ours, or None: nobody has asked yet.
        self._difference_ns: int | None = None
        #: It is no more than this.
        self._most_ns = 0
        self._observed_ns = 0

    def observe(self, redis_us: int, before_ns: int, after_ns: int) -> None:
        """Redis has said that it was `redis_us` at some moment between two readings of `time.monotonic_ns`."""
        least, most = redis_us * 1000 - after_ns, redis_us * 1000 - before_ns
        known = self._difference_ns
        self._most_ns = most if known is None or self._most_ns < least else min(self._most_ns, most)
        if known is None or not least <= known <= most:
            self._difference_ns = (least + most) // 2 if known is None else min(max(known, least), most)
        self._observed_ns = after_ns

    @property
    def is_known(self) -> bool:
        """Whether the difference was ever seen."""
        return self._difference_ns is not None

    def is_fresh(self, now_ns: int) -> bool:
        """Whether the difference was seen lately."""
        return self._difference_ns is not None and now_ns - self._observed_ns < FRESH_NS

    def monotonic_ns(self, redis_us: int) -> int:
        """The reading of `time.monotonic_ns` at which it is `redis_us` by Redis."""
        return redis_us * 1000 - (self._difference_ns or 0)

    def us(self, monotonic_ns: int) -> int:
        """The time by Redis, µs since the epoch, at a reading of `time.monotonic_ns`."""
        return (monotonic_ns + (self._difference_ns or 0)) // 1000

    def latest_us(self, monotonic_ns: int) -> int:
        """What Redis's clock shows at most at a reading of `time.monotonic_ns`, µs since the epoch."""
        return (monotonic_ns + self._most_ns) // 1000 + 1


class Timeline:
    """The times of what one claim runs, one after another: none begins before the claim, or before the last has ended.

    Args: since_us: when the claim was made; while the session is not open, when it was accepted, or 0.
    """

    __slots__ = ("_clock", "_floor_us", "_seen_us", "_since_us")

    def __init__(self, clock: RedisClock, since_us: int) -> None:
        self._clock = clock
        self._floor_us = self._since_us = self._seen_us = since_us

    def seen_us(self, started_ns: int) -> int:
        """When something began, for who looks on from another thread: it may have ended by now, and others begun.

        If it goes on, it is not said later to have begun earlier, also when the clock is corrected.
        """
        self._seen_us = max(self._since_us, self._clock.us(started_ns))
        return self._seen_us

    def start_us(self, started_ns: int) -> int:
        """When something began; what follows begins and ends no earlier, also when the clock is corrected."""
        self._floor_us = max(self._floor_us, self._seen_us, self._clock.us(started_ns))
        return self._floor_us

    def span_us(self, started_ns: int, finished_ns: int) -> tuple[int, int]:
        """When something began and ended; what follows begins no earlier."""
        started_us = max(self._floor_us, self._seen_us, self._clock.us(started_ns))
        self._floor_us = max(started_us, self._clock.us(finished_ns))
        return started_us, self._floor_us
