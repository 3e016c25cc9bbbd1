"""How much the fleet does, over time: from samples of the last day, and as it is now."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from orchestration.state.live import LiveState
from orchestration.state.occupancy import read_occupancy
from orchestration.store.pool import Database
from orchestration.store.samples import SAMPLE_SECONDS, Sample, read_samples
from orchestration.telemetry.metrics import WAITS

#: Spans that are shown, s → how far apart its points are, s.
SPANS = {300: 10, 3600: 30, 86_400: 300}


def throughput(database: Database, live: LiveState, span: int) -> dict[str, Any]:
    """The last `span` seconds, one of SPANS, as JSON. Times are ms since the epoch, waits seconds.

    Returns: `points`, each of what happened since the point before (rates are by second), None where that is not known;
        `now`, as it is in live state; `repairs` by cause; `totals` of the whole span.
    """
    step = SPANS[span]
    samples = read_samples(database, live.space.namespace, span + step)
    chosen = list(thinned(samples, step))
    points = [point(before, sample, step) for before, sample in zip([None, *chosen], chosen, strict=False)]
    fleet = read_occupancy(live)
    return {
        "span": span, "step": step, "time": live.now_us() // 1000, "points": points,
        "now": asdict(fleet) | {"lag_seconds": fleet.lag_us / 1e6},
        "totals": _totals(chosen[0], chosen[-1]) if len(chosen) > 1 else None,
        "repairs": live.repairs(),
    }  # fmt: skip


def thinned(samples: Iterable[Sample], step: int) -> Iterable[Sample]:
    """The last sample of each stretch of `step` seconds."""
    last: Sample | None = None
    for sample in samples:
        if last is not None and _stretch(last, step) != _stretch(sample, step):
            yield last
        last = sample
    if last is not None:
        yield last


def point(before: Sample | None, sample: Sample, step: int) -> dict[str, Any]:
    """What a sample tells with the one before it."""
    gauges = sample.gauges
    known: dict[str, Any] = {
        "at": round(sample.sampled_at.timestamp() * 1000), "permits": gauges.permits, "slots": gauges.slots,
        "workers": gauges.workers, "waiting": gauges.waiting, "lag": gauges.lag_seconds,
        "branches": None, "failed": None, "p50": None, "p95": None,
    }  # fmt: skip
    seconds = (sample.sampled_at - before.sampled_at).total_seconds() if before else 0.0
    # in a gap nobody was there to sample: no worker ran, or PostgreSQL was away
    if before is None or not 0 < seconds <= 3 * max(step, SAMPLE_SECONDS) or sample.ended < before.ended:
        return known
    waits = [now - then for now, then in zip(sample.waits, before.waits, strict=False)]
    return known | {
        "branches": (sample.ended - before.ended) / seconds,
        "failed": max(0, sample.failed - before.failed) / seconds,
        "p50": percentile(waits, 0.5), "p95": percentile(waits, 0.95),
    }  # fmt: skip


def percentile(counts: Sequence[int], share: float) -> float | None:
    """About how long the given share has waited at most, s; None: nothing has waited.

    Args: counts: by the bounds of WAITS, the last one above all. Within a bucket they are taken to lie evenly.
    """
    total = sum(max(0, count) for count in counts)
    if not total:
        return None
    rank, seen, below = share * total, 0, 0.0
    for count, bound in zip(counts, WAITS.shown, strict=False):
        if count > 0 and seen + count >= rank:
            return below + (bound - below) * (rank - seen) / count
        seen += max(0, count)
        below = bound
    return below


def _stretch(sample: Sample, step: int) -> int:
    return int(sample.sampled_at.timestamp() // step)


def _totals(first: Sample, last: Sample) -> dict[str, Any]:
    waits = [now - then for now, then in zip(last.waits, first.waits, strict=False)]
    return {
        "seconds": (last.sampled_at - first.sampled_at).total_seconds(), "branches": last.ended - first.ended,
        "failed": last.failed - first.failed, "retried": last.retried - first.retried, "runs": last.runs - first.runs,
        "p50": percentile(waits, 0.5), "p95": percentile(waits, 0.95),
    }  # fmt: skip
