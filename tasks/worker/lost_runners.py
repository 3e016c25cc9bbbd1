"""Runners whose end Redis did not take, told again until it does.

A worker renews the leases of all runners in it, also of one whose process is dead, so no lease would ever tell. Used in
the worker's main process; what it remembers is lost with it, and then the leases end.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Final

_log = logging.getLogger(__name__)
#: Each try may keep the main process waiting for a Redis that is frozen.
AGAIN_SECONDS: Final = 5.0


class LostRunners:
    """What is to be told yet, the oldest first."""

    def __init__(self) -> None:
        self._untold: deque[tuple[str, Callable[[], None]]] = deque()
        self._again = 0.0

    def tell(self, runner: str, tell: Callable[[], None]) -> None:
        """Call `tell`, which is idempotent; later again when it raises."""
        try:
            tell()
        except Exception as error:  # noqa: BLE001 - what Celery does with the message must go on
            _log.warning("runner %s can't be given up now: %s", runner, error)
            self._untold.append((runner, tell))
            self._again = time.monotonic() + AGAIN_SECONDS

    def tell_again(self) -> None:
        """Tell what could not be told; to be called often."""
        if not self._untold or time.monotonic() < self._again:
            return
        while self._untold:
            runner, tell = self._untold[0]
            try:
                tell()
            except Exception as error:  # noqa: BLE001 - as above
                _log.warning("runner %s still can't be given up: %s", runner, error)
                self._again = time.monotonic() + AGAIN_SECONDS
                return
            self._untold.popleft()


lost_runners: Final = LostRunners()
