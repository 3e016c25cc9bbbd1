"""Workflows that lead processes past probes which the mix of the campaign does not reach."""

from __future__ import annotations

from tests.chaos.workload import Kind, kinds, step

#: Results above this are not kept in Redis (MAX_RESULT_BYTES of the workers).
LARGE_BYTES = 1024
#: A queue that no worker serves.
NOWHERE = "nowhere"


def crash_kinds() -> dict[str, Kind]:
    """The mix, and more."""
    made = [
        Kind(
            {"name": "uneven", "actions": {"each": {
                "uses": "chaos.work", "for_each": {"range": 40},
                "with": {"seconds": "${{ item % 8 == 7 ? 0.08 : 0.001 }}"},
            }}},
            2, {"succeeded": 40},
        ),
        Kind(
            {"name": "rated", "actions": {"first": step([], 0.0), "each": step(
                ["first"], 0.0, for_each={"range": 4}, rate_limit="50/s burst 2",
            )}},
            2, {"succeeded": 5},
        ),
        Kind(
            {"name": "overdue", "limits": {"max_wait_seconds": 1}, "actions": {"never": step([], 0.0, queue=NOWHERE)}},
            1, {"timed_out": 1}, status="failed",
        ),
        Kind(
            {"name": "lone", "actions": {"long": step([], 1.5)}},
            1, {"succeeded": 1},
        ),
        Kind(
            {"name": "telling", "actions": {"first": {"uses": "chaos.tell"}, "last": {
                "uses": "chaos.tell", "needs": ["first"],
            }}},
            2, {"succeeded": 2},
        ),
        Kind(  # for those who pause and cancel
            {"name": "patient", "actions": {
                "first": step([], 0.0), "long": step(["first"], 8.0), "short": step(["first"], 0.1),
            }},
            0, {"succeeded": 3},
        ),
        Kind(
            {"name": "awaiting", "actions": {
                "first": step([], 0.0), "again": {"uses": "chaos.flaky", "needs": ["first"],
                "retry": {"max_attempts": 3, "delay_seconds": 4}},
            }},
            0, {"succeeded": 2}, retries={"again": 2},
        ),
        Kind(
            {"name": "queued", "limits": {"max_concurrent_sessions": 2}, "actions": {
                "first": step([], 0.0), "last": step(["first"], 0.01),
            }},
            2, {"succeeded": 2},
        ),
        Kind(
            {"name": "large", "actions": {
                "first": {"uses": "chaos.large", "with": {"size_bytes": 2 * LARGE_BYTES}}, "last": {
                    "uses": "chaos.work", "needs": ["first"],
                    "with": {"seconds": "${{ size(tasks.first.result) > 0 ? 0.001 : 0.0 }}"},
                },
            }},
            2, {"succeeded": 2},
        ),
        Kind(
            {"name": "synced", "actions": {
                "first": step([], 0.0, durability="sync"), "last": step(["first"], 0.0, durability="sync"),
            }},
            2, {"succeeded": 2},
        ),
    ]  # fmt: skip
    return kinds() | {str(kind.definition["name"]): kind for kind in made}
