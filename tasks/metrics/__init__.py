"""Shows a worker's metrics: at an HTTP endpoint, and to an OTLP receiver where one is configured.

Runs in the worker's upkeep process, which there is once for each worker, whatever becomes of its children.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from config.settings import Settings

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT")


def sends_otlp() -> bool:
    """Whether OpenTelemetry's own variables ask for metrics."""
    if os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    exporter = os.environ.get("OTEL_METRICS_EXPORTER", "")
    if exporter:
        return "otlp" in exporter.split(",")
    return any(os.environ.get(name) for name in _ENDPOINTS)


def start_metrics(settings: Settings, worker: str, slots: int) -> Callable[[], None]:
    """Show the metrics of a worker, if anybody wants them.

    Returns: what ends it.
    """
    by_otlp = sends_otlp()
    if not settings.metrics_enabled or (settings.metrics_port is None and not by_otlp):
        return lambda: None
    from tasks.metrics.worker import WorkerMetrics  # noqa: PLC0415 - 5 MB that are not needed else

    return WorkerMetrics(settings, worker, slots, by_otlp=by_otlp).close
