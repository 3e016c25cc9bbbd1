"""Sends what an upkeep process publishes, in a thread of its own: a broker that is frozen must not delay leases."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from queue import SimpleQueue
from typing import Final

from orchestration.vocabulary import Publication
from tasks import canvas

_log = logging.getLogger(__name__)
#: For so long the end of the process waits for a broker that is away.
END_SECONDS: Final = 5.0


class Sender:
    """What can't be sent is logged and left: runners have a lease, and the reaper sends completions again."""

    def __init__(self) -> None:
        self._unsent: SimpleQueue[Sequence[Publication] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="sender", daemon=True)

    def start(self) -> None:
        """Send from now on."""
        self._thread.start()

    def send(self, publications: Sequence[Publication]) -> None:
        """They are sent soon, in the order of these calls; returns at once."""
        if publications:
            self._unsent.put(publications)

    def end(self) -> None:
        """What was given to `send` has been sent, unless the broker is away."""
        self._unsent.put(None)
        self._thread.join(END_SECONDS)

    def _run(self) -> None:
        while (publications := self._unsent.get()) is not None:
            try:
                canvas.publish_runners(publications)
            except canvas.AWAY as error:
                _log.warning("%d messages can't be sent now: %s", len(publications), error)
            except Exception:  # noqa: BLE001 - the next ones must be sent
                _log.exception("%d messages can't be sent", len(publications))
