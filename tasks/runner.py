"""`tasks.run_branches`: a runner of an open flow session."""

from __future__ import annotations

from typing import Any

from tasks.canvas import RUN_BRANCHES, ProcessorTask
from tasks.celery_app import app


@app.task(bind=True, base=ProcessorTask, name=RUN_BRANCHES, ignore_result=True)
def run_branches(self: Any, flow_session_id: str, queue: str) -> None:
    """Run branches of the session that are ready on the queue, until there is no more to do here."""
    from tasks.engine import get_processor  # noqa: PLC0415 - clients need nothing of the engine

    get_processor().process_branches_parallel(flow_session_id, self.request.id, queue)
