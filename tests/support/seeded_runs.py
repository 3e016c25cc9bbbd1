"""Runs that were never run: rows of a long order fulfilment, written by SQL, for tests of pages and for pictures."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from orchestration.store import sessions, workflows
from orchestration.store.pool import Database
from orchestration.vocabulary import RunStatus

#: When the pictures begin.
MORNING = datetime(2026, 11, 2, 9, 30, tzinfo=UTC)
WORKERS = 2
SLOTS = 5

ACTIONS: dict[str, dict[str, Any]] = {
    "fetch": {"uses": "shop.fetch", "with": {"order": "${{ payload.order_id }}"}, "retry": {"max_attempts": 5}},
    "check-stock": {"uses": "shop.stock", "needs": ["fetch"]},
    "score-risk": {"uses": "shop.risk", "needs": ["fetch"]},
    "charge": {"uses": "shop.charge", "needs": ["score-risk"], "timeout_seconds": 30},
    "invoice": {"uses": "shop.invoice", "needs": ["charge"]},
    "ship": {"uses": "shop.ship", "needs": ["check-stock", "charge"], "max_concurrent": 50,
             "for_each": "${{ tasks.fetch.result.items }}", "with": {"sku": "${{ item.sku }}"}},
    "label": {"uses": "shop.label", "needs": ["check-stock"], "queue": "printers"},
    "notify": {"uses": "shop.notify", "needs": ["ship", "invoice", "label"], "trigger_rule": "all_done"},
    "archive": {"uses": "shop.archive", "needs": ["notify"]},
}  # fmt: skip

#: action, first ms, last ms, attempt, worker, status; relative to the start of the run
PLAIN = [
    ("fetch", 40, 900, 1, 0, "succeeded"),
    ("check-stock", 960, 2300, 1, 1, "succeeded"),
    ("score-risk", 980, 2900, 2, 0, "succeeded"),
    ("charge", 2910, 4100, 1, 0, "succeeded"),
    ("invoice", 4150, 5600, 1, 1, "succeeded"),
    ("label", 2350, 5200, 3, 1, "failed"),
]

_PLAIN = """
INSERT INTO tasks (session_day, flow_session_id, action, item, status, attempt, sequence, queue, worker, started_at,
    finished_at, result, error)
VALUES (%(day)s, %(id)s, %(action)s, -1, %(status)s, %(attempt)s, 100005, 'branches', %(worker)s, %(start)s, %(end)s,
    %(result)s, %(error)s)
"""
_BRANCH = """
INSERT INTO branches (session_day, flow_session_id, branch, status, attempt, sequence, queue, worker, started_at,
    finished_at, waited_us)
VALUES (%(day)s, %(id)s, %(action)s, %(status)s, %(attempt)s, 100005, 'branches', %(worker)s, %(start)s, %(end)s,
    %(waited)s)
"""
#: Each slot runs one item after another; how long each takes is drawn from its number, so that it is always the same.
_ITEMS = """
INSERT INTO tasks (session_day, flow_session_id, action, item, status, attempt, sequence, queue, worker, started_at,
    finished_at, result, error)
SELECT %(day)s, %(id)s, %(action)s, item,
    CASE WHEN failed THEN 'failed' ELSE 'succeeded' END, CASE WHEN failed THEN 3 ELSE 1 END, 100005, 'branches',
    'worker-' || slot %% %(workers)s + 1 || '@shop',
    %(start)s + (ended - lasted + gap) * interval '1 ms', %(start)s + ended * interval '1 ms',
    CASE WHEN NOT failed THEN json_build_object('parcel', 'P' || 100000 + item) END,
    CASE WHEN failed THEN '{"type": "CarrierDown", "message": "the carrier answered 503 Service Unavailable"}'::json END
FROM (
    SELECT item, slot, failed, lasted, least(lasted / 6, %(gap)s) AS gap,
        sum(lasted) OVER (PARTITION BY slot ORDER BY item) + slot * 7 AS ended
    FROM (
        SELECT item, (item + item / 97) %% %(slots)s AS slot, hashint4(item) %% 997 = 0 AS failed,
            %(mean)s * (0.4 + abs(hashint4(item * 7)) %% 1000 / 800.0 + CASE WHEN abs(hashint4(item)) %% 61 = 0
                THEN 4 ELSE 0 END) AS lasted
        FROM generate_series(0, %(items)s - 1) AS item
    ) AS drawn
) AS placed
"""


def register(database: Database, name: str, actions: Mapping[str, Mapping[str, Any]]) -> tuple[str, int]:
    """A version of a workflow; its actions need not exist."""
    version_id = f"{name}-{uuid.uuid4().hex}"
    definition = {"name": name, "queue": "branches", "actions": dict(actions)}
    return version_id, workflows.register_version(database, name, version_id, definition, publish=True).number


def seed_run(
    database: Database,
    items: int = 50_000,
    *,
    started_at: datetime = MORNING,
    mean_ms: float = 20.0,
    still_running: bool = False,
    flow_session_id: str | None = None,
) -> str:
    """An order with so many parcels, of which one in a thousand failed.

    Args: mean_ms: how long an item takes, about. still_running: what comes behind the parcels has not begun.
    Returns: the id of the flow session.
    """
    version_id, number = register(database, "order-fulfilment", ACTIONS)
    flow_session_id = flow_session_id or str(uuid.uuid4())
    row = sessions.insert_session(
        database, flow_session_id, workflow="order-fulfilment", version_id=version_id, version=number,
        payload='{"order_id": 4711}',
    )  # fmt: skip
    key: dict[str, Any] = {"day": row.session_day, "id": flow_session_id}
    with database.transaction() as cursor:
        for action, first, last, attempt, worker, status in PLAIN:
            error = '{"type": "PrinterError", "message": "out of paper"}' if status == "failed" else None
            values = key | {
                "action": action, "status": status, "attempt": attempt, "worker": f"worker-{worker + 1}@shop",
                "start": started_at + timedelta(milliseconds=first), "end": started_at + timedelta(milliseconds=last),
                "result": None if error else '{"ok": true}', "error": error, "waited": 30_000,
            }  # fmt: skip
            cursor.execute(_PLAIN, values)
            cursor.execute(_BRANCH, values)
        cursor.execute(
            _ITEMS,
            key | {"action": "ship", "items": items, "slots": WORKERS * SLOTS, "workers": WORKERS, "mean": mean_ms,
                   "start": started_at + timedelta(milliseconds=5700), "gap": mean_ms / 6},
        )  # fmt: skip
        cursor.execute(
            "SELECT max(finished_at), count(*) FILTER (WHERE status = 'failed') FROM tasks"
            " WHERE session_day = %(day)s AND flow_session_id = %(id)s AND action = 'ship'",
            key,
        )
        found = cursor.fetchone()
        assert found is not None
        end, failed = found
        values = key | {
            "action": "ship", "status": "running", "attempt": 1, "worker": None, "waited": 1_600_000,
            "start": started_at + timedelta(milliseconds=5700), "end": None, "result": None, "error": None,
        }  # fmt: skip
        if not still_running:
            values |= {
                "status": "failed",
                "end": end,
                "result": f'{{"total": {items}, "succeeded": {items - failed}, "failed": {failed}}}',
                "error": f'{{"type": "ItemsFailed", "message": "{failed} of {items} items failed"}}',
            }
        cursor.execute(_PLAIN, values)
        cursor.execute(_BRANCH, values)
        if still_running:
            cursor.execute(
                "UPDATE flow_sessions SET created_at = %(start)s, started_at = %(start)s"
                " WHERE session_day = %(day)s AND flow_session_id = %(id)s",
                key | {"start": started_at},
            )
            return flow_session_id
        for action, first, last in (("notify", 60, 380), ("archive", 400, 900)):
            values |= {"action": action, "status": "succeeded", "worker": "worker-1@shop", "waited": 40_000,
                       "start": end + timedelta(milliseconds=first), "end": end + timedelta(milliseconds=last),
                       "result": "null", "error": None}  # fmt: skip
            cursor.execute(_PLAIN, values)
            cursor.execute(_BRANCH, values)
        cursor.execute(
            "UPDATE flow_sessions SET created_at = %(start)s, started_at = %(start)s, finished_at = %(end)s,"
            " status = %(status)s, counts = %(counts)s"
            " WHERE session_day = %(day)s AND flow_session_id = %(id)s",
            key | {"start": started_at, "end": end + timedelta(milliseconds=900), "status": RunStatus.SUCCEEDED.value,
                   "counts": f'{{"succeeded": {items - failed + 7}, "failed": {failed + 2}}}'},
        )  # fmt: skip
    return flow_session_id
