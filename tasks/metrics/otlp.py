"""The same metrics for OpenTelemetry: sent as OTLP over HTTP, set up by the standard `OTEL_*` variables.

They are read where the HTTP endpoint reads them and sent as they are, cumulative: there is one way to count. Counters
lose `_total`, which receivers add by themselves.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Sequence
from typing import Final

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from orchestration.reports.metrics import Family, Labels, MetricsReader
from orchestration.telemetry.metrics import Type
from orchestration.telemetry.resource import make_resource

_log = logging.getLogger(__name__)
_CUMULATIVE: Final = AggregationTemporality.CUMULATIVE
DEFAULT_INTERVAL_MS: Final = 60_000
#: For the last one; the worker is waited for, and the receiver may be away.
CLOSE_SECONDS: Final = 2.0


class OtlpSender:
    """Sends the metrics of one worker again and again, from a thread of its own.

    Args: worker: its name.
    """

    def __init__(self, reader: MetricsReader, worker: str) -> None:
        self._reader = reader
        self._exporter = OTLPMetricExporter()
        self._resource = make_resource(worker)
        self._began_ns = time.time_ns()
        self._interval_seconds = int(os.environ.get("OTEL_METRIC_EXPORT_INTERVAL") or DEFAULT_INTERVAL_MS) / 1000
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="metrics by OTLP", daemon=True)

    def start(self) -> None:
        """Send from now on."""
        self._thread.start()

    def close(self) -> None:
        """Send once more, and no more then."""
        self._closing.set()
        self._thread.join(CLOSE_SECONDS)
        self._exporter.shutdown()

    def _run(self) -> None:
        while not self._closing.wait(self._interval_seconds):
            self._send()
        self._send()

    def _send(self) -> None:
        try:
            self._exporter.export(metrics_data(self._reader.read(), self._resource, self._began_ns, time.time_ns()))
        except Exception:  # noqa: BLE001 - the next one may be taken
            _log.warning("metrics were not sent", exc_info=True)


def metrics_data(families: Sequence[Family], resource: Resource, began_ns: int, now_ns: int) -> MetricsData:
    """Values as OpenTelemetry's SDK has them."""
    scope = InstrumentationScope("parallelizer")
    metrics = [_metric(family, began_ns, now_ns) for family in families]
    return MetricsData([ResourceMetrics(resource, [ScopeMetrics(scope, metrics, "")], "")])


def _metric(family: Family, began_ns: int, now_ns: int) -> Metric:
    metric = family.metric
    unit = "s" if "_seconds" in metric.name else "By" if metric.name.endswith("_bytes") else "1"
    data: Gauge | Histogram | Sum
    if metric.type in (Type.HISTOGRAM, Type.SUMMARY):
        data = Histogram(_histogram_points(family, began_ns, now_ns), _CUMULATIVE)
    else:
        points = [
            NumberDataPoint(_attributes(metric.labels, labels), began_ns, now_ns, float(number))
            for labels, number in family.numbers.items()
        ]
        is_counter = metric.type is Type.COUNTER
        data = Sum(points, _CUMULATIVE, is_monotonic=True) if is_counter else Gauge(points)
    return Metric(metric.name.removesuffix("_total"), metric.help, unit, data)


def _histogram_points(family: Family, began_ns: int, now_ns: int) -> list[HistogramDataPoint]:
    bounds = family.metric.bounds
    return [
        HistogramDataPoint(
            _attributes(family.metric.labels, labels), began_ns, now_ns, count=sum(spread.counts), sum=spread.total,
            bucket_counts=spread.counts, explicit_bounds=bounds.shown if bounds is not None else (),
            min=None, max=None,  # type: ignore[arg-type]  # not known; the exporter leaves them out
        )
        for labels, spread in family.spreads.items()
    ]  # fmt: skip


def _attributes(names: Sequence[str], values: Labels) -> dict[str, str]:
    return dict(zip(names, values, strict=True))
