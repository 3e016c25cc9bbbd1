"""Celery's remote control: `celery -A tasks control cancel_session ID`.

Any worker that hears it does it, in its main process; the others say that it was done before.
"""

from __future__ import annotations

from typing import Any

from celery.worker.control import control_command

from orchestration.errors import ProcessorError
from tasks import control


@control_command(args=[("flow_session_id", str)], signature="ID")
def cancel_session(_state: Any, flow_session_id: str) -> dict[str, str]:
    """Cancel a run."""
    try:
        return {"ok": control.cancel_session(flow_session_id).message}
    except ProcessorError as error:
        return {"error": str(error)}
