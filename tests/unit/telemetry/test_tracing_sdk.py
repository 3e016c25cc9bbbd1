"""What is known of spans on their way to a receiver."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from orchestration.telemetry.span import Span
from orchestration.telemetry.tracing_sdk import LateBatches, Sent
from tests.support.waiting import wait_until


class Slow(InMemorySpanExporter):
    """Takes nothing until it may."""

    def __init__(self) -> None:
        super().__init__()
        self.is_asked, self.may = threading.Event(), threading.Event()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.is_asked.set()
        self.may.wait(60)
        return super().export(spans)


def numbered(number: int) -> Span:
    return Span("x", 7, number, None, SpanKind.INTERNAL, 1, 2, {}, number=number)


def test_spans_that_were_dropped_are_waited_for_no_longer_than_those_behind_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "4")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "2")
    exporter = Slow()
    sent = Sent(exporter, Resource.get_empty())
    batches = LateBatches(lambda: sent)  # type: ignore[arg-type,return-value]  # it has all that one has
    for number in (1, 2):
        batches.on_end(numbered(number))
    assert exporter.is_asked.wait(60)
    for number in range(3, 21):
        batches.on_end(numbered(number))
    assert sent.number == 0
    exporter.may.set()
    wait_until(lambda: sent.number == 20, "the last one is sent")
    assert len(exporter.get_finished_spans()) == 6, "two that were on their way, and four that could wait"
    batches.end()
