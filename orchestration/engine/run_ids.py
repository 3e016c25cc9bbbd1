"""A caller's own id of a run: other calls with the same one must mean the same run."""

from __future__ import annotations

from collections.abc import Mapping

import orjson

from orchestration.engine.versions import Version
from orchestration.errors import RunIdTaken
from orchestration.store.sessions import SessionRow


def check_same_run(
    run_id: str, workflow: str | Mapping[str, object], version: Version, payload: object, row: SessionRow
) -> None:
    """Return when a call means the run that has its id.

    Args: workflow: as the call has it; version: what that means now. row: the run that is there.
    Raises: RunIdTaken: it is of another workflow, or has another payload.
    """
    # a name may mean a newer version by now; a definition, or name@version, says which
    by_name = isinstance(workflow, str) and "@" not in workflow
    if row.workflow != version.workflow or not (by_name or row.version_id == version.version_id):
        differs = "which is of another workflow or version"
    elif orjson.loads(row.payload or "null") != payload:
        differs = "which has another payload"
    else:
        return
    raise RunIdTaken(
        f"run_id {run_id!r} belongs to flow session {row.flow_session_id} of {row.workflow}@{row.version}, {differs}; "
        "choose another run_id for another run"
    )
