"""Sends a run to the workers. `tasks`, and Celery with it, is imported here and not before the services are known."""

from __future__ import annotations

from typing import Any

from orchestration.definition.schema import Definition
from orchestration.errors import ServiceUnreachable
from parallelizer.cli.failures import WrongUse
from parallelizer.cli.main import stranger
from parallelizer.cli.source import PublishedName


def submit(workflow: Definition | PublishedName, payload: dict[str, Any]) -> Any:
    """Send `run_workflow` for a definition or a published name.

    Returns: Celery's `AsyncResult`; its id is the flow session's.
    Raises: ServiceUnreachable: the broker does not answer. WrongUse: Python finds another `tasks` than ours.
    """
    if complaint := stranger("tasks"):
        raise WrongUse(complaint)
    from tasks import run_workflow  # noqa: PLC0415 - see the module docstring

    given = str(workflow) if isinstance(workflow, PublishedName) else workflow.to_dict()
    try:
        return run_workflow.apply_async(args=[given, payload])
    except run_workflow.OperationalError as error:
        raise ServiceUnreachable(f"the broker does not answer ({error}); start it or correct BROKER_URL") from None
