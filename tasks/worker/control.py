"""Celery's remote control: `celery -A tasks control cancel_session ID`, and the same for pausing.

Any worker that hears it does it, in its main process, which must not wait; the others say that it was done before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from celery.worker.control import control_command

from orchestration.errors import ProcessorError
from tasks import control

#: Who sent a command it does not say.
_BY = "remote control"
_RUN = {"args": [("flow_session_id", str)], "signature": "ID"}
_WORKFLOW = {"args": [("workflow", str)], "signature": "NAME"}


@control_command(**_RUN)
def cancel_session(_state: Any, flow_session_id: str) -> dict[str, str]:
    """Cancel a run."""
    return _answer(lambda: control.cancel_session(flow_session_id, waits=False).message)


@control_command(**_RUN)
def pause_session(_state: Any, flow_session_id: str) -> dict[str, str]:
    """Pause a run."""
    return _answer(lambda: control.pause_session(flow_session_id, _BY).message)


@control_command(**_RUN)
def resume_session(_state: Any, flow_session_id: str) -> dict[str, str]:
    """Let a run go on that was paused."""
    return _answer(lambda: control.resume_session(flow_session_id).message)


@control_command(**_WORKFLOW)
def pause_workflow(_state: Any, workflow: str) -> dict[str, str]:
    """Pause the runs of a workflow, also later ones."""
    return _answer(lambda: f"{control.pause_all(workflow, _BY)} runs are paused by it now")


@control_command(**_WORKFLOW)
def resume_workflow(_state: Any, workflow: str) -> dict[str, str]:
    """Let the runs of a workflow go on."""
    return _answer(lambda: f"{control.resume_all(workflow)} runs go on")


@control_command()
def pause_all(_state: Any) -> dict[str, str]:
    """Pause all runs, also later ones."""
    return _answer(lambda: f"{control.pause_all(by=_BY)} runs are paused by it now")


@control_command()
def resume_all(_state: Any) -> dict[str, str]:
    """Let all runs go on."""
    return _answer(lambda: f"{control.resume_all()} runs go on")


def _answer(do: Callable[[], str]) -> dict[str, str]:
    try:
        return {"ok": do()}
    except ProcessorError as error:
        return {"error": str(error)}
