"""The worker's view of one message: learns at once when the process that ran it is gone, or the runner has failed.

Called in the worker's main process, whose event loop must not wait: one short call to Redis, and a message for each
runner that takes over. If that fails, the lease expires instead.
"""

from __future__ import annotations

import logging
from typing import Any

from celery.worker.request import Request

from tasks.worker import lifecycle

_log = logging.getLogger(__name__)


class ProcessorRequest(Request):
    """A request for one of our tasks."""

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> Any:
        """Give up the runner whose process died or whose task failed, then do what Celery does."""
        error = getattr(exc_info.exception, "exc", exc_info.exception)
        try:
            self._expire_runner(type(error).__name__)
        except Exception:  # noqa: BLE001 - Celery's own handling must go on
            _log.exception("[WORKER] the runner of %s could not be given up; its lease will expire", self.id)
        return super().on_failure(exc_info, send_failed_event, return_ok)

    def _expire_runner(self, cause: str) -> None:
        from tasks.engine import get_processor  # noqa: PLC0415 - made when first needed
        from tasks.workflow import flow_session_id_of  # noqa: PLC0415

        queue = self.delivery_info.get("routing_key") or self.app.conf.task_default_queue
        if self.name == "tasks.run_branches":
            session, runner = self.id.rpartition(".")[0], self.id
        elif self.name == "tasks.run_workflow":
            session = flow_session_id_of(self.id)
            runner = f"{session}.0"
        else:
            return
        processor = get_processor()
        published = processor.stores.live.expire_runner(session, runner, queue, lifecycle.worker_name())
        processor.links.publish_runners(published)
        if published:
            _log.warning("[WORKER] runner %s has ended by %s; %d others take over", runner, cause, len(published))
