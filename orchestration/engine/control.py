"""What an operator does to runs from outside; tasks/control.py offers it to command line, Python and remote control.

Each call is one script: what it says is true when it returns, whatever the workers do, and calling again does no harm.
`cancel_session` waits besides until those that run something have seen it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from orchestration.engine.cancellation import LOOK_NS
from orchestration.engine.flush import LOOK_SECONDS
from orchestration.errors import UnknownRun, UnknownWorkflow
from orchestration.state.live import LiveState
from orchestration.state.records import Unheeded
from orchestration.store import recovery, sessions, workflows
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
    #: That can't be done to this run, and the message says why.
    REFUSED = "refused"


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
    #: Of a run that was to be retried: the id of its retry, from this call or one before.
    retry: str | None = None

    def to_json(self) -> dict[str, object]:
        """The fields that scripts rely on."""
        answer: dict[str, object] = {
            "flow_session_id": self.flow_session_id, "found": self.found.value, "status": self.status.value,
            "running": self.running, "message": self.message,
        }  # fmt: skip
        return answer if self.retry is None else answer | {"retry": self.retry}


#: A process that lives answers in LOOK_NS; one that is stuck or lost never does.
HEED_SECONDS: Final = 5.0
FIRST_BRANCH_SECONDS: Final = LOOK_NS / 1e9 + 2 * LOOK_SECONDS
#: Sends what a script says is to be published.
Publish = Callable[[Sequence[Publication]], None]


def cancel_session(
    database: Database, live: LiveState, publish: Publish, flow_session_id: str, *, waits: bool = True
) -> Answer:
    """Cancel a run: when this returns, nothing more of it begins, and what runs is told to end.

    Args: publish: sends what the end of the session asks for. waits: for those that run some of it to see that it was
            cancelled, which takes a tenth of a second; else they may begin another step or item meanwhile.
    Returns: what was found; a run that has ended stays as it is.
    Raises: UnknownRun: there is no such run, or its message has not reached a worker yet. ServiceUnreachable.
    """
    row = known_run(database, flow_session_id)
    if row.status.is_final:
        return Answer(flow_session_id, Found.ENDED, row.status, f"{flow_session_id} has ended before: {row.status}")
    told = live.cancel_session(flow_session_id)
    if told.found in ("cancelled", "unopened", "again"):
        recovery.note_cancelled(database, flow_session_id, row.session_day)
    publish(told.publications)
    if told.found in ("ended", "closed"):
        message = f"{flow_session_id}: all its branches have settled before, so it ends as it does"
        return Answer(flow_session_id, Found.ENDED, row.status, message)
    if told.found == "stopped":
        message = f"{flow_session_id} is ending by itself, at its deadline, or since it gave way or waited too long"
        return Answer(flow_session_id, Found.ENDED, row.status, message, told.claimed)
    unheeded = Unheeded(0, 0)
    if told.found == "unopened" and waits:
        _await_first_branch(live, flow_session_id)
    elif told.claimed and waits:
        unheeded = _await_heed(live, flow_session_id)
    at_work = f"{told.claimed} branches or chunks at work are told to end"
    if unheeded.runners:
        at_work += f", but {unheeded.runners} runners with {unheeded.units} of them do not answer: stuck, or lost"
    if told.found == "again":
        message = f"{flow_session_id} was cancelled before; {at_work if told.claimed else 'it is ending'}"
        return Answer(flow_session_id, Found.BEFORE, RunStatus.CANCELLED, message, told.claimed)
    if told.found == "unopened":
        message = f"{flow_session_id} is cancelled; its first branch, if it runs, is told to end"
    else:
        message = f"{flow_session_id} is cancelled; {at_work if told.claimed else 'nothing of it was at work'}"
    return Answer(flow_session_id, Found.DONE, RunStatus.CANCELLED, message, told.claimed)


def _await_heed(live: LiveState, flow_session_id: str) -> Unheeded:
    """Wait until all runners that have claimed something have seen the mark, or settled it; returns the others."""
    end = time.monotonic() + HEED_SECONDS
    while (unheeded := live.count_unheeded(flow_session_id)).units and time.monotonic() < end:
        time.sleep(0.01)
    return unheeded


def _await_first_branch(live: LiveState, flow_session_id: str) -> None:
    """Wait until a first branch, which nobody knows of, has had the time to see the mark."""
    end = time.monotonic() + FIRST_BRANCH_SECONDS
    while not live.is_heeded(flow_session_id) and time.monotonic() < end:
        time.sleep(0.01)


def pause_session(database: Database, live: LiveState, flow_session_id: str, by: str = "") -> Answer:
    """Pause a run: when this returns, nothing more of it is claimed; branches that run go on to their end.

    Args: by: who asks for it; `explain` says so.
    Raises: UnknownRun. ServiceUnreachable.
    """
    row = known_run(database, flow_session_id)
    found = "ended" if row.status.is_final else live.pause_sessions("session", [flow_session_id], by=by)[0]
    if found in ("paused", "unopened"):
        message = f"{flow_session_id} is paused; what runs of it goes on to the end of its branch"
        return Answer(flow_session_id, Found.DONE, RunStatus.PAUSED, message)
    if found == "again":
        return Answer(flow_session_id, Found.BEFORE, RunStatus.PAUSED, f"{flow_session_id} was paused before")
    return _ended(row, found)


def resume_session(database: Database, live: LiveState, publish: Publish, flow_session_id: str) -> Answer:
    """Let a run go on that was paused by itself.

    Raises: UnknownRun. ServiceUnreachable.
    """
    row = known_run(database, flow_session_id)
    if row.status.is_final:
        return _ended(row, "ended")
    (found,), publications = live.resume_sessions("session", [flow_session_id])
    publish(publications)
    reasons = live.paused_reasons(flow_session_id) if found in ("still", "before") else frozenset()
    if reasons:
        others = " and ".join(f"`parallelizer resume {_OPTION[reason]}`" for reason in sorted(reasons))
        message = f"{flow_session_id} stays paused until {others}"
        return Answer(flow_session_id, Found.BEFORE, RunStatus.PAUSED, message)
    if found in ("resumed", "unopened"):
        return Answer(flow_session_id, Found.DONE, RunStatus.RUNNING, f"{flow_session_id} goes on")
    if found == "before":
        return Answer(flow_session_id, Found.BEFORE, row.status, f"{flow_session_id} was not paused")
    return _ended(row, found)


def pause_all(database: Database, live: LiveState, workflow: str | None = None, by: str = "") -> int:
    """Pause all runs, or those of a workflow, and those that start later; returns how many are paused by it now.

    Args: by: who asks for it; `explain` says so.
    Raises: UnknownWorkflow: nothing of this name was ever published or run. ServiceUnreachable.
    """
    why, name = _scope(database, workflow)
    live.pause_sessions(why, workflow=name, by=by)
    return sum(live.pause_sessions(why, some, name, by).count("paused") for some in _slices(live.open_sessions()))


def resume_all(database: Database, live: LiveState, publish: Publish, workflow: str | None = None) -> int:
    """Take back `pause_all`; returns how many runs go on. Those that are paused for another reason too stay so.

    Raises: UnknownWorkflow. ServiceUnreachable.
    """
    why, name = _scope(database, workflow)
    live.resume_sessions(why, workflow=name)
    resumed = 0
    for some in _slices(live.open_sessions()):
        found, publications = live.resume_sessions(why, some, name)
        publish(publications)
        resumed += found.count("resumed")
    return resumed


#: Why a session is paused → how it is resumed.
_OPTION = {"session": "RUN", "workflow": "--workflow NAME", "all": "--all"}
#: Sessions in one call of a script.
_SLICE = 100


def _slices(names: Sequence[str]) -> list[Sequence[str]]:
    return [names[start : start + _SLICE] for start in range(0, len(names), _SLICE)]


def _scope(database: Database, workflow: str | None) -> tuple[str, str]:
    if workflow is None:
        return "all", ""
    if not workflows.list_versions(database, workflow):
        raise UnknownWorkflow(f"no workflow {workflow!r} was ever published or run; `parallelizer list` shows runs")
    return "workflow", workflow


def known_run(
    database: Database,
    flow_session_id: str,
    load: Callable[[Database, str], sessions.SessionRow | None] = sessions.find_session,
) -> sessions.SessionRow:
    """A run; without payload, output and error where `load` leaves them out.

    Raises: UnknownRun.
    """
    row = load(database, flow_session_id)
    if row is None:
        raise UnknownRun(f"no run has the id {flow_session_id}; `parallelizer list` shows those there are")
    return row


def _ended(row: sessions.SessionRow, found: str) -> Answer:
    if found == "cancelled":
        message = f"{row.flow_session_id} is cancelled, and about to end"
        return Answer(row.flow_session_id, Found.ENDED, RunStatus.CANCELLED, message)
    message = (
        f"{row.flow_session_id} has ended: {row.status}"
        if row.status.is_final
        else (f"{row.flow_session_id}: all its branches have settled, it is about to end")
    )
    return Answer(row.flow_session_id, Found.ENDED, row.status, message)
