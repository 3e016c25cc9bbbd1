"""`tasks.run_branches`: a runner of an open flow session."""

from __future__ import annotations

from typing import Any

from tasks.canvas import RUN_BRANCHES, ProcessorTask, run_in_header
from tasks.celery_app import app


@app.task(bind=True, base=ProcessorTask, name=RUN_BRANCHES, ignore_result=True, max_retries=None)
def run_branches(self: Any, flow_session_id: str, queue: str, header: int = 0) -> None:
    """Run branches of the session that are ready on the queue, until there is no more to do here.

    Args: header: runners in the header of the session's chord, of which this is one; 0: it has none.
    """
    from tasks.engine import get_processor  # noqa: PLC0415 - clients need nothing of the engine

    if header:
        run_in_header(self, get_processor(), flow_session_id, queue, header)
    else:
        get_processor().process_branches_parallel(flow_session_id, self.request.id, queue)
