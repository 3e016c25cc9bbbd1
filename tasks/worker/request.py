"""The worker's view of one message: learns at once when the process that ran it is gone, or the runner has failed.

Called in the worker's main process, whose event loop must not wait: one short call to Redis, and a message for each
runner that takes over. If that fails, it is done again later (lost_runners.py).

A runner of a chord must not fail to Celery, which would never run the chord's body then: when its process is ended by
the hard time limit, its message comes again, as after a crash.
"""

from __future__ import annotations

import logging
from datetime import datetime
from itertools import count
from typing import Any

from billiard.exceptions import TimeLimitExceeded
from celery.exceptions import Ignore
from celery.worker.request import Request
from celery.worker.state import revoked as revoked_tasks
from celery.worker.state import task_ready

from config.broker import is_rabbitmq
from config.settings import get_settings
from orchestration.errors import WorkflowExecutionError
from orchestration.state.holding import release_message
from orchestration.state.wire import lives_in
from tasks import canvas
from tasks.broker import queue_of
from tasks.celery_app import get_wall_clock
from tasks.worker import lifecycle
from tasks.worker.deaths import describe_death
from tasks.worker.lost_runners import lost_runners
from tasks.worker.stuck import stuck_threads

_log = logging.getLogger(__name__)


class ProcessorRequest(Request):
    """A request for one of our tasks."""

    @property
    def eta(self) -> datetime | None:
        """When it may begin, as this host's clock will show it: the worker waits by that."""
        return self._eta and get_wall_clock().on_this_host(self._eta)

    def maybe_expire(self) -> bool | None:
        """Whether it is not to begin any more; no host's clock decides that."""
        if self.expires is None or get_wall_clock().now() <= self.expires:
            return None
        revoked_tasks.add(self.id)
        return True

    def on_accepted(self, pid: int, time_accepted: float) -> None:
        """It begins; on threads, called by the thread that runs it."""
        super().on_accepted(pid, time_accepted)
        stuck_threads.begin(self)

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> Any:
        """Give up the runner whose process died or whose task failed, then do what Celery does."""
        error = getattr(exc_info.exception, "exc", exc_info.exception)
        if not isinstance(error, Ignore):
            # not after an orderly end: a runner of a chord may be at work again by now, in this very worker
            # an answer to the caller, as of a bad payload, kept no runners from being published
            resends = not isinstance(error, WorkflowExecutionError)
            death = describe_death(error)
            self._tell_lost(death, resends=resends)
        if self._is_in_chord and isinstance(error, TimeLimitExceeded):
            return self._come_again()
        return super().on_failure(exc_info, send_failed_event, return_ok)

    def on_timeout(self, soft: bool, timeout: float) -> Any:
        """Let a runner of a chord come again; else do what Celery does."""
        if soft or not self._is_in_chord:
            return super().on_timeout(soft, timeout)
        _log.error(
            "the process of runner %s was ended by its time limit (%s s)", self.id, timeout,
            extra={"flow_session_id": self.id.rpartition(".")[0]},
        )  # fmt: skip
        return self._come_again()

    def lose_thread(self, *, given_up: bool) -> None:
        """The thread that runs it is stuck: as after a crash, its message comes again.

        Args: given_up: nobody has gone on without that thread.
        """
        if given_up:
            self._tell_lost("by a thread that is stuck", resends=False)
        self._come_again()

    @property
    def _is_in_chord(self) -> bool:
        return self.name == "tasks.run_branches" and self.chord is not None

    def _come_again(self) -> None:
        task_ready(self)
        self.reject(requeue=True)

    def _tell_lost(self, death: str, *, resends: bool) -> None:
        tries = count()
        lost_runners.tell(self.id, lambda: self._expire_runner(death, resends=resends, is_late=next(tries) > 0))

    def _expire_runner(self, death: str, *, resends: bool, is_late: bool) -> None:
        from tasks.engine import get_hasty_live  # noqa: PLC0415 - made when first needed
        from tasks.workflow import session_of  # noqa: PLC0415

        live = get_hasty_live()
        published = live.resend_runners() if resends else ()
        if self.name == "tasks.complete_workflow" and self.worker_pid:
            live.release_delivery(session_of(self), lives_in(lifecycle.worker_name(), self.worker_pid))
        if self.name in ("tasks.run_branches", "tasks.run_workflow", "tasks.take_up_workflow"):
            session = session_of(self)
            if self.worker_pid and self.name != "tasks.run_branches" and is_rabbitmq(get_settings().broker_url):
                release_message(live, self.id, lives_in(lifecycle.worker_name(), self.worker_pid))
            runner = self.id if self.name == "tasks.run_branches" else f"{session}.0"
            # with a run id, another call may have started it, and be at work elsewhere; later the message, come again
            is_shared = self._is_in_chord or "run_id" in self.kwargs or is_late
            worker = lifecycle.worker_name()
            queue = queue_of(self.delivery_info)
            life = lives_in(worker, self.worker_pid) if is_shared and self.worker_pid else ""
            takers = live.expire_runner(session, runner, queue, worker, life, death)
            if takers:
                _log.warning(
                    "runner %s has ended %s; %d others take over", runner, death, len(takers),
                    extra={"flow_session_id": session},
                )  # fmt: skip
            published += takers
        canvas.publish_runners(published)
