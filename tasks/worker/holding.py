"""Says which flow sessions' messages this worker holds, as long as it lives: a first branch has no live state in Redis.

The worker's main process says so, since it knows its messages whatever its children do: also for an action that lets no
other thread of its process run. It costs one call each `HOLD_SECONDS`, and none while no such message is at work.

The call must not keep the main process waiting: it is tried once, for a second at most. With Redis away nobody looks
for lost sessions either, nor for a while after (tasks/rehydration.py).
"""

from __future__ import annotations

import contextlib
import logging
import threading
from typing import Any, Final

from celery import bootsteps
from celery.worker import state

from config.settings import Settings, get_settings
from orchestration.state.client import RedisError
from orchestration.state.holding import Holding

_log = logging.getLogger(__name__)
HOLD_SECONDS: Final = 2.0
#: Until which time it is known; five calls may fail.
HELD_SECONDS: Final = 10.0
#: Their ids tell the session.
_TASKS: Final = ("tasks.run_workflow", "tasks.take_up_workflow")


def holder_lease_seconds(settings: Settings) -> float:
    """How long a delivery that is at work stays so (tasks/redelivery.py); two calls may fail."""
    return max(settings.lease_seconds, 3 * HOLD_SECONDS)


class HeldSessions(bootsteps.StartStopStep):
    """A step of the consumer: its timer survives a reconnect."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **kwargs: Any) -> None:
        super().__init__(consumer, **kwargs)
        self._timer: Any = None
        self._stopped: threading.Event | None = None
        #: What was said to be held, and not said to have left.
        self._held: set[str] = set()
        settings = get_settings()
        assert settings.redis_url is not None
        from tasks.worker.lifecycle import worker_name  # noqa: PLC0415 - which loads this module

        self._holding = Holding(settings.redis_url, settings.namespace, worker_name(), holder_lease_seconds(settings))

    def start(self, consumer: Any) -> None:
        """Say it from now on."""
        if type(consumer.pool).__module__ != "celery.concurrency.solo":
            self._timer = consumer.timer.call_repeatedly(HOLD_SECONDS, self.hold)
            return
        # solo runs tasks in the thread of the timers; and it never forks
        self._stopped = threading.Event()
        threading.Thread(target=self._hold_beside, args=(self._stopped,), name="holding", daemon=True).start()

    def stop(self, _consumer: Any) -> None:
        """Say it no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._stopped is not None:
            self._stopped.set()
            self._stopped = None

    def hold(self) -> None:
        """Say it once."""
        from tasks.workflow import session_of  # noqa: PLC0415 - which loads this module

        requests = {*state.active_requests, *state.reserved_requests}
        held = {session_of(request) for request in requests if request.name in _TASKS}
        tasks = [request.id for request in requests if request.name in _TASKS]
        if not held and not self._held:
            return
        left, self._held = self._held - held, self._held | held  # should the reply be lost, it is known all the same
        try:
            self._holding.hold([*held], [*left], int(HELD_SECONDS * 1e6), tasks)
            self._held = held
        except (RedisError, OSError) as error:
            _log.debug("could not say which flow sessions are at work: %s", error)

    def _hold_beside(self, stopped: threading.Event) -> None:
        while not stopped.wait(HOLD_SECONDS):
            with contextlib.suppress(RuntimeError):  # the requests changed while they were counted
                self.hold()
