"""Finds what Redis has lost, and publishes its sessions again; a thread of each upkeep process.

PostgreSQL knows the epoch of live state, and Redis has it too. When Redis has none, it has lost everything; when upkeep
sees it count backwards, it came back with an older state, of which nothing can be trusted: the next epoch begins, and
what it holds is dropped. In a valid epoch each session that has not ended has live state, or a worker that holds its
message (worker/holding.py). Those that have neither are published again; the task that comes then rebuilds what is
known of them (engine/rebuild.py).

Any number of processes may do this: an epoch begins once, and a session is given to one of them for some seconds, and
when that has published it, to nobody for some minutes.

What if it dies here: an epoch that was begun in PostgreSQL only is finished by the next one, from the start; a session
that was given and not published is found again after `GIVE_SECONDS`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from orchestration.errors import ServiceUnreachable
from orchestration.state.live import LiveState
from orchestration.state.stream import StatusStream
from orchestration.store import recovery
from orchestration.store.pool import Database
from orchestration.store.recovery import Unfinished
from orchestration.telemetry.probes import probe
from orchestration.vocabulary import Publication, RunStatus

_log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 4.0
#: A session that was given to a process which did not publish it is found after it.
GIVE_SECONDS: Final = 20.0
#: A session whose message was lost again is found after it; it may wait so long for a worker.
TAKE_UP_SECONDS: Final = 300.0
#: Sessions in one look-up, and most that are published in one round: what follows comes with the next.
PAGE: Final = 500
MOST_AT_ONCE: Final = 2000
#: Those that ran before those that were queued: so they have their places among the sessions that may run.
_ORDER: Final = ((RunStatus.RUNNING, RunStatus.SUSPENDED, RunStatus.PAUSED), (RunStatus.QUEUED,))
Publish = Callable[[str, str, Mapping[str, Any]], None]


class Rehydration:
    """Looks after what Redis may have lost.

    Args: grace_seconds: how long all services must have answered, a session must have been accepted and an epoch must
        have lasted before anything is taken for lost: workers say within it what they hold.
        publish: sends a session's message again, by its id, task id and call. hand_on: publishes runners.
    """

    def __init__(
        self, live: LiveState, database: Database, stream: StatusStream, grace_seconds: float, publish: Publish,
        hand_on: Callable[[Sequence[Publication]], None],
    ) -> None:  # fmt: skip
        self._live = live
        self._database = database
        self._stream = stream
        self._grace_seconds = grace_seconds
        self._publish = publish
        self._hand_on = hand_on
        self._tick = 0
        #: Sessions that were given to this process and are not published yet: nobody else finds them for a while.
        self._given: deque[Unfinished] = deque()
        self._given_in: int | None = None
        self._ticked_in: int | None = None
        #: The epoch in which Redis counted less than it had before.
        self._gone_back_in: int | None = None
        #: There is something to look at now.
        self._noticed = threading.Event()
        self._noticed.set()
        #: Since when all has answered, by `time.monotonic`.
        self._steady_since: float | None = None

    def run(self, ended: threading.Event) -> None:
        """Look again and again, until `ended`. Never raises."""
        while not ended.is_set():
            self._noticed.wait(LOOK_SECONDS)
            self._noticed.clear()
            try:
                self.look()
            except Exception as error:  # noqa: BLE001 - it looks again
                self._steady_since = None
                if isinstance(error, ServiceUnreachable):
                    _log.warning("can't see what Redis has lost: %s", error)
                else:
                    _log.warning("can't see what Redis has lost", exc_info=True)

    def tick(self) -> None:
        """Notice when Redis counts less than before; a loss of only what came since the last call is not seen."""
        tick, epoch = self._live.tick()
        # in another epoch, somebody else has noticed it
        if tick <= self._tick and epoch == self._ticked_in:
            self._gone_back_in = epoch
            self._noticed.set()
        self._tick, self._ticked_in = tick, epoch

    def look(self) -> int:
        """One round; returns how many sessions were published again."""
        epoch = self._keep_epoch()
        now = time.monotonic()
        if epoch is None:
            self._steady_since = None
            return 0
        if self._given_in != epoch.number:
            self._given.clear()  # forgotten with the epoch, and found again
        # at once: another process may always be the one that looks
        published = self._publish_given()
        if self._steady_since is None:
            self._steady_since = now
        if min(now - self._steady_since, epoch.age_seconds) < self._grace_seconds:
            return published
        # what is on its way from before the epoch is to be known first
        if self._stream.oldest_age_seconds() >= epoch.age_seconds or not self._live.begin_look(LOOK_SECONDS * 0.8):
            return published
        return published + self._take_up(epoch.number)

    def _keep_epoch(self) -> recovery.Epoch | None:
        """The epoch that is valid in both; None: one is only beginning."""
        known, epoch = self._live.epoch(), recovery.load_epoch(self._database, self._live.space.namespace)
        gone_back = known is not None and known == self._gone_back_in
        if known == epoch.number and not gone_back:
            return epoch
        self._gone_back_in = None
        if known is None:
            said = "has lost its data" if epoch.number else "has no live state yet"
        else:
            said = "came back with an older state, which is dropped"
        _log.log(
            logging.ERROR if epoch.number else logging.INFO,
            "Redis %s (epoch %s, PostgreSQL's is %d); flow sessions go on by what PostgreSQL knows of them",
            said, known, epoch.number,
        )  # fmt: skip
        if known is None or known >= epoch.number:
            following = max(known or 0, epoch.number) + 1
            epoch = recovery.begin_epoch(self._database, self._live.space.namespace, epoch.number, following)
        if known is not None:
            self._drop_all(epoch.number)
        self._live.begin_epoch(epoch.number)
        return None

    def _drop_all(self, epoch: int) -> None:
        """Nothing of the sessions in Redis is left but their status updates, which are on their way to PostgreSQL."""
        while (sessions := self._live.open_sessions()) and self._live.epoch() != epoch:
            for session in sessions:
                self._hand_on(self._live.drop_session(session, epoch))
                probe("rehydration.dropping")

    def _take_up(self, epoch: int) -> int:
        published = 0
        for statuses in _ORDER:
            after = None
            while published < MOST_AT_ONCE:
                page = recovery.unfinished(
                    self._database, self._live.space.namespace, statuses, self._grace_seconds, after, PAGE
                )
                published += self._publish_lost(epoch, page)
                if len(page) < PAGE:
                    break
                after = (page[-1].created_at, page[-1].flow_session_id)
        return published

    def _publish_lost(self, epoch: int, page: Sequence[Unfinished]) -> int:
        queues = [(session.flow_session_id, str(session.call["queue"])) for session in page]
        self._given_in = epoch
        lost = self._live.take_up_sessions(epoch, queues, int(GIVE_SECONDS * 1e6))
        by_id = {session.flow_session_id: session for session in page}
        self._given += [by_id[flow_session_id] for flow_session_id in lost or ()]
        return self._publish_given()

    def _publish_given(self) -> int:
        """Send the messages of sessions that were given to this process, also in a round before that was cut short."""
        published = 0
        while self._given:
            session = self._given[0]
            flow_session_id = session.flow_session_id
            _log.warning(
                "nobody is at work on flow session %s: it is taken up again", flow_session_id,
                extra={"flow_session_id": flow_session_id},
            )  # fmt: skip
            self._publish(flow_session_id, session.celery_task_id, session.call)
            self._live.hold_session(flow_session_id, int(TAKE_UP_SECONDS * 1e6))
            self._given.popleft()
            published += 1
        return published
