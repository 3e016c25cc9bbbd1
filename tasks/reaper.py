"""The reaper: looks after open sessions that would be left alone for ever; of all upkeep processes one at a time is it.

What is amiss is found and repaired by the script `reap_sessions`, which refuses whoever is not the reaper. What if it
dies here: after its lease another one goes on. What the script told it to publish is on its way with a lease, or is a
completion, which is published again later.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from orchestration.errors import ServiceUnreachable
from orchestration.state.live import LiveState
from orchestration.store.pool import Database
from orchestration.telemetry.probes import probe
from orchestration.vocabulary import Publication

_log = logging.getLogger(__name__)
REAP_SECONDS = 1.0
#: The reaper is another one this long after it has died, or hangs.
LEASE_SECONDS = 5.0
#: Sessions for each call of the script, which takes about 1 ms then, and calls at a time. With more open sessions than
#: these look at, the next ones follow a second later.
MOST_SESSIONS = 100
MOST_CALLS = 5
#: Completions that one call publishes: perhaps none is lost, and the fleet is only slow.
MOST_COMPLETIONS = 20

#: What was amiss with a session, for the log.
_REPAIRED = {
    "completion": "it has ended and was not completed; its completion is published again",
    "end": "it was stopped, and nobody had ended it",
    "admission": "it was queued although there was room for it",
    "wake-up": "what of it waits for a time would not have been woken",
    "time limit": "its time limit would not have been seen to",
    "header": "no runner of its chord has come; it goes on without the chord",
    "runner": "it had ready work and no runner on its way",
    "permit": "it waited for a permit although one was free",
}


class Reaper:
    """The reaper, or who may become it.

    Args: name: of its worker. publish: sends runners and completions.
    """

    def __init__(
        self, live: LiveState, database: Database, name: str, publish: Callable[[Sequence[Publication]], None]
    ) -> None:
        self._live = live
        self._database = database
        self._name = name
        self._publish = publish
        self._is_reaper = False

    def reap_sessions(self) -> None:
        """Some hundred sessions have been looked at, the next ones, unless another process is the reaper."""
        completions = MOST_COMPLETIONS if self._is_reaper and self._can_complete() else 0
        for _ in range(MOST_CALLS):
            reaped = self._live.reap_sessions(self._name, int(LEASE_SECONDS * 1e6), MOST_SESSIONS, completions)
            self._is_reaper = reaped.is_reaper
            for cause, session, age_us in reaped.repairs:
                _log.warning(
                    "%s: %s (for %.1f s)", session, _REPAIRED[cause], age_us / 1e6, extra={"flow_session_id": session}
                )
            if reaped.repairs:
                probe("reaper.found")
            self._publish(reaped.publications)
            if reaped.is_done:
                return

    def _can_complete(self) -> bool:
        """Whether a completion could be recorded: else those that are under way are tried again by themselves."""
        try:
            self._database.check()
        except ServiceUnreachable:
            return False
        return True
