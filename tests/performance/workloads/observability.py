"""Everything that can be seen of runs, beside nothing of it: traces and metrics sent to a receiver, metrics counted and
shown, lines of actions kept, or all of that off. Each side has a worker of its own, on the same servers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import harmonic_mean
from typing import ClassVar, Final

from tests.performance.comparison import Comparison, Goal, Sample
from tests.performance.counting import Counters
from tests.performance.receiver import receiving_apart
from tests.performance.stack import PREFORK, WorkerKind
from tests.performance.workloads.fan_out import FanOut
from tests.performance.workloads.linear import Chain
from tests.performance.workloads.small_runs import SmallRuns

OFF: Final = replace(
    PREFORK, settings={"METRICS_ENABLED": "false", "OTEL_SDK_DISABLED": "true", "TASK_LOG_LINES": "0"}
)  # fmt: skip
#: The metrics are read as often as by a scrape each second.
ON: Final[Mapping[str, str]] = {"METRICS_PORT": "0", "OTEL_METRIC_EXPORT_INTERVAL": "1000"}
#: So much of the speed is left, at least.
SHARE: Final = 0.9
#: One alone is over in a moment: its rows would be counted by how long the last of them waited.
CHAINS: Final = 10
_UNITS: Final = {"items": "items/s", "steps": "steps/s", "runs": "runs/s"}
_ENDS: Final = {"to_results": "until the result", "to_rows": "until all rows are in PostgreSQL"}


@dataclass(frozen=True, slots=True)
class Observability:
    """Items, steps of a chain, and small runs."""

    items: int
    #: Of each of CHAINS that run at once.
    steps: int
    runs: int
    #: Of each in a measurement.
    rounds: int = 3
    name: ClassVar[str] = "observability"
    worker: ClassVar[WorkerKind] = OFF
    repeats: ClassVar[int] = 3
    beside: ClassVar[str] = "all of it off"
    comparisons: ClassVar[Sequence[Comparison]] = tuple(
        Comparison(f"{of}, {title}", unit, f"{of}_{end}", f"{of}_{end}", goal=Goal(SHARE))
        for of, unit in _UNITS.items()
        for end, title in _ENDS.items()
    )

    @property
    def title(self) -> str:
        return f"{self.items:,} items, {CHAINS} x {self.steps:,} steps, {self.runs} small runs, all seen / not seen"

    def warm_up(self, counters: Counters) -> None:
        """Nothing: each side begins with a worker that has just started."""

    def ours(self, counters: Counters) -> Sample:
        with receiving_apart() as url:
            kind = replace(PREFORK, settings={**ON, "OTEL_EXPORTER_OTLP_ENDPOINT": url})
            try:
                return self._measure(counters, kind)
            finally:
                counters.stack.use(OFF)  # while the receiver still takes what is sent at the end

    def other(self, counters: Counters) -> Sample:
        return self._measure(counters, OFF)

    def _measure(self, counters: Counters, kind: WorkerKind) -> Sample:
        counters.stack.use(kind)
        measures, counts = dict[str, float](), Counter[str]()
        parts: Mapping[str, FanOut | Chain | SmallRuns] = {
            "items": FanOut(self.items), "steps": Chain(self.steps, 20, CHAINS), "runs": SmallRuns(self.runs),
        }  # fmt: skip
        for of, part in parts.items():
            part.warm_up(counters)
            samples = [part.ours(counters) for _ in range(self.rounds)]
            counts.update({of: sum(sample.counts[of] for sample in samples)})
            counts.update({"rows": sum(sample.counts["rows"] for sample in samples)})
            measures |= {f"{of}_{end}": harmonic_mean([sample.measures[end] for sample in samples]) for end in _ENDS}
        return Sample(measures, dict(counts))
