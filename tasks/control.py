"""What an operator does to runs, from Python: `from tasks import cancel_session`.

Uses the services of REDIS_URL and DATABASE_URL, like a worker.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestration.engine.control import Answer


def cancel_session(flow_session_id: str) -> Answer:
    """Cancel a run: when this returns, nothing more of it begins, and what runs of it is told to end.

    Its `run_workflow` ends with the status `cancelled`. Actions that run get `orchestration.Cancelled`, or see it at
    `ctx.cancelled`; what has not ended after `BRANCH_GRACE_SECONDS` is given up.

    Returns: `found` says whether it was cancelled now, before, or had ended; `message` says it to people.
    Raises: UnknownRun: no worker has accepted such a run. ServiceUnreachable.
    """
    from orchestration.engine import control  # noqa: PLC0415 - clients that only send messages need nothing of the engine
    from tasks import canvas  # noqa: PLC0415
    from tasks.engine import get_processor  # noqa: PLC0415

    stores = get_processor().stores
    return control.cancel_session(stores.database, stores.live, canvas.publish_runners, flow_session_id)
