"""Who asks for metrics, and how they are declared."""

from __future__ import annotations

import re
import threading

import pytest

from config.settings import load_settings
from orchestration.telemetry.metrics import METRICS, Source, Type
from tasks import metrics


@pytest.mark.parametrize(
    ("variables", "sends"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://collector:4318/v1/metrics"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4318/v1/traces"}, False),
        ({"OTEL_METRICS_EXPORTER": "otlp"}, True),
        ({"OTEL_METRICS_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}, False),
        ({"OTEL_SDK_DISABLED": "true", "OTEL_METRICS_EXPORTER": "otlp"}, False),
    ],
)
def test_the_standard_variables_say_whether_metrics_are_sent(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], sends: bool
) -> None:
    for name in ("OTEL_SDK_DISABLED", "OTEL_METRICS_EXPORTER", "OTEL_EXPORTER_OTLP_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert metrics.sends_otlp() is sends


def test_with_everything_off_nothing_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "sends_otlp", lambda: False)
    settings = load_settings(redis_url="redis://127.0.0.1:1", database_url="postgresql://127.0.0.1:1/x")
    metrics.start_metrics(settings, "worker", 2)()


def test_metrics_that_are_off_are_off_whatever_else_asks_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "sends_otlp", lambda: True)
    settings = load_settings(
        redis_url="redis://127.0.0.1:1", database_url="postgresql://127.0.0.1:1/x", metrics_enabled=False,
        metrics_port=0,
    )  # fmt: skip
    threads = threading.active_count()
    metrics.start_metrics(settings, "worker", 2)()
    assert threading.active_count() == threads


def test_names_say_what_they_are_in_the_way_of_prometheus() -> None:
    for metric in METRICS.values():
        assert re.fullmatch(r"parallelizer_[a-z_]+", metric.name)
        assert (metric.type is Type.COUNTER) == metric.name.endswith("_total"), metric.name
        assert (metric.bounds is not None) == (metric.type is Type.HISTOGRAM), metric.name
        assert metric.help.endswith((".", ")."))
        assert "id" not in metric.labels
        if metric.bounds is not None:
            assert list(metric.bounds.whole) == sorted(set(metric.bounds.whole))
    # what is of one worker has no name in it: the one who scrapes knows whom
    assert not {label for each in METRICS.values() if each.source is Source.WORKER for label in each.labels} - {
        "service", "verdict", "way",
    }  # fmt: skip
