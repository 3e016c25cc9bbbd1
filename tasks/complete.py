"""`tasks.complete_workflow`: commits the end of a flow session, under the task id of its `run_workflow`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery.exceptions import Ignore
from celery.states import READY_STATES

from orchestration.errors import WorkflowExecutionError
from orchestration.vocabulary import RunStatus
from tasks.canvas import COMPLETE_AT_LAST, ProcessorTask
from tasks.celery_app import app

if TYPE_CHECKING:
    from orchestration.engine.finish import RunResult


@app.task(bind=True, base=ProcessorTask, name="tasks.complete_workflow", ignore_result=False, **COMPLETE_AT_LAST)
def complete_workflow(self: Any, flow_session_id: str, *, raise_on_failure: bool = False) -> dict[str, object]:
    """Complete a session whose branches have all settled; called twice, it gives the same result twice."""
    from tasks.engine import get_processor  # noqa: PLC0415 - clients need nothing of the engine

    return deliver(self, get_processor().complete_workflow(flow_session_id), raise_on_failure=raise_on_failure)


def deliver(task: Any, result: RunResult, *, raise_on_failure: bool) -> dict[str, object]:
    """The result as JSON.

    Raises: Ignore: it was recorded and delivered before: a message that comes again must not call what follows again.
        WorkflowExecutionError: the workflow did not succeed, and the caller wants to know it so.
    """
    if result.recorded_before and task.backend.get_state(task.request.id) in READY_STATES:
        raise Ignore("delivered before")
    if raise_on_failure and result.status != RunStatus.SUCCEEDED:
        raise WorkflowExecutionError(
            f"workflow {result.workflow} {result.status} (flow session {result.flow_session_id}): {dict(result.counts)}"
        )
    return result.to_json()
