"""How times, sizes and statuses look to a person. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

#: Status of a run, task or branch → how it is drawn on a terminal: sign and style.
SIGNS = {
    "pending": ("○", "dim"),
    "queued": ("○", "dim"),
    "running": ("●", "cyan"),
    "suspended": ("◌", "cyan"),
    "paused": ("◌", "yellow"),
    "succeeded": ("✔", "green"),
    "failed": ("✘", "red"),
    "timed_out": ("✘", "red"),
    "cancelled": ("✘", "yellow"),
    "upstream_failed": ("–", "yellow"),
    "skipped": ("–", "dim"),
}


def style_of(status: str) -> str:
    return SIGNS.get(status, ("", ""))[1]


def seconds_in_words(seconds: float) -> str:
    """`0.004 s`, `12.3 s`, `2:03`, `1:02:03`."""
    if seconds < 60:
        return f"{seconds:.3f} s" if seconds < 0.1 else f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def between(started_at: datetime | None, finished_at: datetime | None) -> str:
    """The time between two moments, or nothing where one is not known."""
    if started_at is None or finished_at is None:
        return ""
    return seconds_in_words(max(0.0, (finished_at - started_at).total_seconds()))


def one_line(text: str, most: int = 300) -> str:
    """Text from a run (an error, a value) made safe for a terminal: one line, no control characters, not endless."""
    cleaned = "".join(character if character.isprintable() else " " for character in text.strip())
    return cleaned if len(cleaned) <= most else f"{cleaned[: most - 1]}…"


def local_time(moment: datetime | None) -> str:
    """A time on this machine's clock: today's without the date."""
    if moment is None:
        return ""
    local = moment.astimezone()
    return local.strftime("%H:%M:%S" if local.date() == datetime.now().astimezone().date() else "%Y-%m-%d %H:%M")


def rfc3339(moment: datetime | None) -> str | None:
    """A time as programs read it: UTC, microseconds."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z") if moment else None


def rfc3339_of_us(us: int) -> str:
    """µs since the epoch in the same way."""
    return datetime.fromtimestamp(us / 1e6, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def error_in_words(error: object) -> str:
    """A recorded error (an object with `type` and `message`) as `Type: message`, without the type's module."""
    if not isinstance(error, dict):
        return str(error) if error is not None else ""
    kind = str(error.get("type") or "").rpartition(".")[2]
    return ": ".join(part for part in (kind, str(error.get("message") or "")) if part)


def counts_in_words(counts: Mapping[str, int]) -> str:
    """Tasks by status, always in the same order: `3,585 succeeded, 2 failed`."""
    known = sorted(counts, key=lambda status: _ORDER.index(status) if status in _ORDER else len(_ORDER))
    return ", ".join(f"{counts[status]:,} {status.replace('_', ' ')}" for status in known if counts[status])


_ORDER = ("succeeded", "failed", "timed_out", "cancelled", "upstream_failed", "skipped", "running", "pending")
