"""`tasks.run_workflow` starts a flow session: the message unpacked, the engine called, its answer made Celery calls."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from functools import partial
from typing import Any

from celery.exceptions import Ignore

from orchestration.errors import SecondMessage, WorkflowExecutionError
from tasks.broker import queue_of
from tasks.canvas import RIDE_OUT, TAKE_UP, ForkElsewhere, ProcessorTask, call_of, fork_here
from tasks.celery_app import app
from tasks.complete import complete_workflow, deliver

#: Flow sessions of tasks whose id is no UUID get one in this name space.
_IDS = uuid.UUID("6b0f6f0e-5f0c-4b4f-9c43-0a4b3d3c7b1e")
#: Those of a caller's own run id get one in this.
_RUN_IDS = uuid.UUID("0d8cbd7a-2b0e-4a34-9c2e-3c5d5f5b8f10")
LONGEST_RUN_ID = 200


@app.task(bind=True, base=ProcessorTask, name="tasks.run_workflow", ignore_result=False, **RIDE_OUT)
def run_workflow(
    self: Any,
    workflow: str | Mapping[str, object],
    payload: object = None,
    *,
    priority: int = 0,
    raise_on_failure: bool = False,
    run_id: str | None = None,
) -> dict[str, object]:
    """Run a workflow; the result comes when all its branches have settled.

    Args: workflow: a published name, `name@version`, or a whole definition. payload: JSON. Where Celery puts a result
            before them, in a chain or as a chord's body, that result is the payload.
        priority: 0–9, a head start over others. raise_on_failure: a failed workflow fails this task too.
        run_id: of the caller's choice, such as the id of an order: however often it is called with the same one, one
            run comes of it. A call that finds the run there gives it as it is, which may be `running`.
    Returns: flow_session_id, workflow, version, status, output, counts, duration_seconds.
    Raises: UnknownWorkflow, DefinitionError, PayloadError, RunIdTaken: nothing was started.
    """
    if isinstance(priority, bool) or not isinstance(priority, int) or not 0 <= priority <= 9:
        raise WorkflowExecutionError(f"priority must be a whole number from 0 to 9, not {priority!r}")
    if run_id is not None and not (isinstance(run_id, str) and 0 < len(run_id) <= LONGEST_RUN_ID):
        raise WorkflowExecutionError(f"run_id must be a text of 1 to {LONGEST_RUN_ID} characters, not {run_id!r:.100}")
    # here, because a client that only sends the message needs nothing of the engine
    from orchestration.engine.invoke import GivenUp  # noqa: PLC0415
    from orchestration.engine.processor import Fork, RunRequest  # noqa: PLC0415
    from tasks.engine import get_processor, has_copy_at_work  # noqa: PLC0415
    from tasks.redelivery import only_delivery  # noqa: PLC0415

    if _names_workflow(payload) and not _names_workflow(workflow):
        workflow, payload = payload, workflow  # type: ignore[assignment]  # (result, workflow)
    processor = get_processor()
    session, queue = flow_session_id_of(self.request.id, run_id), queue_of(self.request.delivery_info)
    completion = partial(_completion, session, queue, raise_on_failure)
    elsewhere = ForkElsewhere(self, processor, completion)
    call = call_of(self.request, queue, raise_on_failure=raise_on_failure)
    has_copy = partial(has_copy_at_work, self.name, self.request.id)
    request = RunRequest(
        session, workflow, payload, queue, priority, self.request.id, call, elsewhere, run_id, has_copy,
        self.request.get("traceparent"),
    )  # fmt: skip
    with only_delivery(self, processor):
        try:
            outcome = processor.process_workflow_parallel(request)
        except SecondMessage as error:
            raise Ignore(str(error)) from None
        except GivenUp:
            elsewhere.raise_end()
        if isinstance(outcome, Fork):
            fork_here(self, processor, outcome, completion())
        return deliver(self, outcome, raise_on_failure=raise_on_failure)


@app.task(bind=True, base=ProcessorTask, name=TAKE_UP, ignore_result=False, **RIDE_OUT)
def take_up_workflow(self: Any, flow_session_id: str, *, raise_on_failure: bool = False) -> dict[str, object]:
    """Go on with a run that was accepted and that Redis has lost, under the task id of its `run_workflow`.

    Returns, raises: as `run_workflow`.
    """
    from orchestration.engine.processor import Fork, RunRequest  # noqa: PLC0415 - as above
    from tasks.engine import get_processor  # noqa: PLC0415
    from tasks.redelivery import only_delivery  # noqa: PLC0415

    processor, queue = get_processor(), queue_of(self.request.delivery_info)
    with only_delivery(self, processor):
        outcome = processor.take_up(RunRequest(flow_session_id, "", None, queue, celery_task_id=self.request.id))
        if isinstance(outcome, Fork):
            fork_here(self, processor, outcome, _completion(flow_session_id, queue, raise_on_failure))
        return deliver(self, outcome, raise_on_failure=raise_on_failure)


def _completion(flow_session_id: str, queue: str, raise_on_failure: bool) -> Any:
    made = complete_workflow.si(flow_session_id, raise_on_failure=raise_on_failure)
    return made.set(queue=queue)  # this worker's; nobody may serve another


def _names_workflow(value: object) -> bool:
    return isinstance(value, str) or (isinstance(value, Mapping) and "actions" in value)


def flow_session_id_of(task_id: str, run_id: str | None = None) -> str:
    """The flow session of a Celery task: its id where that is a UUID, else one derived from it, or from `run_id`."""
    if run_id is not None:
        return str(uuid.uuid5(_RUN_IDS, run_id))
    try:
        return str(uuid.UUID(task_id))
    except ValueError:
        return str(uuid.uuid5(_IDS, task_id))


def session_of(request: Any) -> str:
    """The flow session that a worker's request is for."""
    if request.name == "tasks.run_branches":
        return str(request.id.rpartition(".")[0])
    if request.name == "tasks.run_workflow":
        run_id = request.kwargs.get("run_id")
        return flow_session_id_of(request.id, run_id if isinstance(run_id, str) else None)
    return str(request.args[0])
