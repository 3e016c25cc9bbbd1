"""Which flow session a request is for; asked in a worker's main process, of whatever callers have sent."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from tasks.workflow import flow_session_id_of, session_of

TASK = "0b0f6f0e-5f0c-4b4f-9c43-0a4b3d3c7b1e"


@pytest.mark.parametrize(("run_id", "session"), [("order 7", flow_session_id_of(TASK, "order 7")), (7, TASK)])
def test_a_run_id_that_is_refused_names_no_session(run_id: object, session: str) -> None:
    assert session_of(SimpleNamespace(name="tasks.run_workflow", id=TASK, kwargs={"run_id": run_id})) == session


def test_a_runner_and_a_completion_name_theirs() -> None:
    assert session_of(SimpleNamespace(name="tasks.run_branches", id=f"{TASK}.3")) == TASK
    assert session_of(SimpleNamespace(name="tasks.complete_workflow", id="other", args=[TASK])) == TASK
