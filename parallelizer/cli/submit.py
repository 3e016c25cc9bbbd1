"""Sends a run to the workers. `tasks`, and Celery with it, is imported here and not before the services are known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from orchestration.definition.schema import Definition
from orchestration.errors import ServiceUnreachable
from orchestration.vocabulary import Publication
from parallelizer.cli.failures import WrongUse
from parallelizer.cli.main import stranger
from parallelizer.cli.source import PublishedName


def submit(workflow: Definition | PublishedName, payload: dict[str, Any]) -> Any:
    """Send `run_workflow` for a definition or a published name.

    Returns: Celery's `AsyncResult`; its id is the flow session's.
    Raises: ServiceUnreachable: the broker does not answer. WrongUse: Python finds another `tasks` than ours.
    """
    _check_tasks()
    from tasks import run_workflow  # noqa: PLC0415 - see the module docstring

    given = str(workflow) if isinstance(workflow, PublishedName) else workflow.to_dict()
    try:
        return run_workflow.apply_async(args=[given, payload])
    except run_workflow.OperationalError as error:
        raise ServiceUnreachable(f"the broker does not answer ({error}); start it or correct BROKER_URL") from None


def publish(publications: Sequence[Publication]) -> None:
    """Send runners that a change of the live state has called for.

    Raises: ServiceUnreachable: the broker does not answer; workers send them after a minute.
    """
    if not publications:
        return
    _check_tasks()
    from tasks import canvas  # noqa: PLC0415 - see the module docstring

    try:
        canvas.publish_runners(publications)
    except canvas.AWAY as error:
        raise ServiceUnreachable(f"it is set, but the broker does not answer ({error}); it acts in a minute") from None


def _check_tasks() -> None:
    if complaint := stranger("tasks"):
        raise WrongUse(complaint)
