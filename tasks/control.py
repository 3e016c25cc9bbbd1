"""What an operator does to runs, from Python: `from tasks import cancel_session`.

Uses the services of REDIS_URL and DATABASE_URL, like a worker. Clients that only send messages load nothing of the
engine for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestration.engine.control import Answer


def cancel_session(flow_session_id: str, *, waits: bool = True) -> Answer:
    """Cancel a run: when this returns, nothing more of it begins, and what runs of it is told to end.

    Its `run_workflow` ends with the status `cancelled`. Actions that run get `orchestration.Cancelled`, or see it at
    `ctx.cancelled`; what has not ended after `BRANCH_GRACE_SECONDS` is given up.

    Args: waits: for its workers to see it, some 0.1 s; else they may begin another step or item meanwhile.
    Returns: `found` says whether it was cancelled now, before, or had ended; `message` says it to people.
    Raises: UnknownRun: no worker has accepted such a run. ServiceUnreachable.
    """
    control, stores, publish = _control()
    answer: Answer = control.cancel_session(stores.database, stores.live, publish, flow_session_id, waits=waits)
    return answer


def pause_session(flow_session_id: str, by: str = "") -> Answer:
    """Pause a run: when this returns, nothing more of it is claimed; branches that run go on to their end.

    Args: by: who asks for it; `parallelizer explain` says so.
    Raises: UnknownRun. ServiceUnreachable.
    """
    control, stores, _ = _control()
    answer: Answer = control.pause_session(stores.database, stores.live, flow_session_id, by)
    return answer


def resume_session(flow_session_id: str) -> Answer:
    """Let a run go on that was paused by itself.

    Raises: UnknownRun. ServiceUnreachable.
    """
    control, stores, publish = _control()
    answer: Answer = control.resume_session(stores.database, stores.live, publish, flow_session_id)
    return answer


def retry_session(flow_session_id: str) -> Answer:
    """Run once more what failed, was cancelled or timed out in a run that has ended so, and what comes after that.

    That is another run, of the same version with the same payload, which takes over the results of what succeeded. Its
    id is `retry` of what this returns, and the Celery task of its result has that id too.

    Returns: `found` is `refused` where there is nothing to retry, or a retry already; `message` says so to people.
    Raises: UnknownRun. ServiceUnreachable: it is not known whether it is retried; call again.
    """
    from tasks.engine import get_processor  # noqa: PLC0415 - see the module docstring
    from tasks.retries import retry_with  # noqa: PLC0415

    processor = get_processor()
    answer: Answer = retry_with(processor.settings, processor.stores.database, processor.stores.live, flow_session_id)
    return answer


def pause_all(workflow: str | None = None, by: str = "") -> int:
    """Pause all runs, or those of a workflow, and those that start later; returns how many are paused by it now.

    Args: by: who asks for it; `parallelizer explain` says so.
    Raises: UnknownWorkflow. ServiceUnreachable.
    """
    control, stores, _ = _control()
    return int(control.pause_all(stores.database, stores.live, workflow, by))


def resume_all(workflow: str | None = None) -> int:
    """Take back `pause_all`; returns how many runs go on. Those that are paused for another reason too stay so.

    Raises: UnknownWorkflow. ServiceUnreachable.
    """
    control, stores, publish = _control()
    return int(control.resume_all(stores.database, stores.live, publish, workflow))


def _control() -> tuple[Any, Any, Any]:
    from orchestration.engine import control  # noqa: PLC0415 - see the module docstring
    from tasks import canvas  # noqa: PLC0415
    from tasks.engine import get_processor  # noqa: PLC0415

    return control, get_processor().stores, canvas.publish_runners
