"""Checks of times that a definition names: one that would never be reached is a mistake. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from orchestration.definition.places import DocumentPath, Finding


def find_time_mistakes(limits: object, actions: Mapping[str, Mapping[str, object]]) -> Iterator[Finding]:
    """Find time limits that are longer than the deadline of the flow session."""
    deadline = _number(limits.get("deadline_seconds")) if isinstance(limits, Mapping) else None
    if not isinstance(limits, Mapping) or deadline is None:
        return
    places: list[tuple[DocumentPath, object]] = [
        *((("limits", name), limits.get(name)) for name in ("branch_timeout_seconds", "max_wait_seconds")),
        *((("actions", name, "timeout_seconds"), one.get("timeout_seconds")) for name, one in actions.items()),
    ]
    for path, value in places:
        seconds = _number(value)
        if seconds is not None and seconds > deadline:
            message = f"{path[-1]} {seconds:g} is more than deadline_seconds {deadline:g} of the flow session"
            yield Finding(path, message, "it would never be reached: leave it out, or raise deadline_seconds")


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
