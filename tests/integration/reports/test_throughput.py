"""How much the fleet does over time: from samples to points, and from rows to samples."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest

from orchestration.reports.throughput import percentile, point, thinned, throughput
from orchestration.state.live import LiveState
from orchestration.store import samples, updates
from orchestration.store.pool import Database
from orchestration.store.samples import Gauges, Sample
from orchestration.store.updates import BranchUpdate
from orchestration.telemetry.metrics import WAITS
from tasks.sampler import Sampler
from tests.integration.store.rows import DAY, NOON_US, new_session, task

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
IDLE = Gauges(0, 2, 1, 0, 0, 0.0)


@pytest.fixture
def live(redis_url: str, namespace: str) -> Iterator[LiveState]:
    with closing(LiveState(redis_url, namespace)) as live:
        yield live


def sample(seconds: float, ended: int, failed: int = 0, waits: dict[int, int] | None = None) -> Sample:
    every = tuple((waits or {}).get(place, 0) for place in range(len(WAITS.whole) + 1))
    return Sample(NOON + timedelta(seconds=seconds), ended, failed, 0, 0, every, IDLE)


def test_a_point_tells_rates_since_the_point_before() -> None:
    told = point(sample(0, 100), sample(10, 150, failed=5, waits={0: 50}), 10)
    assert (told["branches"], told["failed"]) == (5.0, 0.5)
    assert told["p50"] == pytest.approx(0.0005)
    assert told["at"] == round((NOON + timedelta(seconds=10)).timestamp() * 1000)


@pytest.mark.parametrize(
    "before",
    [None, sample(-120, 100), sample(0, 200), sample(10, 100)],
    ids=["the first", "a gap", "another database", "at the same moment"],
)
def test_what_is_not_known_is_not_told(before: Sample | None) -> None:
    told = point(before, sample(10, 150), 10)
    assert told["branches"] is None
    assert told["slots"] == 2


def test_each_stretch_keeps_its_last_sample() -> None:
    every = [sample(seconds, seconds) for seconds in (0, 10, 20, 29, 30, 95)]
    assert [one.ended for one in thinned(every, 30)] == [29, 30, 95]
    assert list(thinned([], 30)) == []


@pytest.mark.parametrize(
    ("waits", "share", "seconds"),
    [
        ({}, 0.5, None),
        ({0: 100}, 0.5, 0.0005),
        ({0: 50, 3: 50}, 0.95, 0.0235),
        ({0: 1, len(WAITS.whole): 99}, 0.95, WAITS.shown[-1]),
    ],
)
def test_percentiles_lie_within_their_bucket(waits: dict[int, int], share: float, seconds: float | None) -> None:
    found = percentile(sample(0, 0, waits=waits).waits, share)
    assert found == (None if seconds is None else pytest.approx(seconds, rel=0.05))


def test_samples_have_what_was_recorded_and_one_process_makes_them(live: LiveState, database: Database) -> None:
    run = new_session(database).flow_session_id
    sampler = Sampler(live, database)
    sampler.sample()
    sampler.sample()
    assert len(samples.read_samples(database, live.space.namespace, 60)) == 1
    items = [task(run, "each", item, status="failed" if item == 0 else "succeeded") for item in range(4)]
    branch = BranchUpdate(DAY, run, "b", "succeeded", 1, 100_005, "q", "w", NOON_US, NOON_US + 5, 20_000)
    updates.write_rows(database, [task(run, "b"), *items], [branch])
    samples.add_sample(database, live.space.namespace, Gauges(3, 4, 1, 7, 9, 0.5))
    first, second = samples.read_samples(database, live.space.namespace, 60)
    assert (second.ended - first.ended, second.failed - first.failed) == (5, 1)
    assert sum(second.waits) - sum(first.waits) == 1
    assert second.gauges == Gauges(3, 4, 1, 7, 9, 0.5)
    assert samples.read_samples(database, "another", 60) == []
    told = throughput(database, live, 300)
    assert told["points"][-1]["permits"] == 3
    assert set(told["now"]) >= {"permits", "slots", "workers", "waiting", "lag_seconds"}
    database.execute("UPDATE fleet_samples SET sampled_at = sampled_at - interval '26 hours'")
    samples.drop_old_samples(database)
    assert samples.read_samples(database, live.space.namespace, 200_000) == []


def test_another_process_makes_no_sample_where_one_is_fresh(live: LiveState, database: Database) -> None:
    namespace = live.space.namespace
    for _ in range(2):
        Sampler(live, database).sample()
    assert len(samples.read_samples(database, namespace, 60)) == 1
    database.execute(
        "UPDATE fleet_samples SET sampled_at = sampled_at - interval '10 seconds' WHERE namespace = %s", (namespace,)
    )
    Sampler(live, database).sample()
    assert len(samples.read_samples(database, namespace, 60)) == 2
