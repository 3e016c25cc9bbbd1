"""Samples of the fleet for the page about throughput; each upkeep process makes one where no other has."""

from __future__ import annotations

import time

from orchestration.state.live import LiveState
from orchestration.state.occupancy import read_occupancy
from orchestration.store.pool import Database
from orchestration.store.samples import Gauges, add_sample, drop_old_samples, is_sampled

_DROP_SECONDS = 3600.0


class Sampler:
    """Makes samples of one namespace."""

    def __init__(self, live: LiveState, database: Database) -> None:
        self._live = live
        self._database = database
        self._dropped_at = float("-inf")

    def sample(self) -> None:
        """There is a fresh sample; old ones are gone."""
        namespace = self._live.space.namespace
        if is_sampled(self._database, namespace):
            return
        fleet = read_occupancy(self._live)
        gauges = Gauges(
            fleet.permits, fleet.slots, fleet.workers, fleet.waiting, fleet.entries, fleet.lag_us / 1e6
        )  # fmt: skip
        add_sample(self._database, namespace, gauges)
        if time.monotonic() - self._dropped_at > _DROP_SECONDS:
            self._dropped_at = time.monotonic()
            drop_old_samples(self._database)
