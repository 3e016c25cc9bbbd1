"""What an operator does to runs from outside; tasks/control.py offers it to command line, Python and remote control.

Each call is one script: what it says is true when it returns, whatever the workers do, and calling again does no harm.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from orchestration.errors import UnknownRun
from orchestration.state.live import LiveState
from orchestration.store import sessions
from orchestration.store.pool import Database
from orchestration.vocabulary import Publication, RunStatus


class Found(StrEnum):
    """What a call found."""

    #: It has done what it was asked to.
    DONE = "done"
    #: It was so before.
    BEFORE = "before"
    #: The run has ended, or all its branches have: nothing was done.
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a call for one run."""

    flow_session_id: str
    found: Found
    #: As recorded, or what it is to become.
    status: RunStatus
    #: A sentence for people.
    message: str
    #: Branches and chunks that were at work, and are told to end.
    running: int = 0

    def to_json(self) -> dict[str, object]:
        """The fields that scripts rely on."""
        return {
            "flow_session_id": self.flow_session_id, "found": self.found.value, "status": self.status.value,
            "running": self.running, "message": self.message,
        }  # fmt: skip


def cancel_session(
    database: Database, live: LiveState, publish: Callable[[Sequence[Publication]], None], flow_session_id: str
) -> Answer:
    """Cancel a run: when this returns, no branch of it can be claimed any more, and what runs is told to end.

    Args: publish: sends what the end of the session asks for.
    Returns: what was found; a run that has ended stays as it is.
    Raises: UnknownRun: there is no such run, or its message has not reached a worker yet. ServiceUnreachable.
    """
    row = sessions.find_session(database, flow_session_id)
    if row is None:
        raise UnknownRun(f"no run has the id {flow_session_id}; `parallelizer list` shows those there are")
    if row.status.is_final:
        return Answer(flow_session_id, Found.ENDED, row.status, f"{flow_session_id} has ended before: {row.status}")
    told = live.cancel_session(flow_session_id)
    publish(told.publications)
    if told.found in ("ended", "closed"):
        message = f"{flow_session_id}: all its branches have settled before, so it ends as it does"
        return Answer(flow_session_id, Found.ENDED, row.status, message)
    at_work = f"{told.claimed} branches or chunks at work are told to end"
    if told.found == "again":
        message = f"{flow_session_id} was cancelled before; {at_work if told.claimed else 'it is ending'}"
        return Answer(flow_session_id, Found.BEFORE, RunStatus.CANCELLED, message, told.claimed)
    if told.found == "unopened":
        message = f"{flow_session_id} is cancelled; its first branch, if it runs, is told to end"
    else:
        message = f"{flow_session_id} is cancelled; {at_work if told.claimed else 'nothing of it was at work'}"
    return Answer(flow_session_id, Found.DONE, RunStatus.CANCELLED, message, told.claimed)
