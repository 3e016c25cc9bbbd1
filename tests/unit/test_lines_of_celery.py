"""Celery's own lines about messages of ours carry the flow session, as far as they tell which it is."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from tasks.worker.task_logs import ids_of_line

SESSION = "1028f001-db6c-4e6f-9556-8cbc88cb76bc"


@pytest.mark.parametrize(
    ("request_", "session"),
    [
        ({"name": "tasks.run_branches", "id": f"{SESSION}.3"}, SESSION),
        ({"name": "tasks.run_workflow", "id": SESSION, "kwargs": "{}"}, SESSION),
        ({"name": "tasks.run_workflow", "id": SESSION, "kwargs": "{'run_id': 'order-7'}"}, None),
        ({"name": "tasks.complete_workflow", "id": "other", "args": f"('{SESSION}',)"}, SESSION),
        ({"name": "tasks.take_up_workflow", "id": SESSION, "args": "(…"}, None),
        ({"name": "shop.mail", "id": SESSION}, None),
        ({"id": None}, None),
        ("no request", None),
    ],
)
def test_the_session_of_a_line(request_: Any, session: str | None) -> None:
    record = logging.makeLogRecord({"name": "celery.app.trace", "msg": "received", "data": request_})
    assert ids_of_line(record).get("flow_session_id") == session
