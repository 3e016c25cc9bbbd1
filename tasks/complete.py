"""`tasks.complete_workflow`: commits the end of a flow session, under the task id of its `run_workflow`."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from celery.exceptions import Ignore, Reject
from celery.states import READY_STATES

from orchestration.errors import SessionClosed, SessionNotEnded, WorkflowExecutionError
from orchestration.telemetry.probes import probe, probed
from orchestration.vocabulary import RunStatus
from tasks.canvas import AWAY, COMPLETE_AT_LAST, ProcessorTask
from tasks.celery_app import app

if TYPE_CHECKING:
    from orchestration.engine.finish import RunResult

#: Between two looks whether another process has delivered a result, or is dead.
DELIVER_AGAIN_SECONDS = 5

_log = logging.getLogger(__name__)


@app.task(bind=True, base=ProcessorTask, name="tasks.complete_workflow", ignore_result=False, **COMPLETE_AT_LAST)
def complete_workflow(self: Any, flow_session_id: str, *, raise_on_failure: bool = False) -> dict[str, object]:
    """Complete a session whose branches have all settled; called twice, it gives the same result twice."""
    from tasks.engine import get_processor  # noqa: PLC0415 - clients need nothing of the engine

    try:
        result = get_processor().complete_workflow(flow_session_id)
    except (SessionClosed, SessionNotEnded) as error:
        # Redis has lost it when it had ended: the run goes on, and its caller waits for the completion to come
        _log.warning(
            "the completion of %s comes too early: %s", flow_session_id, error,
            extra={"flow_session_id": flow_session_id},
        )  # fmt: skip
        raise Ignore("the flow session is taken up again") from error
    return deliver(self, result, raise_on_failure=raise_on_failure)


def deliver(task: Any, result: RunResult, *, raise_on_failure: bool) -> dict[str, object]:
    """The result as JSON.

    Raises: Ignore: it was recorded and delivered before: a message that comes again must not call what follows again.
        Or another process delivers it just now: this message comes again, in case that one dies. Reject: so it does,
            since the broker did not take the copy.
        WorkflowExecutionError: the workflow did not succeed, and the caller wants to know it so.
    """
    is_second = result.recorded_before or result.delivered_by_another
    if is_second and task.backend.get_state(task.request.id) in READY_STATES:
        raise Ignore("delivered before")
    if result.delivered_by_another:
        # by hand: Celery's own retry would store a state in the place of the result
        _deliver_again(task)
        raise Ignore("another process delivers it")
    probe("result.ready")
    if raise_on_failure and result.status != RunStatus.SUCCEEDED:
        raise WorkflowExecutionError(
            f"workflow {result.workflow} {result.status} (flow session {result.flow_session_id}): {dict(result.counts)}"
        )
    return result.to_json()


@probed("publish.delivery_again")
def _deliver_again(task: Any) -> None:
    try:
        task.signature_from_request(task.request, countdown=DELIVER_AGAIN_SECONDS).apply_async(add_to_parent=False)
    except AWAY as error:  # a failure would be taken for the run's
        raise Reject(error, requeue=True) from error
