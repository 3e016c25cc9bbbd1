"""The worker's view of one message: learns at once when the process that ran it is gone, or the runner has failed.

Called in the worker's main process, whose event loop must not wait: one short call to Redis, and a message for each
runner that takes over. If that fails, the lease expires instead.

A runner of a chord must not fail to Celery, which would never run the chord's body then: when its process is ended by
the hard time limit, its message comes again, as after a crash.
"""

from __future__ import annotations

import logging
from typing import Any

from billiard.exceptions import TimeLimitExceeded
from celery.exceptions import Ignore
from celery.worker.request import Request
from celery.worker.state import task_ready

from orchestration.errors import WorkflowExecutionError
from orchestration.state.wire import lives_in
from tasks.worker import lifecycle
from tasks.worker.stuck import stuck_threads

_log = logging.getLogger(__name__)


class ProcessorRequest(Request):
    """A request for one of our tasks."""

    def on_accepted(self, pid: int, time_accepted: float) -> None:
        """It begins; on threads, called by the thread that runs it."""
        super().on_accepted(pid, time_accepted)
        stuck_threads.begin(self)

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> Any:
        """Give up the runner whose process died or whose task failed, then do what Celery does."""
        error = getattr(exc_info.exception, "exc", exc_info.exception)
        if not isinstance(error, Ignore):
            # not after an orderly end: a runner of a chord may be at work again by now, in this very worker
            try:
                # an answer to the caller, as of a bad payload, kept no runners from being published
                resends = not isinstance(error, WorkflowExecutionError)
                self._expire_runner(type(error).__name__, resends=resends)
            except Exception:  # noqa: BLE001 - Celery's own handling must go on
                _log.exception("[WORKER] the runner of %s could not be given up; its lease will expire", self.id)
        if self._is_in_chord and isinstance(error, TimeLimitExceeded):
            return self._come_again()
        return super().on_failure(exc_info, send_failed_event, return_ok)

    def on_timeout(self, soft: bool, timeout: float) -> Any:
        """Let a runner of a chord come again; else do what Celery does."""
        if soft or not self._is_in_chord:
            return super().on_timeout(soft, timeout)
        _log.error("[WORKER] the process of runner %s was ended by its time limit (%s s)", self.id, timeout)
        return self._come_again()

    def lose_thread(self, *, given_up: bool) -> None:
        """The thread that runs it is stuck: as after a crash, its message comes again.

        Args: given_up: nobody has gone on without that thread.
        """
        if given_up:
            self._expire_runner("a stuck thread", resends=False)
        self._come_again()

    @property
    def _is_in_chord(self) -> bool:
        return self.name == "tasks.run_branches" and self.chord is not None

    def _come_again(self) -> None:
        task_ready(self)
        self.reject(requeue=True)

    def _expire_runner(self, cause: str, *, resends: bool) -> None:
        from tasks.engine import get_processor  # noqa: PLC0415 - made when first needed
        from tasks.workflow import flow_session_id_of  # noqa: PLC0415

        processor = get_processor()
        live = processor.stores.live
        published = live.resend_runners() if resends else ()
        if self.name in ("tasks.run_branches", "tasks.run_workflow", "tasks.take_up_workflow"):
            if self.name == "tasks.run_branches":
                session, runner = self.id.rpartition(".")[0], self.id
            else:
                session = flow_session_id_of(self.id)
                runner = f"{session}.0"
            worker = lifecycle.worker_name()
            queue = self.delivery_info.get("routing_key") or self.app.conf.task_default_queue
            life = lives_in(worker, self.worker_pid) if self._is_in_chord and self.worker_pid else ""
            takers = live.expire_runner(session, runner, queue, worker, life)
            if takers:
                _log.warning("[WORKER] runner %s has ended by %s; %d others take over", runner, cause, len(takers))
            published += takers
        processor.links.publish_runners(published)
