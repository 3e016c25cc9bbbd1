"""Entries as the scripts write them."""

from __future__ import annotations

import orjson

from tests.integration.store.rows import DAY, NOON_US

Entry = list[tuple[bytes, bytes]]


def entry(flow_session_id: str, *items: int, status: str = "succeeded", sequence: int = 100_005) -> Entry:
    """One settlement: rows of the items of action `work`."""
    rows = [["t", "work", item, status, 1, sequence, "branches", 60, 20, f'{{"item":{item}}}', None] for item in items]
    return [
        (b"s", flow_session_id.encode()), (b"d", DAY.encode()), (b"t", str(NOON_US).encode()), (b"w", b"worker@here"),
        (b"b", orjson.dumps(rows)),
    ]  # fmt: skip
