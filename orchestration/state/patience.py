"""How long a call is repeated while the service that it needs is away.

A worker at work is patient: what it has finished is in its memory, and it goes on trying for as long as its process
lives and is not told to stop. So an outage costs its time, and nothing runs again. Everybody else gives up after some
repetitions and raises the last error.

What is called so must be idempotent: whether a call that failed had an effect is not known.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from typing import Final, TypeVar

from orchestration.telemetry.metrics_memory import counters

T = TypeVar("T")
#: Puts what the caller has in hand where it outlives the process.
Keep = Callable[[], None]

_log = logging.getLogger(__name__)
LONGEST_WAIT_SECONDS: Final = 2.0


class Patience:
    """Repeats a call: at once, then after waits that double, then as long as it may.

    Args: is_away: whether an error means that the service is away; others are raised at once. repeats: repetitions
        with a wait before them that everybody makes. first_wait_seconds: before the first of them. goes_on: asked
        before each one beyond them; None: there are none.
    """

    def __init__(
        self,
        is_away: Callable[[Exception], bool],
        repeats: int = 14,
        first_wait_seconds: float = 0.05,
        goes_on: Callable[[], bool] | None = None,
    ) -> None:
        self._is_away = is_away
        self._repeats = repeats
        self._first_wait_seconds = first_wait_seconds
        self._goes_on = goes_on

    def run(self, call: Callable[[], T], keep: Keep | None = None) -> T:
        """What `call` returns.

        Args: keep: called once, when all repetitions that everybody makes were in vain.
        Raises: what `call` raises, when it is no matter of waiting, or the patience has ended.
        """
        try:
            return call()
        except Exception as error:
            if not self._is_away(error):
                raise
        return self.repeat(call, keep)

    def repeat(self, call: Callable[[], T], keep: Keep | None = None) -> T:
        """Like `run`, when the call has failed before; its first repetition is at once: connections are cut often."""
        began, count = time.monotonic(), 0
        while True:
            counters.add("send_retries_total", 1)
            try:
                result = call()
            except Exception as error:
                if not self._is_away(error):
                    raise
                if count == self._repeats:
                    if keep is not None:
                        keep()
                    if self._goes_on is not None:
                        _log.warning("what is finished waits in this process: %s", error)
                if count >= self._repeats and (self._goes_on is None or not self._goes_on()):
                    raise
            else:
                if count > self._repeats:
                    _log.warning("it goes on after %.1f s", time.monotonic() - began)
                return result
            time.sleep(self._wait_seconds(count))
            count += 1

    def _wait_seconds(self, count: int) -> float:
        longest = min(LONGEST_WAIT_SECONDS, self._first_wait_seconds * 2.0 ** min(count, 30))
        return longest * random.uniform(0.5, 1)  # noqa: S311 - jitter
